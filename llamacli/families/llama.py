"""Llama 1, 2, 3, 3.1, 3.2, 3.3 and all that share its block: Mistral, TinyLlama, SmolLM 2, Yi and their fine-tunes."""

from __future__ import annotations

from llamacli.families.base import Family, Key, Rule
from llamacli.families.decoder import (
    DECODER_KEYS,
    DECODER_TENSORS,
    HEAD_WIDTHS,
    POOLING,
    ROPE_DIMENSIONS,
    VOCAB_SIZE,
    always,
    no_window_warning,
)
from llamacli.families.rope import FACTOR_ROPE_KEYS, rope_factors
from llamacli.families.transforms import interleave_rope
from llamacli.formats.gguf_values import boolean

INTERLEAVED_QK = (
    Rule(r".*\.q_proj\.(weight|bias)", interleave_rope(lambda config: config.heads)),
    Rule(r".*\.k_proj\.(weight|bias)", interleave_rope(lambda config: config.kv_heads)),
)

LLAMA = Family(
    name="llama",
    title="Llama 1-3.3, Mistral, SmolLM 2, Yi",
    architectures=(
        "LlamaForCausalLM",
        "LLaMAForCausalLM",
        "MistralForCausalLM",
        "IQuestCoderForCausalLM",
        "LlamaModel",
        "LlavaLlamaForCausalLM",
        "LlavaMistralForCausalLM",
        "MistralModel",
        "InternLM3ForCausalLM",
    ),
    keys=(*DECODER_KEYS, *FACTOR_ROPE_KEYS, *HEAD_WIDTHS, VOCAB_SIZE, ROPE_DIMENSIONS, POOLING),
    rules=INTERLEAVED_QK,
    expected=DECODER_TENSORS,
    extra=rope_factors,
    warnings=no_window_warning,
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    example="meta-llama/Llama-3.1-8B-Instruct",
)

LLAMA_EMBED = LLAMA.override(
    name="llama-embed",
    title="Llama Embed Nemotron",
    architectures=("LlamaBidirectionalModel",),
    keys=(*LLAMA.keys, Key("attention.causal", always(boolean(False)))),
    expected=tuple(tensor for tensor in DECODER_TENSORS if tensor.name != "output.weight"),
    example="nvidia/llama-embed-nemotron-8b",
)
"""Every position sees all others, and the file gives a vector."""

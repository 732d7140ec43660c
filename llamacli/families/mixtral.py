"""Mixtral: Llama's attention, and experts instead of the feed-forward network."""

from __future__ import annotations

from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    OUTPUT,
    OUTPUT_NORM,
    ROPE_DIMENSIONS,
    VOCAB_SIZE,
)
from llamacli.families.llama import INTERLEAVED_QK, LLAMA
from llamacli.families.moe import EXPERT_RULES, W_EXPERT_RULES, expert_tensors, moe_width
from llamacli.families.rope import FACTOR_ROPE_KEYS

MIXTRAL = LLAMA.override(
    keys=(*DECODER_KEYS, *FACTOR_ROPE_KEYS, VOCAB_SIZE, ROPE_DIMENSIONS),
    title="Mixtral",
    architectures=("MixtralForCausalLM",),
    rules=(*INTERLEAVED_QK, *W_EXPERT_RULES, *EXPERT_RULES),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *expert_tensors(moe_width)),
    defaults={"rope_theta": 1e6, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_local_experts": 8},
    example="mistralai/Mixtral-8x7B-Instruct-v0.1",
)

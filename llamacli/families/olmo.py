"""OLMo 1, 2 and 3, and OLMoE."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamacli.families.base import Expected, Family, Key
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    DECODER_TENSORS,
    EMBEDDING,
    GATED_FFN,
    OUTPUT,
    OUTPUT_NORM,
    POST_NORMS,
    always,
    count,
    real,
    windowed,
)  # fmt: skip
from llamacli.families.llama import INTERLEAVED_QK
from llamacli.families.moe import EXPERT_RULES, expert_tensors, moe_width
from llamacli.formats.gguf_values import Value, ValueType, array, f32

OLMO = Family(
    name="olmo",
    title="OLMo 1",
    architectures=("OlmoForCausalLM", "OLMoForCausalLM"),
    keys=(
        *DECODER_KEYS,
        Key("attention.layer_norm_epsilon", always(f32(1e-5))),
        Key("attention.clamp_kqv", real("clip_qkv")),
    ),
    rules=INTERLEAVED_QK,
    expected=(EMBEDDING, OUTPUT, *ATTENTION[1:], *GATED_FFN[1:]),
    defaults={"rope_theta": 10000.0, "max_position_embeddings": 2048},
    example="allenai/OLMo-1.7-7B-hf",
)
"""Its norms have no weights."""


def _in_windows(value: Callable[[Config], Value | None]) -> Callable[[Config], Value | None]:
    """A key of OLMo 3, which has a window in all blocks but every fourth; OLMo 2 has none."""
    return lambda config: value(config) if config.get("sliding_window") and any(windowed(config, 4)) else None


def _refusals(config: Config) -> Iterable[str]:
    near, far = (
        config.rope.get("sliding_attention", config.full_rope).get("rope_theta"),
        config.full_rope.get("rope_theta"),
    )
    if near != far:
        yield f"config.json: rope_theta is {near} in blocks with a window and {far} in others, one number to the engine"


FULL_WIDTH_QK_NORM = (
    Expected("blk.{block}.attn_q_norm.weight", lambda c: (c.heads * c.head_dim,)),
    Expected("blk.{block}.attn_k_norm.weight", lambda c: (c.kv_heads * c.head_dim,)),
)
"""Queries and keys normalised over all heads at once."""

OLMO2 = Family(
    name="olmo2",
    title="OLMo 2 and 3",
    architectures=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    keys=(
        *DECODER_KEYS,
        Key("attention.sliding_window", _in_windows(count("sliding_window"))),
        Key("attention.sliding_window_pattern", _in_windows(lambda c: array(ValueType.BOOL, windowed(c, 4)))),
        Key("rope.freq_base_swa", _in_windows(lambda c: f32(c.full_rope["rope_theta"]))),
    ),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION[1:], *GATED_FFN[1:], *POST_NORMS, *FULL_WIDTH_QK_NORM),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    refusals=_refusals,
    example="allenai/OLMo-2-1124-7B-Instruct",
)

OLMOE = Family(
    name="olmoe",
    title="OLMoE",
    architectures=("OlmoeForCausalLM",),
    keys=(*DECODER_KEYS, Key("attention.layer_norm_rms_epsilon", lambda c: f32(c.get("rms_norm_eps")))),
    rules=EXPERT_RULES,
    expected=(
        *(tensor for tensor in DECODER_TENSORS if "ffn" not in tensor.name), *FULL_WIDTH_QK_NORM,
        *expert_tensors(moe_width),
    ),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
    fixed={"norm_topk_prob": False, "clip_qkv": None},
    example="allenai/OLMoE-1B-7B-0924-Instruct",
)  # fmt: skip

"""Phi-3, Phi-3.5 and Phi-4: fused matrices that the engine takes as they are, and ropes for long contexts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from llamacli.errors import CorruptFile
from llamacli.families.base import Expected, Family, Key, Named
from llamacli.families.config import CONTEXT_NAMES, Config
from llamacli.families.decoder import DECODER_KEYS, EMBEDDING, FUSED_GATE_UP, OUTPUT, OUTPUT_NORM, no_window_warning
from llamacli.families.rope import attention_factor
from llamacli.formats.gguf_values import Value, f32, u32
from llamacli.formats.rows import InMemory


def _original_context(config: Config) -> int:
    return int(config.full_rope.get("original_max_position_embeddings") or config.get(*CONTEXT_NAMES, default=4096))


def _rope_dimensions(config: Config) -> int:
    if (rotated := config.get("qk_rope_head_dim")) is not None:
        return int(rotated)
    return int(config.full_rope.get("partial_rotary_factor", 1.0) * config.hidden) // config.heads


def _attention_factor(config: Config) -> Value | None:
    """What long rope multiplies queries and keys with, sqrt(1 + ln(scale) / ln(original context)) (LongRoPE, section 3)."""
    if not config.full_rope.get("long_factor"):
        return attention_factor(config)
    if (given := config.full_rope.get("attention_factor")) is not None:
        return f32(given)
    original = _original_context(config)
    scale = config.integer(*CONTEXT_NAMES) / original
    return f32(math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)


def long_rope_factors(config: Config) -> Iterable[Named]:
    """One float32 divisor per rotated pair, for short and for long contexts."""
    for length in ("long", "short"):
        factors = config.full_rope.get(f"{length}_factor")
        if factors is None:
            continue
        if len(factors) != _rope_dimensions(config) // 2:
            raise CorruptFile(
                f"config.json: {length}_factor has {len(factors)} values, a head has {_rope_dimensions(config) // 2} pairs"
            )
        yield f"rope_factors_{length}.weight", InMemory(np.array(factors, np.float32))


PHI3_KEYS = (
    *(key for key in DECODER_KEYS if key.name != "rope.scaling.type"),
    Key("rope.scaling.original_context_length", lambda config: u32(_original_context(config))),
    Key("rope.scaling.attn_factor", _attention_factor),
    Key("rope.dimension_count", lambda config: u32(_rope_dimensions(config))),
    # Zero tells Phi-4, which has no window, from the others.
    Key("attention.sliding_window", lambda config: u32(config.get("sliding_window") or 0)),
)
PHI3_ATTENTION = (
    Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
    Expected("blk.{block}.attn_qkv.weight", lambda c: ((c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden)),
    Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, c.heads * c.head_dim)),
    Expected("blk.{block}.ffn_norm.weight", lambda c: (c.hidden,)),
)

PHI3 = Family(
    name="phi3",
    title="Phi-3, Phi-3.5, Phi-4",
    architectures=("Phi3ForCausalLM", "Phi4MMForCausalLM"),
    keys=PHI3_KEYS,
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *PHI3_ATTENTION, *FUSED_GATE_UP),
    extra=long_rope_factors,
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
    warnings=no_window_warning,
    example="microsoft/Phi-3.5-mini-instruct",
)

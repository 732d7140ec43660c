"""Nemotron 3 and 4, Minitron: layer norms stored as their distance from one, squared ReLU, half of each head rotated."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    FFN_UP_DOWN,
    OUTPUT,
    OUTPUT_NORM,
    VOCAB_SIZE,
    real,
)  # fmt: skip
from llamacli.families.gemma import NORMS_PLUS_ONE
from llamacli.formats.gguf_values import Value, f32, string, u32


def _factor(config: Config) -> float | None:
    found = config.get("factor", default=config.full_rope.get("factor"))
    return None if found is None else float(found)


def _rotated(config: Config) -> Value:
    return u32(int(config.full_rope.get("partial_rotary_factor", 0.5) * config.hidden) // config.heads)


def _scale(config: Config) -> Value | None:
    factor = _factor(config)
    return None if factor is None else f32(factor)


NEMOTRON = Family(
    name="nemotron",
    title="Nemotron 4, Minitron",
    architectures=("NemotronForCausalLM",),
    keys=(
        *DECODER_KEYS, VOCAB_SIZE,
        Key("attention.layer_norm_epsilon", real("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")),
        Key("rope.dimension_count", _rotated),
        Key("rope.scaling.type", lambda c: string("linear" if _factor(c) is not None else "none")),
        Key("rope.scaling.factor", _scale),
    ),
    rules=NORMS_PLUS_ONE,
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *FFN_UP_DOWN,
        Expected("blk.{block}.ffn_norm.weight", lambda c: (c.hidden,)),
    ),
    defaults={"rope_theta": 10000.0, "norm_eps": 1e-5, "max_position_embeddings": 4096, "partial_rotary_factor": 0.5},
    example="nvidia/Minitron-4B-Base",
)  # fmt: skip

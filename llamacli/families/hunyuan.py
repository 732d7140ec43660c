"""Hunyuan dense and A13B: q/k norms after the rope, and a rope base stretched by alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamacli.families.base import Expected, Family, Key
from llamacli.families.config import CONTEXT_NAMES, Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    DECODER_TENSORS,
    EMBEDDING,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    QK_NORM,
    always,
    count,
)
from llamacli.families.moe import EXPERT_RULES, expert_tensors
from llamacli.families.rope import SCALING_KEYS
from llamacli.formats.gguf_values import Value, ValueType, array, f32, string, u32


def _alpha(config: Config) -> float | None:
    """NTK-aware scaling: the base grows by alpha to the power of dim / (dim - 2)."""
    rope = config.full_rope
    if rope.get("rope_type") != "dynamic" or not rope.get("alpha"):
        return None
    return float(rope["alpha"])


def _theta(config: Config) -> Value | None:
    theta, alpha, dim = config.full_rope.get("rope_theta", 10000.0), _alpha(config), config.head_dim
    return f32(theta * alpha ** (dim / (dim - 2)) if alpha else theta)


def _context(config: Config) -> Value:
    """Models with this alpha were trained for 256k tokens; the configuration still has the length before it."""
    given = config.integer(*CONTEXT_NAMES)
    return u32(max(given, STRETCHED_CONTEXT) if _alpha(config) == STRETCHING_ALPHA else given)


STRETCHING_ALPHA, STRETCHED_CONTEXT = 1000.0, 256 * 1024


def _scaling(name: str, stretched: Callable[[Config], Value | None]) -> Key:
    """A key of the rope's scaling: as for every decoder, unless alpha has stretched the base instead."""
    usual = next(key for key in SCALING_KEYS if key.name == f"rope.scaling.{name}")
    return Key(usual.name, lambda config: (stretched if _alpha(config) else usual.value)(config))


STRETCHED = (
    Key("context_length", _context),
    Key("rope.freq_base", _theta),
    _scaling("type", lambda c: string("none")),
    _scaling("factor", lambda c: f32(1.0)),
    _scaling("original_context_length", lambda c: _context(c) if _alpha(c) == STRETCHING_ALPHA else None),
)

HUNYUAN_DENSE = Family(
    name="hunyuan-dense",
    title="Hunyuan 0.5B-7B",
    architectures=("HunYuanDenseV1ForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, *STRETCHED),
    expected=(*DECODER_TENSORS, *QK_NORM),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    example="tencent/Hunyuan-7B-Instruct",
)


def _first(config: Config, name: str) -> int:
    """A number that the configuration may give for each block; the engine has one for all."""
    value = config.get(name, default=0)
    return int(value[0] if isinstance(value, list) else value)


def _refusals(config: Config) -> Iterable[str]:
    for name in ("moe_intermediate_size", "moe_topk", "num_shared_expert"):
        value = config.get(name)
        if isinstance(value, list) and len(set(value)) > 1:
            yield f"config.json: {name} differs from block to block, which the engine does not support"


HUNYUAN_MOE = HUNYUAN_DENSE.override(
    name="hunyuan-moe",
    title="Hunyuan A13B",
    architectures=("HunYuanMoEV1ForCausalLM",),
    keys=(
        *HUNYUAN_DENSE.keys,
        Key("expert_shared_feed_forward_length", lambda c: u32(c.integer("intermediate_size"))),
        Key("expert_feed_forward_length", lambda c: u32(_first(c, "moe_intermediate_size"))),
        Key("expert_used_count", lambda c: u32(_first(c, "moe_topk"))),
        Key("expert_shared_count", lambda c: u32(_first(c, "num_shared_expert"))),
    ),
    rules=EXPERT_RULES,
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QK_NORM,
        *expert_tensors(lambda c: _first(c, "moe_intermediate_size")),
        Expected("blk.{block}.ffn_up_shexp.weight", lambda c: (c.integer("intermediate_size"), c.hidden)),
    ),
    refusals=_refusals,
    example="tencent/Hunyuan-A13B-Instruct",
)  # fmt: skip


def _sections(config: Config) -> Value | None:
    found = config.full_rope.get("xdrope_section", config.full_rope.get("mrope_section"))
    return None if found is None else array(ValueType.INT32, found)


def _stretch(config: Config) -> Value | None:
    alpha = config.full_rope.get("alpha")
    return None if alpha is None else f32(alpha)


HUNYUAN_VL = HUNYUAN_DENSE.override(
    name="hunyuan_vl",
    title="HunyuanOCR",
    architectures=("HunYuanVLForConditionalGeneration",),
    keys=(
        *(key for key in DECODER_KEYS if not key.name.startswith("rope.scaling")), *HEAD_WIDTHS,
        Key("rope.scaling.type", always(string("none"))),
        Key("rope.scaling.factor", lambda c: f32(c.full_rope.get("factor", 1.0))),
        Key("rope.scaling.original_context_length", count("max_position_embeddings")),
        Key("rope.scaling.alpha", _stretch),
        Key("rope.dimension_sections", _sections),
    ),
    defaults={**HUNYUAN_DENSE.defaults, "tie_word_embeddings": True},
    example="tencent/HunyuanOCR",
)  # fmt: skip

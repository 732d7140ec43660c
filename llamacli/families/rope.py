"""Ropes for long contexts: as keys where the engine computes them, as one divisor per pair of a head where it takes those.

The engine reads yarn's factor alone; whatever else a configuration sets for it (`beta_fast`, `beta_slow`, `truncate`) it takes
for the usual. Families whose graph takes divisors get such a rope as divisors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from llamacli.errors import CorruptFile, Unsupported
from llamacli.families.base import Key, Named
from llamacli.families.config import CONTEXT_NAMES, Config
from llamacli.families.engine_limits import takes_divisors
from llamacli.formats.gguf_values import Value, ValueType, array, f32, string, u32
from llamacli.formats.rows import InMemory, Rows

FACTORS = ("rope_freqs.weight", "rope_factors_long.weight")
_USUAL = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
_LONG = ("su", "longrope")


def rope_type(config: Config) -> str:
    """How the rope is scaled, in the words of config.json; empty where it is not."""
    return str(config.full_rope.get("rope_type") or "").lower()


def is_long_rope(config: Config) -> bool:
    """Whether the rope has divisors of its own for short and for long contexts."""
    return rope_type(config) in _LONG


def _scaling_type(config: Config) -> Value | None:
    kind, factor = rope_type(config), config.full_rope.get("factor")
    if kind in ("linear", "yarn") and factor is not None:
        return string(kind)
    if kind in _LONG:
        return string("longrope")
    if kind not in ("", "default", "llama3", "mrope", "dynamic", "proportional", "linear", "yarn", "none"):
        raise Unsupported(f"config.json: rope scaling of type {kind!r} is not supported")
    return None


def _scaling(name: str, make: Callable[[Any], Value], kinds: tuple[str, ...]) -> Callable[[Config], Value | None]:
    def value(config: Config) -> Value | None:
        rope = config.full_rope
        found = next((rope[n] for n in name.split("|") if rope.get(n) is not None), None)
        return (
            make(found) if rope_type(config) in kinds and rope.get("factor") is not None and found is not None else None
        )

    return value


def _theta(config: Config) -> Value | None:
    theta = config.full_rope.get("rope_theta")
    return None if theta is None else f32(theta)


def _local_theta(config: Config) -> Value | None:
    theta = config.rope.get("sliding_attention", {}).get("rope_theta")
    return None if theta is None else f32(theta)


def _mrope(config: Config) -> Value | None:
    sections = config.rope.get("mrope_section")
    return None if sections is None else array(ValueType.INT32, [*sections, 0, 0, 0, 0][:4])


def llama3_rope_factors(config: Config) -> Iterable[Named]:
    """`rope_freqs.weight` for `rope_type: llama3`: one float32 divisor per pair of a head, shape (head_dim / 2,).

    Short wavelengths keep their frequency, long ones are divided by `factor`, those between are blended (Meta's Llama 3.1
    reference code, `apply_scaling`).
    """
    rope = config.full_rope
    if rope_type(config) != "llama3":
        return
    dim = int(config.head_dim * partial_factor(config))
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = np.float64(rope.get("rope_theta", 10000.0)) ** exponents.astype(np.float64)
    frequencies = np.float32(1.0) / powers.astype(np.float32)
    factor, low, high = rope.get("factor", 8.0), rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0)
    original = rope.get("original_max_position_embeddings", 8192)
    wavelengths = np.float32(2 * math.pi) / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    blended = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths < original / high, 1.0, np.where(wavelengths > original / low, factor, blended))
    yield "rope_freqs.weight", InMemory(factors.astype(np.float32))


def partial_factor(config: Config, default: float = 1.0) -> float:
    """The part of each head that is rotated."""
    factor = config.full_rope.get("partial_rotary_factor")
    return default if factor is None else float(factor)


def unusual_yarn(config: Config) -> dict[str, object]:
    """What a yarn sets otherwise than the engine computes it."""
    rope = config.full_rope
    if rope_type(config) != "yarn":
        return {}
    found = {name: rope[name] for name, usual in _USUAL.items() if rope.get(name) not in (None, usual)}
    return found if rope.get("factor") else {}


def _original(config: Config) -> int:
    return int(config.full_rope.get("original_max_position_embeddings") or config.integer(*CONTEXT_NAMES))


def _grown(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_attention(config: Config) -> float:
    """What yarn multiplies queries and keys with."""
    rope, factor = config.full_rope, float(config.full_rope["factor"])
    if (given := rope.get("attention_factor") or rope.get("attn_factor")) is not None:
        return float(given)
    one, all_dims = rope.get("mscale"), rope.get("mscale_all_dim")
    return _grown(factor, one) / _grown(factor, all_dims) if one and all_dims else _grown(factor)


def _long_attention(config: Config) -> float:
    rope, original = config.full_rope, _original(config)
    if (given := rope.get("attention_factor")) is not None:
        return float(given)
    factor = float(rope.get("factor") or config.integer(*CONTEXT_NAMES) / original)
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def attention_factor(config: Config, *, alone: bool = False) -> Value | None:
    """`rope.scaling.attn_factor`: the part of the factor on queries and keys that the engine does not find out by itself.

    `alone`: it finds out nothing, because the rope is written as divisors.
    """
    kind, rope = rope_type(config), config.full_rope
    if kind in _LONG and rope.get("long_factor"):
        return f32(_long_attention(config))
    if kind != "yarn" or not rope.get("factor"):
        return None
    found = yarn_attention(config) / (1.0 if alone else _grown(float(rope["factor"])))
    return None if math.isclose(found, 1.0, rel_tol=1e-6) else f32(found)


ROPE_KEYS = (
    Key("rope.scaling.type", _scaling_type),
    Key("rope.scaling.factor", _scaling("factor", f32, ("linear", "yarn"))),
    Key("rope.scaling.original_context_length", _scaling("original_max_position_embeddings", u32, ("yarn",))),
    Key("rope.scaling.attn_factor", attention_factor),
    Key("rope.scaling.yarn_ext_factor", _scaling("extrapolation_factor", f32, ("yarn",))),
    Key("rope.scaling.yarn_attn_factor", _scaling("attention_factor|attn_factor", f32, ("yarn",))),
    Key("rope.scaling.yarn_beta_fast", _scaling("beta_fast", f32, ("yarn",))),
    Key("rope.scaling.yarn_beta_slow", _scaling("beta_slow", f32, ("yarn",))),
    Key("rope.dimension_sections", _mrope),
    Key("rope.freq_base", _theta),
    Key("rope.freq_base_swa", _local_theta),
)
"""For every decoder."""
SCALING_KEYS = tuple(key for key in ROPE_KEYS if key.name.startswith("rope.scaling."))
"""For families that say the rope's base in their own way."""


def _own_attention_factor(config: Config) -> None:
    if rope_type(config) == "yarn" and (given := config.full_rope.get("attention_factor")) is not None:
        raise Unsupported(
            f"config.json: this family's graph in the engine has no attention_factor, which is {given} here"
        )


OWN_ATTENTION_FACTOR = Key("rope.scaling.attn_factor", _own_attention_factor)
"""For families whose graph has its own way of it (`yarn_log_multiplier`)."""


def _yarn_factors(config: Config) -> np.ndarray:
    """Divisors of the frequencies as transformers computes them (YaRN, section 3.2), with corners where they are asked for."""
    rope = config.full_rope
    dim, theta, original = (
        int(config.head_dim * partial_factor(config)),
        rope.get("rope_theta", 10000.0),
        _original(config),
    )

    def corner(name: str) -> float:
        turns = rope.get(name) or _USUAL[name]
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = corner("beta_fast"), corner("beta_slow")
    if rope.get("truncate") is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low or 0.001), 0, 1)
    factors: np.ndarray = (1 / (ramp / float(rope["factor"]) + 1 - ramp)).astype(np.float32)
    return factors


def _given_factors(config: Config) -> Iterable[Named]:
    rope, pairs = config.full_rope, int(config.head_dim * partial_factor(config)) // 2
    for length in ("long", "short"):
        factors = rope.get(f"{length}_factor")
        if not isinstance(factors, list) or len(factors) != pairs:
            raise CorruptFile(f"config.json: {length}_factor should have {pairs} values, one for each pair of a head")
        yield f"rope_factors_{length}.weight", InMemory(np.array(factors, np.float32))


def rope_factors(config: Config) -> Iterable[Named]:
    """Divisors for every kind of rope that the engine cannot compute from keys."""
    if rope_type(config) in _LONG:
        yield from _given_factors(config)
    elif unusual_yarn(config):
        yield "rope_freqs.weight", InMemory(_yarn_factors(config))
    else:
        yield from llama3_rope_factors(config)


def _without_unusual(key: Key) -> Key:
    return Key(key.name, lambda config: None if unusual_yarn(config) else key.value(config))


FACTOR_ROPE_KEYS = (
    *(_without_unusual(key) for key in SCALING_KEYS),
    Key("rope.scaling.original_context_length", lambda config: u32(_original(config)) if _scaled(config) else None),
    Key("rope.scaling.attn_factor", lambda config: attention_factor(config, alone=bool(unusual_yarn(config)))),
)
"""For families whose graph takes divisors, over the keys of every decoder."""


def _scaled(config: Config) -> bool:
    kind = rope_type(config)
    return kind in _LONG or (kind == "yarn" and bool(config.full_rope.get("factor")) and not unusual_yarn(config))


def check_rope(tensors: Mapping[str, Rows], config: Config, architecture: str, title: str) -> None:
    """Raises Unsupported for a rope that needs divisors in a family whose graph takes none."""
    kind, divided = rope_type(config), any(name in tensors for name in FACTORS)
    if (kind in ("llama3", *_LONG) and not divided) or (divided and not takes_divisors(architecture)):
        raise _not_computed(kind, title)


def check_rope_keys(keys: Mapping[str, Value | None], tensors: Mapping[str, Rows], config: Config, title: str) -> None:
    """Raises Unsupported for a rope that neither the file's keys nor its divisors say.

    `keys` without the architecture in front. The published weights of some families have no such rope, so that their files
    have no key for it; those who stretch such a model all the same would get nonsense.
    """
    kind, scaled = rope_type(config), keys.get("rope.scaling.type")
    if (
        kind in ("linear", "yarn")
        and config.full_rope.get("factor") not in (None, 1.0)
        and not any(name in tensors for name in FACTORS)
        and (scaled is None or scaled.value != kind)
    ):
        raise _not_computed(kind, title)
    if keys.get("rope.scaling.attn_factor") is not None and kind == "yarn" and "sliding_attention" in config.rope:
        raise Unsupported(
            "config.json: attention_factor of one of two ropes is not what the engine computes, but of both"
        )


def _not_computed(kind: str, title: str) -> Unsupported:
    return Unsupported(f"config.json: the engine does not compute rope scaling of type {kind!r} for {title}")


READS_CORNERS = ("mistral3", "grok")
"""Architectures whose graph takes `beta_fast` and `beta_slow` from the file."""


def rope_warnings(tensors: Mapping[str, Rows], config: Config, architecture: str) -> Iterable[str]:
    """Ropes that the engine computes in another way than the model's own code."""
    unusual = unusual_yarn(config)
    if unusual and architecture not in READS_CORNERS and not any(name in tensors for name in FACTORS):
        said = ", ".join(f"{name} {value}" for name, value in unusual.items())
        yield f"the engine computes yarn with its usual corners, not with {said}: the logits will differ"
    if rope_type(config) == "dynamic" and not config.full_rope.get("alpha"):
        yield f"the engine does not stretch the rope while a text grows: exact only up to {_original(config):,} tokens"

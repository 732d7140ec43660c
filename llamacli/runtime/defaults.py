"""How a model wants to be sampled: what its file says, else what llama.cpp does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llamacli.runtime.messages import Sampling

TOP_K = 40
"""Always the first cut: top-p over a large vocabulary costs 10 ms a token, after top-k 40 a fraction of one."""

KEYS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("temp", "temp", lambda x: x >= 0),
    ("top_k", "top_k", lambda x: x >= 1),
    ("top_p", "top_p", lambda x: 0 < x <= 1),
    ("min_p", "min_p", lambda x: 0 <= x <= 1),
    ("xtc_probability", "xtc_probability", lambda x: 0 <= x <= 1),
    ("xtc_threshold", "xtc_threshold", lambda x: 0 <= x <= 1),
    ("penalty_last_n", "repeat_last_n", lambda x: x >= -1),
    ("penalty_repeat", "repeat_penalty", lambda x: x > 0),
    ("mirostat", "mirostat", lambda x: x in (0, 1, 2)),
    ("mirostat_tau", "mirostat_tau", lambda x: x > 0),
    ("mirostat_eta", "mirostat_eta", lambda x: x > 0),
)
"""Names under `general.sampling.`, our names, and which values make sense."""


def sampling_defaults(metadata: Mapping[str, str]) -> Sampling:
    """The sampling that a model's metadata (plain values as text) asks for; nonsense in it is ignored."""
    found: dict[str, Any] = {}
    plain = Sampling()
    for key, field, sensible in KEYS:
        number = _number(metadata.get(f"general.sampling.{key}"))
        if number is not None and sensible(number):
            found[field] = type(getattr(plain, field))(number)
    return replace(plain, **found)


def described(sampling: Sampling) -> str:
    """The sampling in one line, for -v."""
    if sampling.temp <= 0:
        return "greedy"
    parts = [f"temp {sampling.temp:g}", f"top-k {sampling.top_k}", f"top-p {sampling.top_p:g}"]
    parts.append(f"min-p {sampling.min_p:g}")
    if sampling.repeat_penalty != 1:
        parts.append(f"repeat-penalty {sampling.repeat_penalty:g} over {sampling.repeat_last_n}")
    if sampling.mirostat:
        parts.append(f"mirostat {sampling.mirostat}")
    return ", ".join(parts)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    # Files hold single precision: 0.7 is written there as 0.699999988.
    return float(f"{value:.7g}") if math.isfinite(value) else None

"""Which compiled search makes which type, and how hard it looks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacli.quantize.fast.iq1 import quantize_iq1
from llamacli.quantize.fast.iq2 import quantize_iq2
from llamacli.quantize.fast.iq3 import quantize_iq3s, quantize_iq3xxs
from llamacli.quantize.fast.iq4 import quantize_iq4nl, quantize_iq4xs
from llamacli.quantize.fast.legacy import quantize_q40_q50, quantize_q41_q51, quantize_q80
from llamacli.quantize.fast.q2k import quantize_q2k
from llamacli.quantize.fast.q3k_q6k import quantize_q3k_q6k
from llamacli.quantize.fast.q4k_q5k import quantize_q4k_q5k
from llamacli.quantize.fast.tiles import Search


@dataclass(frozen=True)
class Method:
    """How one type is made: a compiled entry, its variant, and the search without and with importance."""

    entry: Any
    variant: int
    plain: Search
    weighted: Search
    book: str = ""
    """The codebook (see `codebooks`) that the entry takes as one more argument."""
    always_weighted: bool = False
    """Whether the type is too coarse to be made without importance."""


def only_weighted(entry: Any, variant: int, how: Search, book: str) -> Method:
    """A type that needs an importance."""
    return Method(entry, variant, how, how, book, always_weighted=True)


def offsets(first: float, step: float, count: int) -> NDArray[np.float32]:
    """`count` evenly spaced candidates."""
    return np.asarray([first + step * k for k in range(count)], np.float32)


def sweeps(*parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """One grid after the other: a search for scale and minimum goes on from the best minimum so far, so order counts."""
    return np.concatenate(parts)


def search(
    grid: NDArray[np.float32],
    *,
    step: float = 0.02,
    steps: int = 1,
    rounds: int = 1,
    flatness: float = 0.0,
    stretch: float = 1.0,
) -> Search:
    """A search; by default with one local step and one joint refinement."""
    return Search(grid, step, steps, rounds, flatness, stretch)


def both_signs(high: float, spread: float, other: Iterable[float]) -> NDArray[np.float32]:
    """What the largest weight becomes: `-high` first, then numbers within `spread` of it, then the `other` end's."""
    around = offsets(-high - spread, spread / 4, 9)
    return np.asarray([around[4], *around[:4], *around[5:], *other], np.float32)


FOUR_BITS = both_signs(127, 8.0, (104, 109, 114, 119, 124, 129))
THREE_BITS = offsets(12.0, 0.75, 12)
TWO_BITS = offsets(4.0, 0.375, 15)
ONE_BIT = offsets(0.7, 0.1, 12)

# Grids and flatness were chosen by weighted error and by KL divergence against the unquantized model on trained models.
# With three bits and fewer the scale of least error makes a model's weights too small, for what is rounded to the nearest of
# so few levels loses size: such types are stretched until the divergence is least or the error is no longer below ggml's.
METHODS: dict[str, Method] = {
    "Q4_K": Method(
        quantize_q4k_q5k,
        0,
        search(sweeps(offsets(-1.6, 0.3, 12), offsets(-0.4, 0.4, 3)), steps=2),
        search(sweeps(offsets(-3.0, 0.35, 18), offsets(-0.6, 0.3, 6))),
    ),
    "Q5_K": Method(quantize_q4k_q5k, 1, search(offsets(-1.6, 0.3, 12)), search(offsets(-1.6, 0.3, 12))),
    "Q3_K": Method(
        quantize_q3k_q6k,
        1,
        search(both_signs(4, 1.2, (3.25, 3.65, 4.05)), step=0.04, flatness=1.0),
        search(both_signs(4, 1.6, (2.45, 2.75, 3.05, 3.35, 3.65, 3.95)), step=0.04, rounds=3, stretch=1.015),
    ),
    "Q6_K": Method(
        quantize_q3k_q6k,
        0,
        search(both_signs(32, 1.2, ()), step=0.01, flatness=0.3),
        search(both_signs(32, 1.2, ()), step=0.01),
    ),
    "Q2_K": Method(
        quantize_q2k,
        0,
        search(sweeps(offsets(-0.8, 0.2, 15), offsets(-0.2, 0.2, 3)), flatness=1.0, stretch=1.04),
        search(sweeps(offsets(-0.8, 0.2, 18), offsets(-0.4, 0.2, 6)), rounds=2, stretch=1.02),
    ),
    "IQ4_XS": Method(
        quantize_iq4xs,
        0,
        search(FOUR_BITS, step=0.01, flatness=3.0),
        search(FOUR_BITS, step=0.01),
    ),
    "IQ4_NL": Method(
        quantize_iq4nl,
        0,
        search(FOUR_BITS, step=0.01, flatness=3.0),
        search(FOUR_BITS, step=0.01),
    ),
    "Q4_0": Method(
        quantize_q40_q50,
        0,
        search(both_signs(8, 1.2, (7.05, 7.45, 7.85)), flatness=2.0),
        search(both_signs(8, 1.2, (7.05, 7.45, 7.85))),
    ),
    "Q5_0": Method(
        quantize_q40_q50,
        1,
        search(both_signs(16, 1.2, (15.05, 15.45, 15.85)), flatness=2.0),
        search(both_signs(16, 1.2, (15.05, 15.45, 15.85))),
    ),
    "Q4_1": Method(
        quantize_q41_q51,
        0,
        search(offsets(-1.6, 0.2, 18), flatness=2.0),
        search(sweeps(offsets(-3.0, 0.35, 21), offsets(-0.6, 0.3, 6)), steps=2),
    ),
    "Q5_1": Method(quantize_q41_q51, 1, search(offsets(-1.6, 0.3, 12), flatness=2.0), search(offsets(-3.0, 0.5, 15))),
    "Q8_0": Method(quantize_q80, 0, search(offsets(0, 1, 3)), search(offsets(0, 1, 3))),
    "IQ3_S": Method(quantize_iq3s, 0, search(THREE_BITS, flatness=1.5), search(THREE_BITS), "IQ3_S"),
    "IQ3_XXS": Method(
        quantize_iq3xxs, 0, search(THREE_BITS, flatness=1.0), search(THREE_BITS, stretch=1.04), "IQ3_XXS"
    ),
    "IQ2_S": Method(quantize_iq2, 2, search(TWO_BITS, flatness=0.5), search(TWO_BITS, stretch=1.05), "IQ2_S"),
    "IQ2_XS": only_weighted(quantize_iq2, 1, search(TWO_BITS, stretch=1.07), "IQ2_XS"),
    "IQ2_XXS": only_weighted(quantize_iq2, 0, search(TWO_BITS, stretch=1.06), "IQ2_XXS"),
    "IQ1_S": only_weighted(quantize_iq1, 0, search(ONE_BIT, rounds=2, stretch=1.12), "IQ1_S"),
    "IQ1_M": only_weighted(quantize_iq1, 1, search(ONE_BIT, rounds=2, flatness=-0.8, stretch=1.1), "IQ1_S"),
}

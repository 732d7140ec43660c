"""How much the error of each weight counts in the search for scales.

ggml counts large weights more: their products with activations are large. With an importance matrix the measured
activations say how much, and the size of the weight stands for what the matrix does not see. Without one, `flatness`
adds an equal share to all weights of a block; KL divergence against the unquantized model decides how much is best.
"""

from __future__ import annotations

from llamacli.quantize.fast.compiled import inner
from llamacli.quantize.fast.lanes import LANES, Memory, absolute, floats, fma, load, square_root, store
from llamacli.quantize.fast.tiles import W, X, mean_square


@inner
def weigh_by_importance(tile: Memory, size: int, share: float) -> None:
    """W = importance * sqrt(share * mean of x*x over the block + x*x), as ggml weighs."""
    spread = mean_square(tile, X, size) * floats(share)
    for i in range(0, size * LANES, LANES):
        x = load(tile, X + i)
        store(tile, W + i, load(tile, W + i) * square_root(fma(x, x, spread)))


@inner
def weigh_by_size(tile: Memory, parts: int, count: int, flatness: float) -> None:
    """W = (1 + flatness) * root mean square of the sub-block + |x|; ggml's for Q4_K and Q5_K with flatness 0."""
    for j in range(parts):
        start = j * count * LANES
        typical = square_root(mean_square(tile, X + start, count)) * floats(1 + flatness)
        for i in range(start, start + count * LANES, LANES):
            store(tile, W + i, typical + absolute(load(tile, X + i)))


@inner
def weigh_by_square(tile: Memory, parts: int, count: int, flatness: float) -> None:
    """W = x*x + flatness * mean square of the `count` weights around; ggml's for Q3_K, Q6_K and IQ4 with flatness 0."""
    for j in range(parts):
        start = j * count * LANES
        typical = mean_square(tile, X + start, count) * floats(flatness)
        for i in range(start, start + count * LANES, LANES):
            x = load(tile, X + i)
            store(tile, W + i, fma(x, x, typical))

"""The search for a scale alone: x ~ scale * l, with l one of a few fixed numbers.

Given the numbers l, the best scale is P/Q with P = sum w*l*x and Q = sum w*l*l, and it explains P*P/Q of the weighted
square sum; so a candidate costs one look at the weights. Three candidates share each load. Both signs are tried: the
numbers reach further on one side than on the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from llamacli.quantize.fast.compiled import inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Memory,
    absolute,
    floats,
    fma,
    load,
    maximum,
    minimum,
    rounded,
    store,
    where,
)
from llamacli.quantize.fast.tiles import SCALE, SCALE_CODE, Search, W, X, from_half, reciprocal, to_half

Six: TypeAlias = "tuple[Floats, Floats, Floats, Floats, Floats, Floats]"
TINY = 1e-15
BETTER = 1.000001
"""A candidate must explain this much more than the best so far: rounding errors decide nothing."""


class Levels(NamedTuple):
    """The numbers that weights may become; only integer levels look at these bounds."""

    low: float
    high: float


@inner
def integer_level(value: Floats, low: Floats, high: Floats) -> Floats:
    """The nearest integer from low to high."""
    return maximum(minimum(rounded(value), high), low)


class Searches(NamedTuple):
    """Compiled searches for one kind of levels."""

    sub_block: Any
    """(tile, at, count, levels, search) -> scale"""
    super_block: Any
    """(tile, parts, count, levels, code_limit, search) -> binary16 scale; codes in SCALE_CODE"""


def searches(level: Any) -> Searches:
    """The searches whose levels `level(value, low, high)` chooses."""

    @inner
    def sums(tile: Memory, at: int, count: int, levels: Levels, i0: Floats, i1: Floats, i2: Floats) -> Six:
        """Q and P for each of three candidate inverse scales over the sub-block that starts at vector `at`."""
        none, low, high = floats(0), floats(levels.low), floats(levels.high)
        q0, p0, q1, p1, q2, p2 = none, none, none, none, none, none
        for i in range(count):
            x = load(tile, X + (at + i) * LANES)
            w = load(tile, W + (at + i) * LANES)
            wx = w * x
            n = level(x * i0, low, high)
            q0, p0 = fma(w * n, n, q0), fma(wx, n, p0)
            n = level(x * i1, low, high)
            q1, p1 = fma(w * n, n, q1), fma(wx, n, p1)
            n = level(x * i2, low, high)
            q2, p2 = fma(w * n, n, q2), fma(wx, n, p2)
        return q0, p0, q1, p1, q2, p2

    @inner
    def sub_block(tile: Memory, at: int, count: int, levels: Levels, search: Search) -> Floats:
        """The best scale for the `count` weights from vector `at`.

        A candidate of `search.grid` is the number that the largest weight becomes.
        """
        extreme = largest(tile, at, count)
        dead = absolute(extreme) < floats(TINY)
        per_extreme = where(dead, floats(0), reciprocal(extreme))
        best = (floats(-1), floats(0))
        groups = len(search.grid) // 3
        for group in range(groups + search.steps):
            if group < groups:
                i0 = per_extreme * floats(search.grid[3 * group])
                i1 = per_extreme * floats(search.grid[3 * group + 1])
                i2 = per_extreme * floats(search.grid[3 * group + 2])
            else:
                inverse = reciprocal(best[1])
                near = search.step / (1 + group - groups)
                i0, i1, i2 = inverse * floats(1 - near), inverse, inverse * floats(1 + near)
            q0, p0, q1, p1, q2, p2 = sums(tile, at, count, levels, i0, i1, i2)
            best = fitted(q0, p0, best)
            best = fitted(q1, p1, best)
            best = fitted(q2, p2, best)
        return where(dead, floats(0), best[1])

    @inner
    def super_block(tile: Memory, parts: int, count: int, levels: Levels, code_limit: float, search: Search) -> Ints:
        """Choose SCALE_CODE of `parts` sub-blocks of `count` weights; the binary16 scale of the codes.

        Codes go from -code_limit to code_limit - 1; the largest scale takes -code_limit.
        """
        widest, size = floats(0), floats(0)
        for j in range(parts):
            scale = sub_block(tile, j * count, count, levels, search)
            store(tile, SCALE + j * LANES, scale)
            wider = absolute(scale) > size
            widest, size = where(wider, scale, widest), where(wider, absolute(scale), size)
        per_scale = floats(0 - code_limit) * reciprocal(widest)
        half = to_half(widest * floats(-1 / code_limit))
        lowest, highest = floats(0 - code_limit), floats(code_limit - 1)
        for j in range(parts):
            code = integer_level(per_scale * load(tile, SCALE + j * LANES), lowest, highest)
            store(tile, SCALE_CODE + j * LANES, code)
        for _ in range(search.rounds):
            half = refine(tile, parts, count, levels, code_limit, from_half(half))
        return half

    @inner
    def refine(tile: Memory, parts: int, count: int, levels: Levels, code_limit: float, scale: Floats) -> Ints:
        """One round: each sub-block's best code among neighbours, then the block's scale by least squares."""
        none, one = floats(0), floats(1)
        lowest, highest = floats(0 - code_limit), floats(code_limit - 1)
        codes_squared, moment = none, none
        for j in range(parts):
            code = load(tile, SCALE_CODE + j * LANES)
            n0, n2 = maximum(code - one, lowest), minimum(code + one, highest)
            i0, i1, i2 = reciprocal(scale * n0), reciprocal(scale * code), reciprocal(scale * n2)
            q0, p0, q1, p1, q2, p2 = sums(tile, j * count, count, levels, i0, i1, i2)
            chosen = (floats(-1e30), code, none, none)
            chosen = with_code(scale, n0, q0, p0, chosen)
            chosen = with_code(scale, code, q1, p1, chosen)
            chosen = with_code(scale, n2, q2, p2, chosen)
            _, n, q, p = chosen
            store(tile, SCALE_CODE + j * LANES, n)
            codes_squared, moment = fma(n * n, q, codes_squared), fma(n, p, moment)
        known = codes_squared > none
        return to_half(where(known, moment / where(known, codes_squared, one), scale))

    return Searches(sub_block, super_block)


@inner
def largest(tile: Memory, at: int, count: int) -> Floats:
    """The weight of the largest magnitude, with its sign; the first of equals."""
    extreme, size = floats(0), floats(0)
    for i in range(count):
        # The size is carried along: LLVM 20 gets comparing absolute(x) with absolute(extreme) wrong on AVX-512.
        x = load(tile, X + (at + i) * LANES)
        larger = absolute(x) > size
        extreme, size = where(larger, x, extreme), where(larger, absolute(x), size)
    return extreme


@inner
def fitted(q: Floats, p: Floats, best: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """The better of `best` = (explained, scale) and the least-squares scale for these sums."""
    known = q > floats(0)
    scale = p / where(known, q, floats(1))
    gain = scale * p
    better = known & (gain > best[0] * floats(BETTER))
    return where(better, gain, best[0]), where(better, scale, best[1])


@inner
def with_code(
    scale: Floats, n: Floats, q: Floats, p: Floats, chosen: tuple[Floats, Floats, Floats, Floats]
) -> tuple[Floats, Floats, Floats, Floats]:
    """The better of `chosen` = (explained, code, Q, P) and code n."""
    real = scale * n
    gain = real * (p + p - real * q)
    better = gain > chosen[0]
    return (
        where(better, gain, chosen[0]),
        where(better, n, chosen[1]),
        where(better, q, chosen[2]),
        where(better, p, chosen[3]),
    )

"""The search for a scale and a minimum: x ~ scale * l + least, with l an integer from 0 to `top`.

Given the integers l, the best scale and minimum follow by least squares from a few sums; given those, the error
follows from the same sums, without a second look at the weights:

    L = sum w*l    Q = sum w*l*l    P = sum w*l*x    S = sum w    M = sum w*x
    scale = (S*P - M*L) / (S*Q - L*L)    least = (Q*M - L*P) / (S*Q - L*L)

So a candidate costs one rounding of the weights. Three candidates share each load.
"""

from __future__ import annotations

from typing import TypeAlias

from llamacli.quantize.fast.compiled import inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Mask,
    Memory,
    floats,
    fma,
    load,
    maximum,
    minimum,
    rounded,
    store,
    where,
)
from llamacli.quantize.fast.tiles import (
    LEAST,
    LEAST_CODE,
    MOMENT,
    SCALE,
    SCALE_CODE,
    WEIGHT,
    Search,
    W,
    X,
    from_half,
    reciprocal,
    to_half,
)

Nine: TypeAlias = "tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats]"
TINY = 1e-30
BETTER = 1.000001
"""A candidate must explain this much more than the best so far: rounding errors decide nothing."""


@inner
def level(x: Floats, inverse: Floats, shift: Floats, top: Floats) -> Floats:
    """The integer for a weight: x * inverse + shift, rounded and clamped to 0 ... top."""
    return maximum(minimum(rounded(fma(x, inverse, shift)), top), floats(0))


@inner
def sums(
    tile: Memory, at: int, count: int, top: Floats,
    i0: Floats, b0: Floats, i1: Floats, b1: Floats, i2: Floats, b2: Floats,
) -> Nine:  # fmt: skip
    """L, Q and P for each of three candidates (inverse scale, shift) over the sub-block that starts at vector `at`."""
    none = floats(0)
    l0, q0, p0, l1, q1, p1, l2, q2, p2 = none, none, none, none, none, none, none, none, none
    for i in range(count):
        x = load(tile, X + (at + i) * LANES)
        w = load(tile, W + (at + i) * LANES)
        n = level(x, i0, b0, top)
        wn = w * n
        l0, q0, p0 = l0 + wn, fma(wn, n, q0), fma(wn, x, p0)
        n = level(x, i1, b1, top)
        wn = w * n
        l1, q1, p1 = l1 + wn, fma(wn, n, q1), fma(wn, x, p1)
        n = level(x, i2, b2, top)
        wn = w * n
        l2, q2, p2 = l2 + wn, fma(wn, n, q2), fma(wn, x, p2)
    return l0, q0, p0, l1, q1, p1, l2, q2, p2


@inner
def fitted(
    s: Floats, m: Floats, lsum: Floats, q: Floats, p: Floats, bounded: Mask, best: tuple[Floats, Floats, Floats]
) -> tuple[Floats, Floats, Floats]:
    """The better of `best` = (explained, scale, least) and the least-squares fit to these sums.

    Where `bounded`, a positive minimum cannot be stored and becomes 0.
    """
    none, one = floats(0), floats(1)
    explained, scale, least = best
    determinant = s * q - lsum * lsum
    slope = s * p - m * lsum
    offset = q * m - lsum * p
    clamped = (offset > none) & bounded
    valid = determinant > floats(1e-5) * s * q
    inverse = one / where(valid, where(clamped, q, determinant), one)
    new_scale = where(clamped, p, slope) * inverse
    new_least = where(clamped, none, offset * inverse)
    gain = new_scale * (p + p - new_scale * q - (new_least + new_least) * lsum) + new_least * (m + m - new_least * s)
    better = valid & (gain > explained * floats(BETTER))
    return where(better, gain, explained), where(better, new_scale, scale), where(better, new_least, least)


@inner
def sub_block(
    tile: Memory, at: int, count: int, top: float, bounded: Mask, search: Search
) -> tuple[Floats, Floats, Floats, Floats]:
    """(scale, least, sum w, sum w*x) of the `count` weights from vector `at`.

    `search.grid` is added to `top`: a candidate maps the range above the best minimum so far to 0 ... top + offset.
    """
    none, one, highest_level = floats(0), floats(1), floats(top)
    x = load(tile, X + at * LANES)
    low = where(bounded, minimum(x, none), x)
    high, s, m = x, none, none
    for i in range(count):
        x = load(tile, X + (at + i) * LANES)
        w = load(tile, W + (at + i) * LANES)
        low, high = minimum(x, low), maximum(x, high)
        s, m = s + w, fma(w, x, m)
    width = high - low
    best = (floats(-1e30), width * floats(1.0 / top), low)
    groups = len(search.grid) // 3
    for group in range(groups + search.steps):
        base = best[2]
        if group < groups:
            span = high - base
            usable = span > floats(TINY)
            inverse = where(usable, one / where(usable, span, one), none)
            i0 = inverse * floats(top + search.grid[3 * group])
            i1 = inverse * floats(top + search.grid[3 * group + 1])
            i2 = inverse * floats(top + search.grid[3 * group + 2])
        else:
            inverse = reciprocal(best[1])
            near = search.step / (1 + group - groups)
            i0, i1, i2 = inverse * floats(1 - near), inverse, inverse * floats(1 + near)
        back = none - base
        l0, q0, p0, l1, q1, p1, l2, q2, p2 = sums(
            tile, at, count, highest_level, i0, back * i0, i1, back * i1, i2, back * i2
        )
        best = fitted(s, m, l0, q0, p0, bounded, best)
        best = fitted(s, m, l1, q1, p1, bounded, best)
        best = fitted(s, m, l2, q2, p2, bounded, best)
    scale = where(width < floats(TINY), none, maximum(best[1], none))
    return scale, best[2], s, m


@inner
def super_block(tile: Memory, parts: int, count: int, top: float, code_top: float, search: Search) -> tuple[Ints, Ints]:
    """Choose SCALE_CODE and LEAST_CODE of `parts` sub-blocks of `count` weights; the binary16 scales of both.

    x ~ scale * code * l - least_scale * least_code, codes from 0 to `code_top`.
    """
    none = floats(0)
    bounded = none == none
    largest, deepest = none, none
    for j in range(parts):
        scale, least, s, m = sub_block(tile, j * count, count, top, bounded, search)
        store(tile, SCALE + j * LANES, scale)
        store(tile, LEAST + j * LANES, none - least)
        store(tile, WEIGHT + j * LANES, s)
        store(tile, MOMENT + j * LANES, m)
        largest, deepest = maximum(scale, largest), maximum(none - least, deepest)
    scale_half, least_half = to_half(largest * floats(1 / code_top)), to_half(deepest * floats(1 / code_top))
    encode(tile, parts, code_top, largest, deepest)
    for _ in range(search.rounds):
        scale_half, least_half = refine(tile, parts, count, top, code_top, from_half(scale_half), from_half(least_half))
    return scale_half, least_half


@inner
def encode(tile: Memory, parts: int, code_top: float, largest: Floats, deepest: Floats) -> None:
    """Round every sub-block's scale and minimum to its share of the largest."""
    limit = floats(code_top)
    per_scale, per_least = limit * reciprocal(largest), limit * reciprocal(deepest)
    for j in range(parts):
        store(tile, SCALE_CODE + j * LANES, minimum(rounded(per_scale * load(tile, SCALE + j * LANES)), limit))
        store(tile, LEAST_CODE + j * LANES, minimum(rounded(per_least * load(tile, LEAST + j * LANES)), limit))


@inner
def refine(
    tile: Memory, parts: int, count: int, top: float, code_top: float, scale: Floats, least: Floats
) -> tuple[Ints, Ints]:
    """One round: each sub-block's best codes among neighbours, then both scales of the block by least squares."""
    none, one, limit = floats(0), floats(1), floats(code_top)
    per_least = reciprocal(least)
    a11, a12, a22, c1, c2 = none, none, none, none, none
    for j in range(parts):
        code = load(tile, SCALE_CODE + j * LANES)
        shift = least * load(tile, LEAST_CODE + j * LANES)
        s, m = load(tile, WEIGHT + j * LANES), load(tile, MOMENT + j * LANES)
        n0, n2 = maximum(code - one, none), minimum(code + one, limit)
        i0, i1, i2 = reciprocal(scale * n0), reciprocal(scale * code), reciprocal(scale * n2)
        l0, q0, p0, l1, q1, p1, l2, q2, p2 = sums(
            tile, j * count, count, floats(top), i0, shift * i0, i1, shift * i1, i2, shift * i2
        )
        per_weight = reciprocal(s)
        chosen = (floats(-1e30), code, load(tile, LEAST_CODE + j * LANES), none, none, none)
        chosen = with_least(scale, least, per_least, per_weight, limit, s, m, n0, l0, q0, p0, chosen)
        chosen = with_least(scale, least, per_least, per_weight, limit, s, m, code, l1, q1, p1, chosen)
        chosen = with_least(scale, least, per_least, per_weight, limit, s, m, n2, l2, q2, p2, chosen)
        _, n, k, lsum, q, p = chosen
        store(tile, SCALE_CODE + j * LANES, n)
        store(tile, LEAST_CODE + j * LANES, k)
        a11, a12, a22 = fma(n * n, q, a11), fma(n * k, lsum, a12), fma(k * k, s, a22)
        c1, c2 = fma(n, p, c1), fma(k, m, c2)
    return solved(a11, a12, a22, c1, c2, scale, least)


@inner
def with_least(
    scale: Floats, least: Floats, per_least: Floats, per_weight: Floats, limit: Floats, s: Floats, m: Floats,
    n: Floats, lsum: Floats, q: Floats, p: Floats, chosen: tuple[Floats, Floats, Floats, Floats, Floats, Floats],
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:  # fmt: skip
    """The better of `chosen` = (explained, code, least code, L, Q, P) and code n with the best least code for it."""
    real = scale * n
    k = maximum(minimum(rounded((real * lsum - m) * per_weight * per_least), limit), floats(0))
    drop = least * k
    gain = real * (p + p - real * q + (drop + drop) * lsum) - drop * (m + m + drop * s)
    better = gain > chosen[0]
    return (
        where(better, gain, chosen[0]),
        where(better, n, chosen[1]),
        where(better, k, chosen[2]),
        where(better, lsum, chosen[3]),
        where(better, q, chosen[4]),
        where(better, p, chosen[5]),
    )


@inner
def solved(
    a11: Floats, a12: Floats, a22: Floats, c1: Floats, c2: Floats, scale: Floats, least: Floats
) -> tuple[Ints, Ints]:
    """Both scales from the normal equations, where they have a positive solution; as binary16."""
    none, one = floats(0), floats(1)
    determinant = a11 * a22 - a12 * a12
    regular = determinant > floats(1e-5) * a11 * a22
    inverse = one / where(regular, determinant, one)
    u = (c1 * a22 - a12 * c2) * inverse
    v = (a12 * c1 - a11 * c2) * inverse
    both = regular & (u > none) & (v > none)
    alone = (a22 == none) & (a11 > none)
    by_scale = where(alone, c1 / where(alone, a11, one), scale)
    return to_half(where(both, u, by_scale)), to_half(where(both, v, least))

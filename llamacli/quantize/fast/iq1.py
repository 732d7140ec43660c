"""IQ1_S and IQ1_M: super-blocks of 256 weights, eight weights to a codebook index, each -1, 0 or 1 and all shifted.

The shift is an eighth up or down, chosen for 32 weights (S) or 8 (M); a sub-block of 32 (S) or 16 (M) weights has an
odd number from 1 to 15 times the block's scale. Bytes of IQ1_S: binary16 scale, 32 of low index bits, 8 times two of
upper index bits, scale code and shift. Bytes of IQ1_M: 32 of low index bits, 16 of upper index bits and shifts, 8 of
scale codes with four bits of the binary16 scale above each four. Source: ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.codebooks import NEIGHBOURS, Books
from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.grouped import INDEX, code_bits, solved
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Memory,
    floats,
    fma,
    gather,
    ints,
    load,
    load_ints,
    maximum,
    minimum,
    rounded,
    shift_left,
    shift_right,
    square_root,
    store,
    store_ints,
    store_shorts,
    table,
    to_ints,
    transpose_out,
    where,
)
from llamacli.quantize.fast.symmetric import fitted, with_code
from llamacli.quantize.fast.tiles import (
    BLOCK,
    SCALE,
    SCALE_CODE,
    Blocks,
    Scratch,
    Search,
    W,
    X,
    from_half,
    load_tile,
    mean_square,
    place_tile,
    reciprocal,
    to_half,
)
from llamacli.quantize.fast.weights import weigh_by_importance

S, M = 0, 1
"""Variants."""
DOWN = 0
"""Where the words begin that say whether a group of eight is shifted down."""
OUT = 64
"""Where the words to write begin."""
SHIFT = 0.125
LARGEST_CODE = 15.0
CAREFUL = 8
"""How many neighbours are tried for each group when the scales are refined together."""

_level_of = table((-1, 0, 1, 1))


@inner
def group_number(tile: Memory, at: int, inverse: Floats, shift: Floats) -> Ints:
    """Which group the weights from vector `at` become when each is rounded by itself."""
    number, place = floats(0), 1.0
    for i in range(8):
        value = rounded(fma(load(tile, X + (at + i) * LANES), inverse, floats(0) - shift))
        number = fma(maximum(minimum(value, floats(1)), floats(-1)) + floats(1), floats(place), number)
        place *= 3
    return to_ints(number)


@inner
def group_sums(tile: Memory, at: int, packed: Ints, shift: Floats) -> tuple[Floats, Floats]:
    """Sums of w*v*v and of w*v*x for the levels of a packed group."""
    q, p = floats(0), floats(0)
    for i in range(8):
        value = _level_of(shift_right(packed, 2 * i) & ints(3)) + shift
        wv = load(tile, W + (at + i) * LANES) * value
        q, p = fma(wv, value, q), fma(wv, load(tile, X + (at + i) * LANES), p)
    return q, p


@inner
def better_shift(
    inverse: Floats, q: Floats, p: Floats, q_down: Floats, p_down: Floats
) -> tuple[Floats, Floats, Floats]:
    """The sums of the shift with less error, and 1 where that is down."""
    twice = floats(0) - (inverse + inverse)
    down = fma(twice, p_down, q_down) < fma(twice, p, q)
    return where(down, q_down, q), where(down, p_down, p), where(down, floats(1), floats(0))


@inner
def sums(
    tile: Memory, at: int, count: int, variant: int, inverse: Floats, nearest: Memory
) -> tuple[Floats, Floats, Floats, Floats]:
    """Sums over a sub-block for one inverse scale: Q and P of both shifts (S), or twice of the better ones (M)."""
    up = floats(SHIFT)
    down = floats(0) - up
    q, p, q_down, p_down = floats(0), floats(0), floats(0), floats(0)
    for i in range(at, at + count, 8):
        qa, pa = group_sums(tile, i, gather(nearest, group_number(tile, i, inverse, up)), up)
        qb, pb = group_sums(tile, i, gather(nearest, group_number(tile, i, inverse, down)), down)
        if variant == M:
            qa, pa, _ = better_shift(inverse, qa, pa, qb, pb)
            qb, pb = qa, pa
        q, p, q_down, p_down = q + qa, p + pa, q_down + qb, p_down + pb
    return q, p, q_down, p_down


@inner
def sub_block(tile: Memory, at: int, count: int, variant: int, nearest: Memory, search: Search) -> Floats:
    """The best scale for the `count` weights from vector `at`; a candidate is a scale over their root mean square."""
    typical = square_root(mean_square(tile, X + at * LANES, count))
    per_typical = where(typical < floats(1e-15), floats(0), reciprocal(typical))
    best = (floats(-1), floats(0))
    grid = len(search.grid)
    for k in range(grid + search.steps * 2):
        if k < grid:
            inverse = per_typical * floats(1 / search.grid[k])
        else:
            near = search.step / (1 + (k - grid) // 2)
            inverse = reciprocal(best[1]) * floats(1 + near if k & 1 else 1 - near)
        q, p, q_down, p_down = sums(tile, at, count, variant, inverse, nearest)
        best = fitted(q, p, best)
        best = fitted(q_down, p_down, best)
    return maximum(best[1], floats(0))


@inner
def best_group(tile: Memory, at: int, inverse: Floats, shift: Floats, near: Memory, tries: int) -> Ints:
    """The packed group of the least weighted error among the first `tries` neighbours of the rounded weights."""
    first_place = group_number(tile, at, inverse, shift) * ints(NEIGHBOURS)
    best, least = gather(near, first_place), floats(3.0e38)
    for k in range(tries):
        packed = gather(near, first_place + ints(k))
        error = floats(0)
        for i in range(8):
            value = _level_of(shift_right(packed, 2 * i) & ints(3)) + shift
            rest = fma(load(tile, X + (at + i) * LANES), inverse, floats(0) - value)
            error = fma(load(tile, W + (at + i) * LANES) * rest, rest, error)
        closer = error < least
        best, least = where(closer, packed, best), where(closer, error, least)
    return best


@inner
def place_groups(
    tile: Memory, words: Memory, at: int, count: int, variant: int, inverse: Floats, near: Memory, tries: int
) -> tuple[Floats, Floats]:
    """Fill INDEX and DOWN of a sub-block for one inverse scale; its Q and P."""
    up = floats(SHIFT)
    lower = floats(0) - up
    q, p, q_down, p_down = floats(0), floats(0), floats(0), floats(0)
    for i in range(at, at + count, 8):
        a = best_group(tile, i, inverse, up, near, tries)
        b = best_group(tile, i, inverse, lower, near, tries)
        qa, pa = group_sums(tile, i, a, up)
        qb, pb = group_sums(tile, i, b, lower)
        place = i // 8 * LANES
        if variant == M:
            qa, pa, down = better_shift(inverse, qa, pa, qb, pb)
            a = where(down > floats(0), b, a)
            store_ints(words, DOWN * LANES + place, to_ints(down))
        store_ints(words, INDEX * LANES + place, shift_right(a, 16))
        store_ints(words, OUT * LANES + place, shift_right(b, 16))
        q, p, q_down, p_down = q + qa, p + pa, q_down + qb, p_down + pb
    if variant == S:
        q, p, down = better_shift(inverse, q, p, q_down, p_down)
        for i in range(at // 8, (at + count) // 8):
            other = load_ints(words, (OUT + i) * LANES)
            store_ints(
                words, (INDEX + i) * LANES, where(down > floats(0), other, load_ints(words, (INDEX + i) * LANES))
            )
            store_ints(words, (DOWN + i) * LANES, to_ints(down))
    return q, p


@inner
def super_block(tile: Memory, words: Memory, variant: int, nearest: Memory, near: Memory, search: Search) -> Ints:
    """Choose SCALE_CODE of every sub-block, fill INDEX and DOWN; the binary16 scale."""
    parts = 16 if variant == M else 8
    count = BLOCK // parts
    widest = floats(0)
    for j in range(parts):
        scale = sub_block(tile, j * count, count, variant, nearest, search)
        store(tile, SCALE + j * LANES, scale)
        widest = maximum(scale, widest)
    per_scale = floats(LARGEST_CODE) * reciprocal(widest)
    half = to_half(widest * floats(1 / LARGEST_CODE))
    for j in range(parts):
        odd = rounded((per_scale * load(tile, SCALE + j * LANES) - floats(1)) * floats(0.5))
        store(tile, SCALE_CODE + j * LANES, fma(maximum(minimum(odd, floats(7)), floats(0)), floats(2), floats(1)))
    for _ in range(search.rounds):
        half = refine(tile, words, variant, parts, near, from_half(half))
    squares, moment = floats(0), floats(0)
    for j in range(parts):
        code = load(tile, SCALE_CODE + j * LANES)
        inverse = reciprocal(from_half(half) * code)
        q, p = place_groups(tile, words, j * count, count, variant, inverse, near, NEIGHBOURS)
        squares, moment = fma(code * code, q, squares), fma(code, p, moment)
    return solved(squares, moment, from_half(half), search.stretch)


@inner
def refine(tile: Memory, words: Memory, variant: int, parts: int, near: Memory, scale: Floats) -> Ints:
    """One round: each sub-block's best odd number among neighbours, then the block's scale by least squares."""
    none, two = floats(0), floats(2)
    count = BLOCK // parts
    squares, moment = none, none
    for j in range(parts):
        code = load(tile, SCALE_CODE + j * LANES)
        n0, n2 = maximum(code - two, floats(1)), minimum(code + two, floats(LARGEST_CODE))
        chosen = (floats(-1e30), code, none, none)
        for n in (n0, code, n2):
            q, p = place_groups(tile, words, j * count, count, variant, reciprocal(scale * n), near, CAREFUL)
            chosen = with_code(scale, n, q, p, chosen)
        _, n, q, p = chosen
        store(tile, SCALE_CODE + j * LANES, n)
        squares, moment = fma(n * n, q, squares), fma(n, p, moment)
    return solved(squares, moment, scale, 1.0)


@entry
def quantize_iq1(blocks: Blocks, variant: int, search: Search, scratch: Scratch, books: Books) -> None:
    """All blocks as IQ1_S or IQ1_M; both need an importance."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, BLOCK, first, tile, scratch.starts)
        place_tile(blocks, 56 if variant == M else 50, first, scratch.places)
        weigh_by_importance(tile, BLOCK, 2.0 + search.flatness)
        half = super_block(tile, words, variant, books.nearest, books.near, search)
        low_indices(words)
        if variant == M:
            transpose_out(words, OUT * LANES, scratch.places, 0, 8)
            pack_m(tile, words, half)
            transpose_out(words, OUT * LANES, scratch.places, 32, 6)
        else:
            store_shorts(half, scratch.places, 0)
            transpose_out(words, OUT * LANES, scratch.places, 2, 8)
            pack_s(tile, words)
            transpose_out(words, OUT * LANES, scratch.places, 34, 4)


@inner
def index(words: Memory, group: int) -> Ints:
    """The codebook index of eight weights."""
    return load_ints(words, (INDEX + group) * LANES)


@inner
def down(words: Memory, group: int) -> Ints:
    """1 where a group of eight is shifted down."""
    return load_ints(words, (DOWN + group) * LANES)


@inner
def low_indices(words: Memory) -> None:
    """OUT to OUT + 7: the low eight bits of the 32 indices."""
    for k in range(8):
        word = ints(0)
        for byte in range(4):
            word = word | shift_left(index(words, 4 * k + byte) & ints(255), 8 * byte)
        store_ints(words, (OUT + k) * LANES, word)


@inner
def pack_s(tile: Memory, words: Memory) -> None:
    """Four words of two sub-blocks each: four times three upper index bits, the scale code, the shift."""
    for k in range(4):
        word = ints(0)
        for side in range(2):
            j = 2 * k + side
            part = shift_left(code_bits(tile, j), 12) | shift_left(down(words, 4 * j), 15)
            for group in range(4):
                part = part | shift_left(shift_right(index(words, 4 * j + group), 8), 3 * group)
            word = word | shift_left(part, 16 * side)
        store_ints(words, (OUT + k) * LANES, word)


@inner
def pack_m(tile: Memory, words: Memory, half: Ints) -> None:
    """Four words of upper index bits and shifts, two of scale codes with four bits of the scale above each four."""
    for k in range(4):
        word = ints(0)
        for group in range(8):
            upper = shift_right(index(words, 8 * k + group), 8) | shift_left(down(words, 8 * k + group), 3)
            word = word | shift_left(upper, 4 * group)
        store_ints(words, (OUT + k) * LANES, word)
    for k in range(2):
        word = ints(0)
        for side in range(2):
            four = 2 * k + side
            part = shift_left(shift_right(half, 4 * four) & ints(15), 12)
            for j in range(4):
                part = part | shift_left(code_bits(tile, 4 * four + j), 3 * j)
            word = word | shift_left(part, 16 * side)
        store_ints(words, (OUT + 4 + k) * LANES, word)

"""The search for a scale when groups of weights share an index into a codebook: the IQ2 and IQ3 types.

Signs are stored apart, so magnitudes are searched. A first candidate scale is judged by the group nearest to the rounded
magnitudes, one look into a table; when the scales are refined together, and in the final choice, every group of the
codebook is weighed (see `complete`). Every sub-block's scale is an odd number from 1 to 31 times the block's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llamacli.quantize.fast.codebooks import Books
from llamacli.quantize.fast.compiled import inner
from llamacli.quantize.fast.complete import groups_of
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Memory,
    absolute,
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
    store,
    store_ints,
    table,
    to_ints,
    where,
)
from llamacli.quantize.fast.symmetric import Six, fitted, with_code
from llamacli.quantize.fast.tiles import ODD, SCALE, SCALE_CODE, Search, W, X, from_half, reciprocal, to_half

SIGNS, INDEX = 0, 32
"""Where the words of the signs (eight bits per eight weights) and of the codebook indices begin."""
LARGEST_CODE = 31.0


class Searches(NamedTuple):
    """Compiled searches for one codebook's kind of levels."""

    super_block: Any
    """(tile, words, parts, count, even, books, search) -> binary16 scale; SCALE_CODE and INDEX filled, SIGNS mended"""


def searches(values: tuple[float, ...], group: int, bits: int) -> Searches:
    """The searches for levels worth `values`, in groups of `group` packed with `bits` each."""
    exact = groups_of(values, group, bits)
    value_of = table(values + values[-1:] * ((1 << bits) - len(values)))
    top = float(len(values) - 1)
    per_value = top / (values[-1] - values[0]) if len(values) < 8 else 1 / (values[1] - values[0])
    first = values[0] * per_value
    mask, base = (1 << bits) - 1, len(values)

    @inner
    def group_number(tile: Memory, at: int, inverse: Floats) -> Ints:
        """Which group the weights from vector `at` become when each is rounded by itself."""
        slope = inverse * floats(per_value)
        number, place = floats(0), 1.0
        for i in range(group):
            value = fma(load(tile, X + (at + i) * LANES), slope, floats(-first))
            number = fma(maximum(minimum(rounded(value), floats(top)), floats(0)), floats(place), number)
            place *= base
        return to_ints(number)

    @inner
    def group_sums(tile: Memory, at: int, packed: Ints, q: Floats, p: Floats) -> tuple[Floats, Floats]:
        """Add w*v*v to q and w*v*x to p for the levels of a packed group."""
        for i in range(group):
            value = value_of(shift_right(packed, bits * i) & ints(mask))
            wv = load(tile, W + (at + i) * LANES) * value
            q, p = fma(wv, value, q), fma(wv, load(tile, X + (at + i) * LANES), p)
        return q, p

    @inner
    def sums(tile: Memory, at: int, count: int, nearest: Memory, i0: Floats, i1: Floats, i2: Floats) -> Six:
        """Q and P for each of three candidate inverse scales over the sub-block that starts at vector `at`."""
        none = floats(0)
        q0, p0, q1, p1, q2, p2 = none, none, none, none, none, none
        for i in range(at, at + count, group):
            q0, p0 = group_sums(tile, i, gather(nearest, group_number(tile, i, i0)), q0, p0)
            q1, p1 = group_sums(tile, i, gather(nearest, group_number(tile, i, i1)), q1, p1)
            q2, p2 = group_sums(tile, i, gather(nearest, group_number(tile, i, i2)), q2, p2)
        return q0, p0, q1, p1, q2, p2

    @inner
    def sub_block(tile: Memory, at: int, count: int, nearest: Memory, search: Search) -> Floats:
        """The best scale for the `count` magnitudes from vector `at`; a candidate is what the largest becomes."""
        largest = floats(0)
        for i in range(count):
            largest = maximum(absolute(load(tile, X + (at + i) * LANES)), largest)
        per_largest = where(largest < floats(1e-15), floats(0), reciprocal(largest))
        best = (floats(-1), floats(0))
        groups = len(search.grid) // 3
        for k in range(groups + search.steps):
            if k < groups:
                i0 = per_largest * floats(search.grid[3 * k])
                i1 = per_largest * floats(search.grid[3 * k + 1])
                i2 = per_largest * floats(search.grid[3 * k + 2])
            else:
                inverse = reciprocal(best[1])
                near = search.step / (1 + k - groups)
                i0, i1, i2 = inverse * floats(1 - near), inverse, inverse * floats(1 + near)
            q0, p0, q1, p1, q2, p2 = sums(tile, at, count, nearest, i0, i1, i2)
            best = fitted(q0, p0, best)
            best = fitted(q1, p1, best)
            best = fitted(q2, p2, best)
        return maximum(best[1], floats(0))

    @inner
    def exact_sums(
        tile: Memory, at: int, count: int, even: int, books: Books, inverse: Floats
    ) -> tuple[Floats, Floats]:
        """Q and P for one inverse scale, each group the best of the whole codebook."""
        q, p = floats(0), floats(0)
        for i in range(at, at + count, 8):
            first, second = exact.best(tile, i, inverse, books.halves, books.packed, even)
            qi, pi = exact.sums(tile, i, first, second, even)
            q, p = q + qi, p + pi
        return q, p

    @inner
    def refine(tile: Memory, parts: int, count: int, even: int, books: Books, scale: Floats) -> Ints:
        """One round: each sub-block's best odd number among neighbours, then the block's scale by least squares."""
        none, two = floats(0), floats(2)
        squares, moment = none, none
        for j in range(parts):
            code = load(tile, SCALE_CODE + j * LANES)
            n0, n2 = maximum(code - two, floats(1)), minimum(code + two, floats(LARGEST_CODE))
            chosen = (floats(-1e30), code, none, none)
            for n in (n0, code, n2):
                q, p = exact_sums(tile, j * count, count, even, books, reciprocal(scale * n))
                chosen = with_code(scale, n, q, p, chosen)
            _, n, q, p = chosen
            store(tile, SCALE_CODE + j * LANES, n)
            squares, moment = fma(n * n, q, squares), fma(n, p, moment)
        return solved(squares, moment, scale, 1.0)

    @inner
    def choose(
        tile: Memory, words: Memory, parts: int, count: int, even: int, books: Books, scale: Floats, stretch: float
    ) -> Ints:
        """Fill INDEX and turn SIGNS for the given scale; what suits the chosen groups best, times `stretch`."""
        squares, moment = floats(0), floats(0)
        for j in range(parts):
            code = load(tile, SCALE_CODE + j * LANES)
            inverse = reciprocal(scale * code)
            q, p = floats(0), floats(0)
            for i in range(j * count, (j + 1) * count, 8):
                first, second = exact.best(tile, i, inverse, books.halves, books.packed, even)
                store_ints(words, (INDEX + i // group) * LANES, shift_right(first, 16))
                if group == 4:
                    store_ints(words, (INDEX + i // 4 + 1) * LANES, shift_right(second, 16))
                if even:
                    signs = (SIGNS + i // 8) * LANES
                    store_ints(words, signs, flipped(load_ints(words, signs), exact.turned(tile, i, first, second)))
                qi, pi = exact.sums(tile, i, first, second, even)
                q, p = q + qi, p + pi
            squares, moment = fma(code * code, q, squares), fma(code, p, moment)
        return solved(squares, moment, scale, stretch)

    @inner
    def super_block(
        tile: Memory, words: Memory, parts: int, count: int, even: int, books: Books, search: Search
    ) -> Ints:
        split_signs(tile, words, even)
        widest = floats(0)
        for j in range(parts):
            scale = sub_block(tile, j * count, count, books.nearest, search)
            store(tile, SCALE + j * LANES, scale)
            widest = maximum(scale, widest)
        per_scale = floats(LARGEST_CODE) * reciprocal(widest)
        half = to_half(widest * floats(1 / LARGEST_CODE))
        for j in range(parts):
            odd = rounded((per_scale * load(tile, SCALE + j * LANES) - floats(1)) * floats(0.5))
            odd = fma(maximum(minimum(odd, floats(15)), floats(0)), floats(2), floats(1))
            store(tile, SCALE_CODE + j * LANES, odd)
        for _ in range(search.rounds):
            half = refine(tile, parts, count, even, books, from_half(half))
        return choose(tile, words, parts, count, even, books, from_half(half), search.stretch)

    return Searches(super_block)


@inner
def solved(squares: Floats, moment: Floats, scale: Floats, stretch: float) -> Ints:
    """`stretch` times the block's scale by least squares, where there is anything to fit; as binary16."""
    known = (squares > floats(0)) & (moment > floats(0))
    return to_half(where(known, moment / where(known, squares, floats(1)) * floats(stretch), scale))


@inner
def split_signs(tile: Memory, words: Memory, even: int) -> None:
    """Replace the weights by magnitudes and store their signs, eight bits per eight weights.

    Where the format stores only an even number of minus signs (`even`), ODD says which groups have one too many. The
    search for the first scales takes the sign whose loss is likely to cost least for turned: that magnitude becomes
    negative.
    """
    for eight in range(32):
        signs, count, cheapest = ints(0), ints(0), ints(0)
        least = floats(3.0e38)
        for i in range(8):
            x = load(tile, X + (8 * eight + i) * LANES)
            minus = x < floats(0)
            signs = signs | where(minus, ints(1 << i), ints(0))
            count = count + where(minus, ints(1), ints(0))
            cost = load(tile, W + (8 * eight + i) * LANES) * absolute(x)
            cheaper = cost < least
            least, cheapest = where(cheaper, cost, least), where(cheaper, ints(1 << i), cheapest)
        is_odd = (count & ints(even)) == ints(1)
        store(tile, ODD + eight * LANES, where(is_odd, floats(1), floats(0)))
        turned = where(is_odd, cheapest, ints(0))
        for i in range(8):
            magnitude = absolute(load(tile, X + (8 * eight + i) * LANES))
            is_turned = (turned & ints(1 << i)) == ints(1 << i)
            store(tile, X + (8 * eight + i) * LANES, where(is_turned, floats(0) - magnitude, magnitude))
        store_ints(words, (SIGNS + eight) * LANES, signs)


@inner
def flipped(signs: Ints, bit: Ints) -> Ints:
    """The signs with one bit (or none) the other way round."""
    return where((signs & bit) == bit, signs - bit, signs + bit)


@inner
def code_bits(tile: Memory, j: int) -> Ints:
    """The bits stored for sub-block j's odd number, without the last, which is always set."""
    return shift_right(to_ints(load(tile, SCALE_CODE + j * LANES)), 1)


@inner
def nibbles(tile: Memory, words: Memory, start: int, count: int) -> None:
    """`count` words from `start` with eight sub-blocks' four bits each, the first in the lowest."""
    for k in range(count):
        word = ints(0)
        for j in range(8):
            word = word | shift_left(code_bits(tile, 8 * k + j), 4 * j)
        store_ints(words, (start + k) * LANES, word)

"""The best of a whole codebook for a group of weights, exactly: every entry is weighed, none is left out.

The error of an entry is a sum over its weights. Each half of a group can only become a few things (81 for four weights
of three levels, 64 for two of eight), so the errors of all of these are written down first; an entry then costs the
addition of two of them, the same two for all lanes, whose places stand in the codebook beforehand.

Where the format stores only an even number of minus signs for eight weights (`even`), one sign too many is turned where
that costs least. Which one that is depends on the entry, so beside each sum stands the same with its cheapest sign
turned, and an entry is the better of "in this half" and "in the other". Lanes that have nothing to turn have the same
numbers in both tables.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llamacli.quantize.fast.compiled import inner
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
    minimum,
    shift_right,
    store,
    table,
    where,
)
from llamacli.quantize.fast.tiles import HALVES, ODD, W, X

LARGEST_HALF_TABLE = 81
FIRST, SECOND = HALVES, HALVES + 2 * LARGEST_HALF_TABLE * LANES
"""Where the errors of each half begin; TURNED beyond them, the same with one sign turned."""
TURNED = LARGEST_HALF_TABLE * LANES
SINGLES = SECOND + 2 * LARGEST_HALF_TABLE * LANES
"""Where the errors of single weights and of pairs begin."""


class Groups(NamedTuple):
    """Compiled functions over eight weights, in groups of eight or of four."""

    best: Any
    """(tile, at, inverse, entries, packed, even) -> the packed groups of the least error (the second 0 in groups of 8)"""
    sums: Any
    """(tile, at, first, second, even) -> sums of w*v*v and w*v*x for packed groups"""
    turned: Any
    """(tile, at, first, second) -> the bit of the weight whose sign is turned, 0 where none is"""


@inner
def combine(tile: Memory, a: int, b: int, count: int, out: int, beyond: int, even: int) -> None:
    """Sums of `count` errors at `a` with `count` at `b`; the cheaper turn of the two, `beyond` the sums."""
    turn = count * LANES
    for k in range(count):
        error, cost = load(tile, b + k * LANES), floats(0)
        if even:
            cost = load(tile, b + turn + k * LANES)
        for i in range(count):
            to = out + (k * count + i) * LANES
            store(tile, to, load(tile, a + i * LANES) + error)
            if even:
                store(tile, to + beyond, minimum(load(tile, a + turn + i * LANES), cost))


@inner
def add_turns(tile: Memory, out: int, count: int) -> None:
    """The cost of turning to the error with that sign turned."""
    for k in range(out, out + count * LANES, LANES):
        store(tile, k + TURNED, load(tile, k + TURNED) + load(tile, k))


@inner
def least_of_all(tile: Memory, entries: Memory, first: int, second: int) -> tuple[Ints, Floats]:
    """The entry of the least sum of errors at `first` and `second`, and the sum."""
    big = floats(3.0e38)
    best0, best1, least0, least1 = ints(0), ints(0), big, big
    for k in range(0, len(entries), 4):
        e0 = load(tile, first + entries[k]) + load(tile, second + entries[k + 1])
        e1 = load(tile, first + entries[k + 2]) + load(tile, second + entries[k + 3])
        best0 = where(e0 < least0, ints(k), best0)
        best1 = where(e1 < least1, ints(k), best1)
        least0, least1 = minimum(e0, least0), minimum(e1, least1)
    later = least1 < least0
    return shift_right(where(later, best1 + ints(2), best0), 1), minimum(least1, least0)


@inner
def least_turned(tile: Memory, entries: Memory, first: int, second: int) -> tuple[Ints, Floats]:
    """The same where a sign of one half is turned."""
    big = floats(3.0e38)
    best0, best1, least0, least1 = ints(0), ints(0), big, big
    for k in range(0, len(entries), 4):
        a, b = first + entries[k], second + entries[k + 1]
        e0 = minimum(load(tile, a + TURNED) + load(tile, b), load(tile, a) + load(tile, b + TURNED))
        a, b = first + entries[k + 2], second + entries[k + 3]
        e1 = minimum(load(tile, a + TURNED) + load(tile, b), load(tile, a) + load(tile, b + TURNED))
        best0 = where(e0 < least0, ints(k), best0)
        best1 = where(e1 < least1, ints(k), best1)
        least0, least1 = minimum(e0, least0), minimum(e1, least1)
    later = least1 < least0
    return shift_right(where(later, best1 + ints(2), best0), 1), minimum(least1, least0)


def groups_of(values: tuple[float, ...], group: int, bits: int) -> Groups:
    """The functions for levels worth `values`, in groups of `group` packed with `bits` each."""
    value_of = table(values + values[-1:] * ((1 << bits) - len(values)))
    mask, levels = (1 << bits) - 1, len(values)
    pair = levels * levels
    single = 2 * levels * LANES  # a weight's errors, and what it costs to turn its sign
    pairs = SINGLES + 4 * single

    @inner
    def weigh(tile: Memory, at: int, place: int, inverse: Floats, even: int) -> None:
        """Write the errors of each level of the weight at vector `at` to `place`, less what is common to all levels."""
        x = absolute(load(tile, X + at * LANES))
        w = load(tile, W + at * LANES)
        wx = w * x * inverse
        odd = load(tile, ODD + at // 8 * LANES) * floats(4)
        for level in range(levels):
            value = value_of(ints(level))
            store(tile, place + level * LANES, value * fma(w, value, floats(-2) * wx))
            if even:
                store(tile, place + (levels + level) * LANES, wx * value * odd)

    @inner
    def fill(tile: Memory, at: int, out: int, inverse: Floats, even: int) -> None:
        """Write the errors of all that the half group from vector `at` can become to `out`."""
        for i in range(group // 2):
            weigh(tile, at + i, SINGLES + i * single, inverse, even)
        if group == 8:
            combine(tile, SINGLES, SINGLES + single, levels, pairs, pair * LANES, even)
            combine(
                tile, SINGLES + 2 * single, SINGLES + 3 * single, levels, pairs + 2 * pair * LANES, pair * LANES, even
            )
            combine(tile, pairs, pairs + 2 * pair * LANES, pair, out, TURNED, even)
        else:
            combine(tile, SINGLES, SINGLES + single, levels, out, TURNED, even)
        if even:
            add_turns(tile, out, pair * pair if group == 8 else pair)

    @inner
    def best(tile: Memory, at: int, inverse: Floats, entries: Memory, packed: Memory, even: int) -> tuple[Ints, Ints]:
        fill(tile, at, FIRST, inverse, even)
        fill(tile, at + group // 2, SECOND, inverse, even)
        if group == 8:
            if even:
                return gather(packed, least_turned(tile, entries, FIRST, SECOND)[0]), ints(0)
            return gather(packed, least_of_all(tile, entries, FIRST, SECOND)[0]), ints(0)
        a, a_error = least_of_all(tile, entries, FIRST, SECOND)
        c, c_error = a, a_error
        if even:
            c, c_error = least_turned(tile, entries, FIRST, SECOND)
        fill(tile, at + 4, FIRST, inverse, even)
        fill(tile, at + 6, SECOND, inverse, even)
        b, b_error = least_of_all(tile, entries, FIRST, SECOND)
        if even:
            d, d_error = least_turned(tile, entries, FIRST, SECOND)
            here = c_error + b_error < a_error + d_error
            a, b = where(here, c, a), where(here, b, d)
        return gather(packed, a), gather(packed, b)

    @inner
    def value(first: Ints, second: Ints, i: int) -> Floats:
        """What weight i of the eight becomes, over its scale."""
        if group == 8:
            return value_of(shift_right(first, bits * i) & ints(mask))
        return value_of(shift_right(where(ints(i) < ints(4), first, second), bits * (i & 3)) & ints(mask))

    @inner
    def sums(tile: Memory, at: int, first: Ints, second: Ints, even: int) -> tuple[Floats, Floats]:
        q, p, smallest = floats(0), floats(0), floats(3.0e38)
        for i in range(8):
            v = value(first, second, i)
            wv = load(tile, W + (at + i) * LANES) * v
            product = wv * absolute(load(tile, X + (at + i) * LANES))
            q, p = fma(wv, v, q), p + product
            smallest = minimum(product, smallest)
        if even:
            p = p - floats(2) * load(tile, ODD + at // 8 * LANES) * smallest
        return q, p

    @inner
    def turned(tile: Memory, at: int, first: Ints, second: Ints) -> Ints:
        smallest, bit = floats(3.0e38), ints(0)
        for i in range(8):
            wv = load(tile, W + (at + i) * LANES) * value(first, second, i)
            product = wv * absolute(load(tile, X + (at + i) * LANES))
            bit = where(product < smallest, ints(1 << i), bit)
            smallest = minimum(product, smallest)
        return where(load(tile, ODD + at // 8 * LANES) > floats(0), bit, ints(0))

    return Groups(best, sums, turned)

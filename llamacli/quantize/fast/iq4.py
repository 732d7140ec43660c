"""IQ4_XS and IQ4_NL: each weight is one of sixteen unevenly spaced numbers times a scale.

IQ4_XS: super-blocks of 256 in eight sub-blocks of 32 with 6-bit codes; bytes: binary16 scale, upper bits of the codes,
lower bits, 128 of levels. IQ4_NL: blocks of 32; bytes: binary16 scale, 16 of levels. Source: ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Memory,
    floats,
    ints,
    load,
    shift_left,
    shift_right,
    store_ints,
    store_shorts,
    table,
    to_ints,
    transpose_out,
    where,
)
from llamacli.quantize.fast.symmetric import Levels, searches
from llamacli.quantize.fast.tiles import (
    BLOCK,
    SCALE_CODE,
    Blocks,
    Scratch,
    Search,
    X,
    from_half,
    load_tile,
    place_tile,
    reciprocal,
    to_half,
)
from llamacli.quantize.fast.weights import weigh_by_importance, weigh_by_square

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_MIDDLES = (0.0, *((VALUES[k] + VALUES[k + 1]) / 2 for k in range(15)))
"""Entry k: what a value must exceed to be nearer to VALUES[k] than to the one before."""

_value_of = table(VALUES)
_four_above = table([_MIDDLES[min(k + 4, 15)] for k in range(16)])
_two_above = table([_MIDDLES[min(k + 2, 15)] for k in range(16)])
_one_above = table([_MIDDLES[min(k + 1, 15)] for k in range(16)])

HEAD = 32
"""Where the words of scale and codes begin."""


@inner
def nearest(value: Floats) -> Ints:
    """The index of the nearest of VALUES, by halving the range four times."""
    none = ints(0)
    index = where(value > floats(-4.5), ints(8), none)
    index = index + where(value > _four_above(index), ints(4), none)
    index = index + where(value > _two_above(index), ints(2), none)
    return index + where(value > _one_above(index), ints(1), none)


@inner
def table_level(value: Floats, low: Floats, high: Floats) -> Floats:
    """The nearest of VALUES; the bounds are those of the table."""
    return _value_of(nearest(value))


_sub_block, _super_block = searches(table_level)


@entry
def quantize_iq4xs(blocks: Blocks, variant: int, search: Search, scratch: Scratch) -> None:
    """All blocks as IQ4_XS."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, BLOCK, first, tile, scratch.starts)
        place_tile(blocks, 136, first, scratch.places)
        if blocks.importance != 0:
            weigh_by_importance(tile, BLOCK, 2.0 + search.flatness)
        else:
            weigh_by_square(tile, 1, BLOCK, search.flatness)
        half = _super_block(tile, 8, 32, Levels(-127.0, 113.0), 32.0, search)
        high, low = ints(0), ints(0)
        for j in range(8):
            code = load(tile, SCALE_CODE + j * LANES)
            inverse = reciprocal(from_half(half) * code)
            for quarter in range(4):
                store_ints(words, (4 * j + quarter) * LANES, packed(tile, 32 * j + 4 * quarter, inverse))
            stored = to_ints(code) + ints(32)
            low = low | shift_left(stored & ints(15), 4 * j)
            high = high | shift_left(shift_right(stored, 4), 2 * j)
        store_ints(words, HEAD * LANES, half | shift_left(high, 16))
        store_ints(words, (HEAD + 1) * LANES, low)
        transpose_out(words, HEAD * LANES, scratch.places, 0, 2)
        transpose_out(words, 0, scratch.places, 8, 16)
        transpose_out(words, 16 * LANES, scratch.places, 72, 16)


@entry
def quantize_iq4nl(blocks: Blocks, variant: int, search: Search, scratch: Scratch) -> None:
    """All blocks as IQ4_NL."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, 32, first, tile, scratch.starts)
        place_tile(blocks, 18, first, scratch.places)
        if blocks.importance != 0:
            weigh_by_importance(tile, 32, 2.0 + search.flatness)
        else:
            weigh_by_square(tile, 1, 32, search.flatness)
        half = to_half(_sub_block(tile, 0, 32, Levels(-127.0, 113.0), search))
        inverse = reciprocal(from_half(half))
        for quarter in range(4):
            store_ints(words, quarter * LANES, packed(tile, 4 * quarter, inverse))
        store_shorts(half, scratch.places, 0)
        transpose_out(words, 0, scratch.places, 2, 4)


@inner
def packed(tile: Memory, at: int, inverse: Floats) -> Ints:
    """Four bytes of levels: weights at ... at + 3 in the low halves, those 16 further in the high ones."""
    word = ints(0)
    for byte in range(4):
        a = nearest(load(tile, X + (at + byte) * LANES) * inverse)
        b = nearest(load(tile, X + (at + byte + 16) * LANES) * inverse)
        word = word | shift_left(a | shift_left(b, 4), 8 * byte)
    return word

"""Q4_0, Q5_0, Q4_1, Q5_1 and Q8_0: blocks of 32 weights with binary16 scales of their own.

Bytes of a block: scale, for Q4_1 and Q5_1 the minimum, for Q5_0 and Q5_1 four bytes of fifth bits, 16 bytes of
four-bit levels (the first 16 weights in the low halves); for Q8_0 scale and 32 bytes. Source: ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.affine import level, sub_block
from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Memory,
    absolute,
    floats,
    ints,
    load,
    maximum,
    shift_left,
    shift_right,
    store,
    store_ints,
    store_shorts,
    to_ints,
    transpose_out,
    truncated,
    where,
)
from llamacli.quantize.fast.symmetric import Levels, integer_level, searches
from llamacli.quantize.fast.tiles import (
    Blocks,
    Scratch,
    Search,
    W,
    X,
    from_half,
    load_tile,
    place_tile,
    reciprocal,
    to_half,
)
from llamacli.quantize.fast.weights import weigh_by_importance, weigh_by_size

SIZE = 32
LOW, HIGH = 0, 4
"""Where the words of the low four bits and of the fifth bits begin."""

_symmetric_scale = searches(integer_level).sub_block


@entry
def quantize_q40_q50(blocks: Blocks, five: int, search: Search, scratch: Scratch) -> None:
    """All blocks as Q4_0 (five = 0) or Q5_0 (five = 1): x ~ scale * (l - 8) or scale * (l - 16)."""
    tile, words = scratch.tile, scratch.words
    half_range = 16.0 if five else 8.0
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, SIZE, first, tile, scratch.starts)
        place_tile(blocks, 18 + 4 * five, first, scratch.places)
        weigh(blocks, tile, search)
        scale = to_half(_symmetric_scale(tile, 0, SIZE, Levels(0 - half_range, half_range - 1), search))
        inverse = reciprocal(from_half(scale))
        for i in range(SIZE):
            value = integer_level(load(tile, X + i * LANES) * inverse, floats(0 - half_range), floats(half_range - 1))
            store(tile, W + i * LANES, value + floats(half_range))
        pack(tile, words)
        store_shorts(scale, scratch.places, 0)
        if five:
            transpose_out(words, HIGH * LANES, scratch.places, 2, 1)
        transpose_out(words, LOW * LANES, scratch.places, 2 + 4 * five, 4)


@entry
def quantize_q41_q51(blocks: Blocks, five: int, search: Search, scratch: Scratch) -> None:
    """All blocks as Q4_1 (five = 0) or Q5_1 (five = 1): x ~ scale * l + minimum."""
    tile, words = scratch.tile, scratch.words
    top = 31.0 if five else 15.0
    free = floats(0) < floats(0)
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, SIZE, first, tile, scratch.starts)
        place_tile(blocks, 20 + 4 * five, first, scratch.places)
        weigh(blocks, tile, search)
        slope, offset, _, _ = sub_block(tile, 0, SIZE, top, free, search)
        scale, least = to_half(slope), to_half(offset)
        inverse = reciprocal(from_half(scale))
        shift = (floats(0) - from_half(least)) * inverse
        for i in range(SIZE):
            store(tile, W + i * LANES, level(load(tile, X + i * LANES), inverse, shift, floats(top)))
        pack(tile, words)
        store_ints(words, 8 * LANES, scale | shift_left(least, 16))
        transpose_out(words, 8 * LANES, scratch.places, 0, 1)
        if five:
            transpose_out(words, HIGH * LANES, scratch.places, 4, 1)
        transpose_out(words, LOW * LANES, scratch.places, 4 + 4 * five, 4)


@entry
def quantize_q80(blocks: Blocks, variant: int, search: Search, scratch: Scratch) -> None:
    """All blocks as Q8_0, bit for bit as ggml: the largest weight becomes 127, halves are rounded away from zero."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, SIZE, first, tile, scratch.starts)
        place_tile(blocks, 34, first, scratch.places)
        largest = floats(0)
        for i in range(SIZE):
            largest = maximum(absolute(load(tile, X + i * LANES)), largest)
        scale = largest / floats(127)
        inverse = reciprocal(scale)
        for k in range(8):
            word = ints(0)
            for byte in range(4):
                value = rounded_away(load(tile, X + (4 * k + byte) * LANES) * inverse)
                word = word | shift_left(to_ints(value) & ints(255), 8 * byte)
            store_ints(words, k * LANES, word)
        store_shorts(to_half(scale), scratch.places, 0)
        transpose_out(words, 0, scratch.places, 2, 8)


@inner
def rounded_away(value: Floats) -> Floats:
    """To the nearest integer from -127 to 127, halves away from zero."""
    whole = truncated(integer_bound(value))
    rest = absolute(value - whole)
    away = where(value < floats(0), floats(-1), floats(1))
    return integer_bound(where(rest < floats(0.5), whole, whole + away))


@inner
def integer_bound(value: Floats) -> Floats:
    """Clamped to what one byte holds; NaN becomes 127."""
    low = where(value < floats(-127), floats(-127), value)
    return where(low < floats(127), low, floats(127))


@inner
def weigh(blocks: Blocks, tile: Memory, search: Search) -> None:
    """How much each error counts."""
    if blocks.importance != 0:
        weigh_by_importance(tile, SIZE, 1.0 + search.flatness)
    else:
        weigh_by_size(tile, 1, SIZE, search.flatness)


@inner
def pack(tile: Memory, words: Memory) -> None:
    """Levels in W to words: LOW to LOW + 3 the low four bits, HIGH the fifth bit of each weight."""
    fifth = ints(0)
    for k in range(4):
        word = ints(0)
        for byte in range(4):
            i = 4 * k + byte
            a, b = to_ints(load(tile, W + i * LANES)), to_ints(load(tile, W + (i + 16) * LANES))
            word = word | shift_left((a & ints(15)) | shift_left(b & ints(15), 4), 8 * byte)
            fifth = fifth | shift_left(shift_right(a, 4), i) | shift_left(shift_right(b, 4), i + 16)
        store_ints(words, (LOW + k) * LANES, word)
    store_ints(words, HIGH * LANES, fifth)

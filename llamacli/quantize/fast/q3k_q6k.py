"""Q3_K and Q6_K: super-blocks of 256 weights in sixteen sub-blocks of 16, each with a signed scale code.

Levels go from -4 to 3 and from -32 to 31, codes have 6 and 8 bits, a binary16 scale belongs to the block. Bytes of
Q3_K: 32 of third bits, 64 of the lower two, 12 of codes, scale; of Q6_K: 128 of the lower four bits, 64 of the upper
two, 16 of codes, scale. Source: ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Memory,
    floats,
    fma,
    ints,
    load,
    shift_left,
    shift_right,
    store,
    store_ints,
    store_shorts,
    to_ints,
    transpose_out,
)
from llamacli.quantize.fast.symmetric import Levels, integer_level, searches
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
    lost_size,
    place_tile,
    reciprocal,
    stretched,
)
from llamacli.quantize.fast.weights import weigh_by_importance, weigh_by_square

_super_block = searches(integer_level).super_block

CODES = 48
"""Where the words of the scale codes begin."""


@entry
def quantize_q3k_q6k(blocks: Blocks, three: int, search: Search, scratch: Scratch) -> None:
    """All blocks as Q6_K (three = 0) or Q3_K (three = 1)."""
    tile, words = scratch.tile, scratch.words
    levels = Levels(-4.0, 3.0) if three else Levels(-32.0, 31.0)
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, BLOCK, first, tile, scratch.starts)
        place_tile(blocks, 110 if three else 210, first, scratch.places)
        if blocks.importance == 0:
            weigh_by_square(tile, 16, 16, search.flatness)
        elif three:
            weigh_by_importance(tile, BLOCK, 2.0 + search.flatness)
        half = _super_block(tile, 16, 16, levels, 32.0 if three else 128.0, search)
        invert_scales(tile, from_half(half))
        if search.stretch > 1:
            half = stretched(half, size_lost(tile, from_half(half), levels, search.stretch))
        if three:
            pack_q3k(tile, words)
            transpose_out(words, 16 * LANES, scratch.places, 0, 8)
            transpose_out(words, 0, scratch.places, 32, 16)
            transpose_out(words, CODES * LANES, scratch.places, 96, 3)
            store_shorts(half, scratch.places, 108)
        else:
            pack_q6k(tile, words)
            transpose_out(words, 0, scratch.places, 0, 16)
            transpose_out(words, 16 * LANES, scratch.places, 64, 16)
            transpose_out(words, 32 * LANES, scratch.places, 128, 16)
            transpose_out(words, CODES * LANES, scratch.places, 192, 4)
            store_shorts(half, scratch.places, 208)


@inner
def invert_scales(tile: Memory, scale: Floats) -> None:
    """Replace SCALE by the inverse of what each sub-block's code stands for."""
    for j in range(16):
        store(tile, SCALE + j * LANES, reciprocal(scale * load(tile, SCALE_CODE + j * LANES)))


@inner
def size_lost(tile: Memory, scale: Floats, levels: Levels, stretch: float) -> Floats:
    """How far the block is to be stretched, after `invert_scales`."""
    squares, product = floats(0), floats(0)
    for i in range(BLOCK):
        part = i // 16 * LANES
        x, w = load(tile, X + i * LANES), load(tile, W + i * LANES)
        number = integer_level(x * load(tile, SCALE + part), floats(levels.low), floats(levels.high))
        value = number * (scale * load(tile, SCALE_CODE + part))
        squares, product = fma(w * x, x, squares), fma(w * x, value, product)
    return lost_size(squares, product, stretch)


@inner
def stored_level(tile: Memory, i: int, low: float, high: float) -> Ints:
    """The level of weight i, counted from the lowest."""
    inverse = load(tile, SCALE + i // 16 * LANES)
    value = integer_level(load(tile, X + i * LANES) * inverse, floats(low), floats(high))
    return to_ints(value - floats(low))


@inner
def pack_q6k(tile: Memory, words: Memory) -> None:
    """Words 0 to 31 the low four bits, 32 to 47 the upper two, CODES to CODES + 3 the codes."""
    low_bits = ints(15)
    for half in range(2):
        for k in range(8):
            first, second, high = ints(0), ints(0), ints(0)
            for byte in range(4):
                i = half * 128 + 4 * k + byte
                a, b = stored_level(tile, i, -32.0, 31.0), stored_level(tile, i + 32, -32.0, 31.0)
                c, d = stored_level(tile, i + 64, -32.0, 31.0), stored_level(tile, i + 96, -32.0, 31.0)
                first = first | shift_left((a & low_bits) | shift_left(c & low_bits, 4), 8 * byte)
                second = second | shift_left((b & low_bits) | shift_left(d & low_bits, 4), 8 * byte)
                upper = shift_right(a, 4) | shift_left(shift_right(b, 4), 2)
                upper = upper | shift_left(shift_right(c, 4), 4) | shift_left(shift_right(d, 4), 6)
                high = high | shift_left(upper, 8 * byte)
            store_ints(words, (half * 16 + k) * LANES, first)
            store_ints(words, (half * 16 + 8 + k) * LANES, second)
            store_ints(words, (32 + half * 8 + k) * LANES, high)
    for k in range(4):
        word = ints(0)
        for byte in range(4):
            code = to_ints(load(tile, SCALE_CODE + (4 * k + byte) * LANES))
            word = word | shift_left(code & ints(255), 8 * byte)
        store_ints(words, (CODES + k) * LANES, word)


@inner
def pack_q3k(tile: Memory, words: Memory) -> None:
    """Words 0 to 15 the lower two bits, 16 to 23 the third, CODES to CODES + 2 the codes."""
    for k in range(8):
        high = ints(0)
        for half in range(2):
            low = ints(0)
            for byte in range(4):
                for quarter in range(4):
                    value = stored_level(tile, half * 128 + quarter * 32 + 4 * k + byte, -4.0, 3.0)
                    low = low | shift_left(value & ints(3), 8 * byte + 2 * quarter)
                    high = high | shift_left(shift_right(value, 2), 8 * byte + quarter + 4 * half)
            store_ints(words, (half * 8 + k) * LANES, low)
        store_ints(words, (16 + k) * LANES, high)
    first, second, third = ints(0), ints(0), ints(0)
    low_bits = ints(15)
    for j in range(4):
        a, b = code_from_zero(tile, j), code_from_zero(tile, j + 4)
        c, d = code_from_zero(tile, j + 8), code_from_zero(tile, j + 12)
        first = first | shift_left((a & low_bits) | shift_left(c & low_bits, 4), 8 * j)
        second = second | shift_left((b & low_bits) | shift_left(d & low_bits, 4), 8 * j)
        upper = shift_right(a, 4) | shift_left(shift_right(b, 4), 2)
        upper = upper | shift_left(shift_right(c, 4), 4) | shift_left(shift_right(d, 4), 6)
        third = third | shift_left(upper, 8 * j)
    store_ints(words, CODES * LANES, first)
    store_ints(words, (CODES + 1) * LANES, second)
    store_ints(words, (CODES + 2) * LANES, third)


@inner
def code_from_zero(tile: Memory, j: int) -> Ints:
    """Q3_K stores its codes counted from -32."""
    return to_ints(load(tile, SCALE_CODE + j * LANES)) + ints(32)

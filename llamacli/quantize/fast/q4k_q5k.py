"""Q4_K and Q5_K: super-blocks of 256 weights in eight sub-blocks of 32, each with a 6-bit scale and minimum.

Bytes of a block: binary16 scale and scale of the minima, 12 bytes of 6-bit codes, for Q5_K 32 bytes of fifth bits,
128 bytes of four-bit levels (two sub-blocks share 32 bytes: the first in the low halves). Source: ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.affine import level, super_block
from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Memory,
    floats,
    ints,
    load,
    load_ints,
    shift_left,
    shift_right,
    store_ints,
    to_ints,
    transpose_out,
)
from llamacli.quantize.fast.tiles import (
    BLOCK,
    LEAST_CODE,
    SCALE_CODE,
    Blocks,
    Scratch,
    Search,
    X,
    from_half,
    load_tile,
    place_tile,
    reciprocal,
)
from llamacli.quantize.fast.weights import weigh_by_importance, weigh_by_size

HIGH, HEAD = 48, 32
"""Where the fifth bits and the first 16 bytes begin among the output words."""


@entry
def quantize_q4k_q5k(blocks: Blocks, five: int, search: Search, scratch: Scratch) -> None:
    """All blocks as Q4_K (five = 0) or Q5_K (five = 1)."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, BLOCK, first, tile, scratch.starts)
        place_tile(blocks, 144 + 32 * five, first, scratch.places)
        if blocks.importance != 0:
            weigh_by_importance(tile, BLOCK, 2.0 + search.flatness)
        else:
            weigh_by_size(tile, 8, 32, search.flatness)
        scale, least = super_block(tile, 8, 32, 31.0 if five else 15.0, 63.0, search)
        pack_levels(tile, words, from_half(scale), from_half(least), five)
        pack_head(tile, words, scale | shift_left(least, 16))
        transpose_out(words, HEAD * LANES, scratch.places, 0, 4)
        if five:
            transpose_out(words, HIGH * LANES, scratch.places, 16, 8)
        transpose_out(words, 0, scratch.places, 16 + 32 * five, 16)
        transpose_out(words, 16 * LANES, scratch.places, 80 + 32 * five, 16)


@inner
def pack_levels(tile: Memory, words: Memory, scale: Floats, least: Floats, five: int) -> None:
    """The levels of all weights: words 0 to 31 the low four bits, words HIGH to HIGH + 7 the fifth."""
    top = floats(31 if five else 15)
    for k in range(8):
        store_ints(words, (HIGH + k) * LANES, ints(0))
    for pair in range(4):
        code, least_code = SCALE_CODE + 2 * pair * LANES, LEAST_CODE + 2 * pair * LANES
        ia = reciprocal(scale * load(tile, code))
        ba = least * load(tile, least_code) * ia
        ib = reciprocal(scale * load(tile, code + LANES))
        bb = least * load(tile, least_code + LANES) * ib
        for k in range(8):
            word, high = ints(0), ints(0)
            for byte in range(4):
                at = X + (64 * pair + 4 * k + byte) * LANES
                a = to_ints(level(load(tile, at), ia, ba, top))
                b = to_ints(level(load(tile, at + 32 * LANES), ib, bb, top))
                high = high | shift_left(shift_right(a, 4) | shift_left(shift_right(b, 4), 1), 8 * byte)
                word = word | shift_left((a & ints(15)) | shift_left(b & ints(15), 4), 8 * byte)
            store_ints(words, (8 * pair + k) * LANES, word)
            fifth = (HIGH + k) * LANES
            store_ints(words, fifth, load_ints(words, fifth) | shift_left(high, 2 * pair))


@inner
def pack_head(tile: Memory, words: Memory, scales: Ints) -> None:
    """Both binary16 scales and the 6-bit codes: four in full, the upper two bits of the other four above them."""
    first, second, third = ints(0), ints(0), ints(0)
    for j in range(4):
        n, n4 = to_ints(load(tile, SCALE_CODE + j * LANES)), to_ints(load(tile, SCALE_CODE + (j + 4) * LANES))
        k, k4 = to_ints(load(tile, LEAST_CODE + j * LANES)), to_ints(load(tile, LEAST_CODE + (j + 4) * LANES))
        first = first | shift_left(n | shift_left(shift_right(n4, 4), 6), 8 * j)
        second = second | shift_left(k | shift_left(shift_right(k4, 4), 6), 8 * j)
        third = third | shift_left((n4 & ints(15)) | shift_left(k4 & ints(15), 4), 8 * j)
    store_ints(words, HEAD * LANES, scales)
    store_ints(words, (HEAD + 1) * LANES, first)
    store_ints(words, (HEAD + 2) * LANES, second)
    store_ints(words, (HEAD + 3) * LANES, third)

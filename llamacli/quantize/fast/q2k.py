"""Q2_K: super-blocks of 256 weights in sixteen sub-blocks of 16, each with a 4-bit scale and minimum.

Bytes of a block: 16 of codes (scale in the low half, minimum in the high), 64 of two-bit levels (four sub-block pairs
share 32 bytes), binary16 scale and scale of the minima. Source: ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.affine import level, super_block
from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Memory,
    floats,
    fma,
    ints,
    load,
    shift_left,
    store,
    store_ints,
    to_ints,
    transpose_out,
)
from llamacli.quantize.fast.tiles import (
    BLOCK,
    LEAST,
    LEAST_CODE,
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
from llamacli.quantize.fast.weights import weigh_by_importance, weigh_by_size

CODES, HALVES = 16, 20
"""Where the words of the codes and of the scales begin."""


@entry
def quantize_q2k(blocks: Blocks, variant: int, search: Search, scratch: Scratch) -> None:
    """All blocks as Q2_K."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, BLOCK, first, tile, scratch.starts)
        place_tile(blocks, 84, first, scratch.places)
        if blocks.importance != 0:
            weigh_by_importance(tile, BLOCK, 1.0 + search.flatness)
        else:
            weigh_by_size(tile, 16, 16, search.flatness)
        scale, least = super_block(tile, 16, 16, 3.0, 15.0, search)
        prepare(tile, from_half(scale), from_half(least))
        pack_levels(tile, words)
        for k in range(4):
            word = ints(0)
            for byte in range(4):
                at = (4 * k + byte) * LANES
                both = to_ints(load(tile, SCALE_CODE + at)) | shift_left(to_ints(load(tile, LEAST_CODE + at)), 4)
                word = word | shift_left(both, 8 * byte)
            store_ints(words, (CODES + k) * LANES, word)
        if search.stretch > 1:
            stretch = size_lost(tile, from_half(scale), from_half(least), search.stretch)
            scale, least = stretched(scale, stretch), stretched(least, stretch)
        store_ints(words, HALVES * LANES, scale | shift_left(least, 16))
        transpose_out(words, CODES * LANES, scratch.places, 0, 4)
        transpose_out(words, 0, scratch.places, 16, 16)
        transpose_out(words, HALVES * LANES, scratch.places, 80, 1)


@inner
def prepare(tile: Memory, scale: Floats, least: Floats) -> None:
    """Replace SCALE and LEAST by the inverse scale and the shift of each sub-block's levels."""
    for j in range(16):
        inverse = reciprocal(scale * load(tile, SCALE_CODE + j * LANES))
        store(tile, SCALE + j * LANES, inverse)
        store(tile, LEAST + j * LANES, least * load(tile, LEAST_CODE + j * LANES) * inverse)


@inner
def size_lost(tile: Memory, scale: Floats, least: Floats, stretch: float) -> Floats:
    """How far the block is to be stretched, after `prepare`."""
    squares, product = floats(0), floats(0)
    for i in range(BLOCK):
        part = i // 16 * LANES
        x, w = load(tile, X + i * LANES), load(tile, W + i * LANES)
        number = level(x, load(tile, SCALE + part), load(tile, LEAST + part), floats(3))
        drop = least * load(tile, LEAST_CODE + part)
        value = fma(number, scale * load(tile, SCALE_CODE + part), floats(0) - drop)
        squares, product = fma(w * x, x, squares), fma(w * x, value, product)
    return lost_size(squares, product, stretch)


@inner
def pack_levels(tile: Memory, words: Memory) -> None:
    """Words 0 to 15: byte l of half h holds weights l, l + 32, l + 64 and l + 96 of that half."""
    for half in range(2):
        for k in range(8):
            word = ints(0)
            for byte in range(4):
                for quarter in range(4):
                    i = half * 128 + quarter * 32 + 4 * k + byte
                    inverse, shift = load(tile, SCALE + i // 16 * LANES), load(tile, LEAST + i // 16 * LANES)
                    value = to_ints(level(load(tile, X + i * LANES), inverse, shift, floats(3)))
                    word = word | shift_left(value, 8 * byte + 2 * quarter)
            store_ints(words, (half * 8 + k) * LANES, word)

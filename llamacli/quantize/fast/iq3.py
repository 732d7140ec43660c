"""IQ3_S and IQ3_XXS: super-blocks of 256 weights, eight sub-blocks of 32, four weights to a codebook index.

Bytes of IQ3_S: binary16 scale, 64 of low index bits, 8 of ninth bits, 32 of signs, 4 of scale codes. Bytes of IQ3_XXS:
scale, 64 of indices, and for each sub-block four times seven signs and the scale code in one word. Source:
ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.codebooks import BOOKS, Books
from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.grouped import INDEX, SIGNS, code_bits, nibbles, searches
from llamacli.quantize.fast.lanes import (
    LANES,
    Memory,
    ints,
    load_ints,
    shift_left,
    shift_right,
    store_ints,
    store_shorts,
    transpose_out,
)
from llamacli.quantize.fast.tiles import BLOCK, Blocks, Scratch, Search, load_tile, place_tile
from llamacli.quantize.fast.weights import weigh_by_importance, weigh_by_square

_super_block_s = searches(BOOKS["IQ3_S"].values, 4, 3).super_block
_super_block_xxs = searches(BOOKS["IQ3_XXS"].values, 4, 3).super_block

OUT = 96
"""Where the words to write begin."""


@entry
def quantize_iq3s(blocks: Blocks, variant: int, search: Search, scratch: Scratch, books: Books) -> None:
    """All blocks as IQ3_S."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        begin(blocks, tile, scratch, first, 110, search)
        half = _super_block_s(tile, words, 8, 32, 0, books, search)
        store_shorts(half, scratch.places, 0)
        low_indices(words)
        transpose_out(words, OUT * LANES, scratch.places, 2, 16)
        for k in range(2):
            word = ints(0)
            for i in range(32):
                ninth = shift_right(load_ints(words, (INDEX + 32 * k + i) * LANES), 8)
                word = word | shift_left(ninth, i)
            store_ints(words, (OUT + k) * LANES, word)
        for k in range(8):
            word = ints(0)
            for byte in range(4):
                word = word | shift_left(load_ints(words, (SIGNS + 4 * k + byte) * LANES), 8 * byte)
            store_ints(words, (OUT + 2 + k) * LANES, word)
        nibbles(tile, words, OUT + 10, 1)
        transpose_out(words, OUT * LANES, scratch.places, 66, 11)


@entry
def quantize_iq3xxs(blocks: Blocks, variant: int, search: Search, scratch: Scratch, books: Books) -> None:
    """All blocks as IQ3_XXS."""
    tile, words = scratch.tile, scratch.words
    for first in range(0, blocks.total, LANES):
        begin(blocks, tile, scratch, first, 98, search)
        half = _super_block_xxs(tile, words, 8, 32, 1, books, search)
        store_shorts(half, scratch.places, 0)
        low_indices(words)
        transpose_out(words, OUT * LANES, scratch.places, 2, 16)
        for j in range(8):
            word = shift_left(code_bits(tile, j), 28)
            for k in range(4):
                word = word | shift_left(load_ints(words, (SIGNS + 4 * j + k) * LANES) & ints(127), 7 * k)
            store_ints(words, (OUT + j) * LANES, word)
        transpose_out(words, OUT * LANES, scratch.places, 66, 8)


@inner
def begin(blocks: Blocks, tile: Memory, scratch: Scratch, first: int, block_bytes: int, search: Search) -> None:
    """Load a tile and weigh its errors."""
    load_tile(blocks, BLOCK, first, tile, scratch.starts)
    place_tile(blocks, block_bytes, first, scratch.places)
    if blocks.importance != 0:
        weigh_by_importance(tile, BLOCK, 2.0 + search.flatness)
    else:
        weigh_by_square(tile, 1, BLOCK, search.flatness)


@inner
def low_indices(words: Memory) -> None:
    """OUT to OUT + 15: the low eight bits of the 64 indices."""
    for k in range(16):
        word = ints(0)
        for byte in range(4):
            index = load_ints(words, (INDEX + 4 * k + byte) * LANES)
            word = word | shift_left(index & ints(255), 8 * byte)
        store_ints(words, (OUT + k) * LANES, word)

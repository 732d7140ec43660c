"""IQ2_XXS, IQ2_XS and IQ2_S: super-blocks of 256 weights, eight weights to a codebook index.

Sub-blocks have 32 weights (XXS) or 16. Bytes of a block after the binary16 scale: XXS for each 32 weights four
indices, four times seven signs and the scale code in 8 bytes; XS 32 times nine bits of index and seven signs, 8 bytes
of codes; S 32 of low index bits, 32 of signs, 8 of upper index bits, 8 of codes. Source: ggml-common.h.
"""

from __future__ import annotations

from llamacli.quantize.fast.codebooks import BOOKS, Books
from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.grouped import INDEX, SIGNS, code_bits, nibbles, searches
from llamacli.quantize.fast.lanes import (
    LANES,
    Ints,
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

_super_block = searches(BOOKS["IQ2_S"].values, 8, 2).super_block

XXS, XS, S = 0, 1, 2
"""Variants."""
OUT = 96
"""Where the words to write begin."""


@entry
def quantize_iq2(blocks: Blocks, variant: int, search: Search, scratch: Scratch, books: Books) -> None:
    """All blocks as IQ2_XXS, IQ2_XS or IQ2_S."""
    tile, words = scratch.tile, scratch.words
    size = 66 if variant == XXS else 74 if variant == XS else 82
    parts = 8 if variant == XXS else 16
    for first in range(0, blocks.total, LANES):
        load_tile(blocks, BLOCK, first, tile, scratch.starts)
        place_tile(blocks, size, first, scratch.places)
        if blocks.importance != 0:
            weigh_by_importance(tile, BLOCK, (2.0 if variant == S else 1.0) + search.flatness)
        else:
            weigh_by_square(tile, 1, BLOCK, search.flatness)
        even = 0 if variant == S else 1
        half = _super_block(tile, words, parts, BLOCK // parts, even, books, search)
        store_shorts(half, scratch.places, 0)
        if variant == XXS:
            pack_xxs(tile, words)
            transpose_out(words, OUT * LANES, scratch.places, 2, 16)
        elif variant == XS:
            pack_xs(words)
            transpose_out(words, OUT * LANES, scratch.places, 2, 16)
            nibbles(tile, words, OUT, 2)
            transpose_out(words, OUT * LANES, scratch.places, 66, 2)
        else:
            pack_s(words)
            transpose_out(words, OUT * LANES, scratch.places, 2, 16)
            upper_bits(words)
            nibbles(tile, words, OUT + 2, 2)
            transpose_out(words, OUT * LANES, scratch.places, 66, 4)


@inner
def index(words: Memory, eight: int) -> Ints:
    """The codebook index of eight weights."""
    return load_ints(words, (INDEX + eight) * LANES)


@inner
def signs(words: Memory, eight: int) -> Ints:
    """The sign bits of eight weights."""
    return load_ints(words, (SIGNS + eight) * LANES)


@inner
def pack_xxs(tile: Memory, words: Memory) -> None:
    """Two words for each 32 weights: four indices; four times seven signs and the scale code."""
    for j in range(8):
        low, high = ints(0), shift_left(code_bits(tile, j), 28)
        for k in range(4):
            low = low | shift_left(index(words, 4 * j + k), 8 * k)
            high = high | shift_left(signs(words, 4 * j + k) & ints(127), 7 * k)
        store_ints(words, (OUT + 2 * j) * LANES, low)
        store_ints(words, (OUT + 2 * j + 1) * LANES, high)


@inner
def pack_xs(words: Memory) -> None:
    """Sixteen bits for eight weights: index and seven signs above it."""
    for k in range(16):
        low = index(words, 2 * k) | shift_left(signs(words, 2 * k) & ints(127), 9)
        high = index(words, 2 * k + 1) | shift_left(signs(words, 2 * k + 1) & ints(127), 9)
        store_ints(words, (OUT + k) * LANES, low | shift_left(high, 16))


@inner
def pack_s(words: Memory) -> None:
    """Eight words of low index bits, eight of signs."""
    for k in range(8):
        low, high = ints(0), ints(0)
        for byte in range(4):
            low = low | shift_left(index(words, 4 * k + byte) & ints(255), 8 * byte)
            high = high | shift_left(signs(words, 4 * k + byte), 8 * byte)
        store_ints(words, (OUT + k) * LANES, low)
        store_ints(words, (OUT + 8 + k) * LANES, high)


@inner
def upper_bits(words: Memory) -> None:
    """Two words with the upper two bits of all 32 indices."""
    for k in range(2):
        word = ints(0)
        for i in range(16):
            word = word | shift_left(shift_right(index(words, 16 * k + i), 8), 2 * i)
        store_ints(words, (OUT + k) * LANES, word)

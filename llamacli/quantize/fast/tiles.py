"""A tile: 16 blocks of weights side by side, one per lane, and the scratch memory of a thread.

A block of 256 (or 32) weights is one lane; the tile is transposed on the way in, so that weight i of all 16 blocks is
one vector and every sum over a block is plain vertical arithmetic. 256 x 16 float32 are 16 KiB and stay in the first
cache; as many weights of the errors lie beside them.

Lanes never mix, so a block's bytes do not depend on its neighbours. Past the end, the last block fills the lanes.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from llamacli.quantize.fast.compiled import inner
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Ints,
    Memory,
    absolute,
    bits_of,
    floats,
    floats_of_bits,
    fma,
    ints,
    load,
    maximum,
    minimum,
    rounded,
    shift_left,
    shift_right,
    to_ints,
    transpose_in,
    where,
)

F32, F16, BF16 = 0, 1, 2
"""How the weights are stored."""

Number = TypeVar("Number", bound=np.generic)

BLOCK = 256
X = 0
"""Where the weights of a tile begin in the scratch floats; weight i of the lanes is at X + 16*i."""
W = X + BLOCK * LANES
"""Where the importance begins, replaced by how much each error counts."""
ROWS = W + BLOCK * LANES
"""Where the per-sub-block values begin: sixteen vectors for each of them."""
SCALE, LEAST, WEIGHT, MOMENT, SCALE_CODE, LEAST_CODE = (ROWS + k * 16 * LANES for k in range(6))
"""Per sub-block j, at NAME + 16*j: scale, minimum, sum of w, sum of w*x, and the integers stored for the first two."""

ODD = ROWS + 6 * 16 * LANES
"""Per eight weights of a codebook type: 1 where one of their signs must be turned, else 0."""
HALVES = ODD + 32 * LANES
"""Where the errors of half groups begin, when whole codebooks are weighed (see `complete`)."""

FLOAT_COUNT = HALVES + 448 * LANES
WORD_COUNT = 128 * LANES
LARGEST_HALF = 65504.0


class Scratch(NamedTuple):
    """One thread's memory, aligned to cache lines, made once; kernels allocate nothing."""

    tile: NDArray[np.float32]
    words: NDArray[np.int32]
    starts: NDArray[np.int64]
    """Addresses of the 16 blocks' weights, then of their importance."""
    places: NDArray[np.int64]
    """Addresses of the 16 blocks' bytes."""


def new_scratch() -> Scratch:
    """Memory for one thread, about 80 KiB."""
    return Scratch(
        aligned(FLOAT_COUNT, np.float32),
        aligned(WORD_COUNT, np.int32),
        aligned(LANES, np.int64),
        aligned(LANES, np.int64),
    )


def aligned(count: int, dtype: type[Number]) -> NDArray[Number]:
    """An array of zeros that begins at a cache line."""
    size = count * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    skip = -memory.ctypes.data % 64
    return memory[skip : skip + size].view(dtype)


class Blocks(NamedTuple):
    """What an entry works on. Addresses are plain integers; the caller keeps the memory alive and checks its size."""

    source: int
    """Address of the weights: `total` blocks, one after the other."""
    storage: int
    """F32, F16 or BF16."""
    importance: int
    """Address of a float32 per column, or 0 when there is none."""
    per_row: int
    """Blocks in a row."""
    total: int
    """Blocks in all rows; at least 1."""
    out: int
    """Address of the result."""


class Search(NamedTuple):
    """How hard to look for the scale of a sub-block."""

    grid: NDArray[np.float32]
    """Candidates, a multiple of three of them; what they multiply depends on the kind of search."""
    step: float
    """Relative distance of the two neighbours that a local step tries."""
    steps: int
    """Local steps around the best candidate, each closer than the one before."""
    rounds: int
    """Times that all scales of a block are refined together."""
    flatness: float
    """Without importance: how far the errors' weights are drawn from ggml's towards equal ones."""
    stretch: float
    """Types of three bits and fewer: by how much more than least squares says the block's scales are."""


@inner
def load_tile(blocks: Blocks, size: int, first: int, tile: Memory, starts: Memory) -> None:
    """Blocks first to first + 15 of `size` weights each into X, and their importance, if any, into W."""
    width = 4 if blocks.storage == F32 else 2
    for lane in range(LANES):
        starts[lane] = blocks.source + min(first + lane, blocks.total - 1) * size * width
    for column in range(0, size, LANES):
        if blocks.storage == BF16:
            transpose_in("bf16", starts, column, tile, X + column * LANES)
        elif blocks.storage == F16:
            transpose_in("f16", starts, column, tile, X + column * LANES)
        else:
            transpose_in("f32", starts, column, tile, X + column * LANES)
    if blocks.importance != 0:
        for lane in range(LANES):
            starts[lane] = blocks.importance + min(first + lane, blocks.total - 1) % blocks.per_row * size * 4
        for column in range(0, size, LANES):
            transpose_in("f32", starts, column, tile, W + column * LANES)


@inner
def place_tile(blocks: Blocks, block_bytes: int, first: int, places: Memory) -> None:
    """The addresses where the bytes of the 16 blocks belong."""
    for lane in range(LANES):
        places[lane] = blocks.out + min(first + lane, blocks.total - 1) * block_bytes


@inner
def mean_square(tile: Memory, start: int, count: int) -> Floats:
    """Mean of x*x over `count` weights."""
    total = floats(0)
    for i in range(count):
        x = load(tile, start + i * LANES)
        total = fma(x, x, total)
    return total * floats(1.0 / count)


@inner
def to_half(value: Floats) -> Ints:
    """Binary16 bit patterns, rounded to nearest even; what exceeds its range (or is NaN) becomes its largest value.

    A normal number is rounded by adding just under half of the last kept bit; a subnormal is a multiple of 2^-24.
    """
    magnitude = minimum(absolute(value), floats(LARGEST_HALF))
    bits = bits_of(magnitude)
    odd = shift_right(bits, 13) & ints(1)
    normal = shift_right(bits + ints(0xFFF) + odd, 13) - ints(112 << 10)
    subnormal = to_ints(rounded(minimum(magnitude, floats(2.0**-14)) * floats(2.0**24)))
    code = where(magnitude < floats(2.0**-14), subnormal, normal)
    return code | (shift_right(bits_of(value), 16) & ints(0x8000))


@inner
def from_half(code: Ints) -> Floats:
    """The float32 value of finite binary16 bit patterns."""
    magnitude = shift_left(code & ints(0x7FFF), 13)
    normal = floats_of_bits(magnitude + ints(112 << 23))
    subnormal = floats_of_bits(magnitude + ints(113 << 23)) - floats(2.0**-14)
    value = where(magnitude < ints(1 << 23), subnormal, normal)
    return floats_of_bits(bits_of(value) | shift_left(code & ints(0x8000), 16))


@inner
def stretched(code: Ints, stretch: Floats) -> Ints:
    """`stretch` times a binary16 scale, for levels that were chosen without it."""
    return to_half(from_half(code) * stretch)


@inner
def lost_size(squares: Floats, product: Floats, stretch: float) -> Floats:
    """How far to stretch, at most `stretch`: until sum w*x*v is sum w*x*x again, and not where nothing was lost."""
    known = product > floats(0)
    lost = where(known, squares, floats(1)) / where(known, product, floats(1))
    return maximum(minimum(lost, floats(stretch)), floats(1))


@inner
def reciprocal(value: Floats) -> Floats:
    """1 / value, and 0 where the value is 0."""
    none = value == floats(0)
    return where(none, floats(0), floats(1) / where(none, floats(1), value))

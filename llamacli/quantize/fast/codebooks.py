"""The codebooks of the IQ1, IQ2 and IQ3 types: which groups of levels exist, and which of them lie near a given one.

Four or eight weights share one index into a codebook of a few hundred groups. The engine knows the codebooks; they
are read from it by restoring one block for each index. Rounding every weight by itself gives one of 8^4 or 3^8 groups,
most of them not in the codebook, so the nearest that are have been listed for each beforehand.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.tensor_types import BY_NAME
from llamacli.quantize.ggml import ggml_rows

NEIGHBOURS = 16
"""How many groups of the codebook are tried for each group of rounded weights in the final choice."""


@dataclass(frozen=True)
class Book:
    """Where the index stands in a block, and what the levels stand for."""

    type_name: str
    values: tuple[float, ...]
    """What a level is worth, times the block's scale, times the sub-block's odd number."""
    group: int
    """Weights that share an index."""
    entries: int
    low: int
    """Byte of the first group's low eight index bits."""
    high: int
    """Byte of the bits above, or 0 when there are none."""

    @property
    def bits(self) -> int:
        """Bits of a level in a packed group."""
        return 16 // self.group if self.group == 8 else 3


BOOKS = {
    "IQ3_S": Book("IQ3_S", (1, 3, 5, 7, 9, 11, 13, 15), 4, 512, 2, 66),
    "IQ3_XXS": Book("IQ3_XXS", (1, 3, 5, 7, 9, 11, 13, 15.5), 4, 256, 2, 0),
    "IQ2_S": Book("IQ2_S", (1, 3.125, 5.375), 8, 1024, 2, 66),
    "IQ2_XS": Book("IQ2_XS", (1, 3.125, 5.375), 8, 512, 2, 3),
    "IQ2_XXS": Book("IQ2_XXS", (1, 3.125, 5.375), 8, 256, 2, 0),
    "IQ1_S": Book("IQ1_S", (-0.875, 0.125, 1.125), 8, 2048, 2, 34),  # IQ1_M has the same
}


@functools.cache
def nearest_and_near(name: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The nearest group of the codebook for each group of rounded weights, and its NEIGHBOURS nearest."""
    near = neighbours(name)
    return np.ascontiguousarray(near[::NEIGHBOURS]), near


def neighbours(name: str) -> NDArray[np.int32]:
    """For each group of rounded weights its NEIGHBOURS nearest in the codebook, nearest first, as packed groups.

    Group (l0, l1, ...) has the number l0 + l1*n + l2*n*n ... with n levels; its neighbours stand at
    NEIGHBOURS * number. A packed group holds its levels from the lowest bit and its codebook index from bit 16.
    """
    book = BOOKS[name]
    values = np.asarray(book.values, np.float32)
    levels = codebook_levels(name)
    packed = (levels << (book.bits * np.arange(book.group))).sum(1) | np.arange(book.entries) << 16
    numbers = np.arange(len(values) ** book.group)
    points = values[numbers[:, None] // len(values) ** np.arange(book.group) % len(values)]
    entries = values[levels]
    distances = (entries**2).sum(1) - 2 * points @ entries.T  # the points' own squares change no order
    # Values are eighths and the sums exact, so the order of equals is the codebook's on every machine.
    near = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
    return np.ascontiguousarray(packed[near].astype(np.int32).reshape(-1))


def codebook_levels(name: str) -> NDArray[np.int64]:
    """(entries, group): the levels of every entry, as the engine restores them."""
    book, kind = BOOKS[name], BY_NAME[name]
    blocks = np.zeros((book.entries, kind.block_bytes), np.uint8)
    index = np.arange(book.entries)
    blocks[:, 1] = 0x3C  # binary16 1.0
    blocks[:, book.low] = index & 255
    if book.high:
        blocks[:, book.high] = index >> 8
    restored = np.zeros((book.entries, kind.block_size), np.float32)
    engine = ggml_rows()
    engine.restore(name, blocks.ctypes.data, restored.ctypes.data, restored.size)
    found = restored[:, : book.group, None]  # the first group, whose signs and shift are positive
    levels: NDArray[np.int64] = np.abs(found - np.asarray(book.values, np.float32)).argmin(2)
    return levels

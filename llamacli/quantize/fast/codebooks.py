"""The codebooks of the IQ1, IQ2 and IQ3 types: which groups of levels exist, and which of them lie near a given one.

Four or eight weights share one index into a codebook of a few hundred groups. The engine knows the codebooks; they
are read from it by restoring one block for each index. Rounding every weight by itself gives one of 8^4 or 3^8 groups,
most of them not in the codebook, so the nearest that is has been listed for each beforehand.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.tensor_types import BY_NAME
from llamacli.quantize.fast.lanes import LANES
from llamacli.quantize.ggml import ggml_rows

NEIGHBOURS = 16
"""IQ1: how many groups of the codebook are tried for each group of rounded weights in the final choice."""


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


class Books(NamedTuple):
    """A codebook, for compiled code.

    Group (l0, l1, ...) has the number l0 + l1*n + l2*n*n ... with n levels. A packed group holds its levels from the
    lowest bit and its codebook index from bit 16.
    """

    nearest: NDArray[np.int32]
    """For each group of rounded weights, by its number, the nearest of the codebook, packed."""
    near: NDArray[np.int32]
    """IQ1: for each group of rounded weights its NEIGHBOURS nearest, nearest first, packed."""
    halves: NDArray[np.int32]
    """The numbers of each entry's two half groups, in vectors."""
    packed: NDArray[np.int32]
    """Each entry as a packed group."""


@functools.cache
def books_for(name: str) -> Books:
    """The codebook of a type."""
    book = BOOKS[name]
    values = np.asarray(book.values, np.float32)
    levels = codebook_levels(name)
    packed = ((levels << (book.bits * np.arange(book.group))).sum(1) | np.arange(book.entries) << 16).astype(np.int32)
    places = len(values) ** np.arange(book.group // 2)
    halves = (levels.reshape(book.entries, 2, -1) * places).sum(2).astype(np.int32) * LANES
    distances = all_distances(values, values[levels])
    if name == "IQ1_S":
        near = packed[np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]]
        return Books(np.ascontiguousarray(near[:, 0]), near.reshape(-1), halves.reshape(-1), packed)
    return Books(packed[distances.argmin(1)], packed[:0], halves.reshape(-1), packed)


def all_distances(values: NDArray[np.float32], entries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(groups, entries): squares of the distances of each group of `values` from each entry, less the group's square.

    Values are eighths and the sums exact, so the order of equals is the codebook's on every machine.
    """
    count, group = len(values), entries.shape[1]
    numbers = np.arange(count**group)
    points = values[numbers[:, None] // count ** np.arange(group) % count]
    distances: NDArray[np.float32] = (entries**2).sum(1) - 2 * points @ entries.T
    return distances


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

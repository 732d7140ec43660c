"""A file of sums of products: for each input of a model's matrices, how its columns go together, in windows of columns.

A window of n columns is n * n float32 numbers, symmetric; the windows of an input follow one another. It is temporary:
the machine that writes it reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WIDTH = 512
"""Columns of a window at most. Wider ones see more and take longer: docs/quantizing.md."""
_MULTIPLE = 32
"""Of so many columns, no scale is shared by two windows."""


@dataclass(frozen=True)
class Window:
    """Columns [first, first + columns) of an input, and the byte where their sums begin."""

    first: int
    columns: int
    offset: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the sums."""
        return 4 * self.columns * self.columns


@dataclass(frozen=True)
class Place:
    """Where the sums of one input are: from byte `offset` on, over `tokens` tokens."""

    offset: int
    columns: int
    tokens: int = 0

    def windows(self) -> Iterator[Window]:
        """As few as there can be, and of nearly equal width."""
        count = -(-self.columns // WIDTH)
        width = -(-self.columns // (count * _MULTIPLE)) * _MULTIPLE
        offset = self.offset
        for first in range(0, self.columns, width):
            window = Window(first, min(width, self.columns - first), offset)
            yield window
            offset += window.size_bytes

    @property
    def end(self) -> int:
        """The byte behind its last window."""
        return max(window.offset + window.size_bytes for window in self.windows())

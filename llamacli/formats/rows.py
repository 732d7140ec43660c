"""Tensors as descriptions: nothing is read until someone asks for rows.

A transform of a tensor (another row order, a slice, a stack of experts) wraps the description of its input, so that a
model of any size is carried through in row blocks, and a plan needs no weights at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from llamacli.formats.dtypes import Block, FloatArray, widen


class Arena:
    """Memory of one thread, used again for every block: `reset`, then any number of `empty`."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._used = 0
        self._wanted = 0

    def reset(self) -> None:
        """Everything handed out before may be overwritten."""
        if self._wanted > self._memory.size:
            self._memory = np.empty(self._wanted, np.uint8)
        self._used = self._wanted = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array, aligned to 64 bytes."""
        size = prod(shape) * np.dtype(dtype).itemsize
        start = self._used
        self._used += -(-size // 64) * 64
        self._wanted = max(self._wanted, self._used)
        if self._used > self._memory.size:
            return np.empty(shape, dtype)
        return self._memory[start : start + size].view(dtype).reshape(shape)


class Rows(Protocol):
    """A tensor as rows: `shape` is outermost first; its last dimension is the row, all others count rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Outermost dimension first, as in the checkpoint."""

    @property
    def dtype(self) -> str:
        """What `read` gives: F32, F16 or BF16; or a block type that is kept as it is (`MXFP4`), then uint8."""

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """Rows [start, stop): shape (stop - start, columns)."""


def row_count(shape: tuple[int, ...]) -> int:
    """How many rows a tensor of this shape has; one dimension is one row."""
    return prod(shape[:-1])


def read_all(rows: Rows) -> FloatArray:
    """A small tensor whole, as float32 in its own shape."""
    return widen(rows.read(0, row_count(rows.shape), Arena())).reshape(rows.shape)


@dataclass(frozen=True)
class InMemory:
    """A tensor that was computed: float32 of any shape."""

    values: FloatArray
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.values.shape

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        return np.ascontiguousarray(self.values.reshape(-1, self.values.shape[-1])[start:stop])


@dataclass(frozen=True)
class Grouped:
    """Rows in another order within groups of `group` rows: `order(block)` maps (groups, group, columns) to the same."""

    base: Rows
    group: int
    order: Callable[[Block], Block]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """See `Rows`."""
        return self.base.dtype

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`; whole groups are read."""
        low, high = start // self.group * self.group, -(-stop // self.group) * self.group
        block = self.base.read(low, high, arena)
        ordered = arena.empty(block.shape, block.dtype)
        moved = self.order(block.reshape(-1, self.group, block.shape[-1]))
        np.copyto(ordered.reshape(moved.shape), moved)
        return ordered[start - low : stop - low]


@dataclass(frozen=True)
class Mapped:
    """Every value through `function`, in float32."""

    base: Rows
    function: Callable[[FloatArray], FloatArray]
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.base.shape

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        return self.function(widen(self.base.read(start, stop, arena)))


@dataclass(frozen=True)
class RoundedToBF16:
    """float32 rounded to bf16, to nearest, ties to even (finite values; NaN and infinity keep their exponent)."""

    base: Rows
    dtype: str = field(default="BF16", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.base.shape

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        bits = np.ascontiguousarray(widen(self.base.read(start, stop, arena))).view(np.uint32)
        finite = bits & 0x7F800000 != 0x7F800000
        return ((bits + np.where(finite, 0x7FFF + (bits >> 16 & 1), 0).astype(np.uint32)) >> 16).astype(np.uint16)


@dataclass(frozen=True)
class Reshaped:
    """The same numbers in the same order under another shape."""

    base: Rows
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if prod(self.shape) != prod(self.base.shape):
            raise ValueError(f"{self.base.shape} cannot become {self.shape}")

    @property
    def dtype(self) -> str:
        """See `Rows`."""
        return self.base.dtype

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`; whole rows of the base are read."""
        columns, base_columns = self.shape[-1], self.base.shape[-1]
        first, last = start * columns, stop * columns
        low, high = first // base_columns, -(-last // base_columns)
        flat = self.base.read(low, high, arena).reshape(-1)
        return flat[first - low * base_columns : last - low * base_columns].reshape(-1, columns)


@dataclass(frozen=True)
class Joined:
    """Tensors of the same row length one after another, under one shape (a stack of experts, a fused matrix)."""

    parts: tuple[Rows, ...]
    shape: tuple[int, ...]

    @cached_property
    def dtype(self) -> str:
        """The parts' type where they agree, else float32."""
        kinds = {part.dtype for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else "F32"

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return (0, *accumulate(row_count(part.shape) for part in self.parts))

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        pieces = []
        dtype = self.dtype
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            low, high = self._starts[number], self._starts[number + 1]
            if high > start:  # a part may be empty
                part = self.parts[number]
                piece = part.read(start - low, min(stop, high) - low, arena)
                pieces.append(piece if part.dtype == dtype else widen(piece))
                start = min(stop, high)
            number += 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@dataclass(frozen=True)
class RowRange:
    """Of every matrix of `group` rows the rows [start, stop) in steps of `step`: a part of a fused tensor."""

    base: Rows
    start: int
    stop: int
    step: int = 1
    group: int = 0

    @property
    def _group(self) -> int:
        return self.group or row_count(self.base.shape)

    @property
    def _taken(self) -> int:
        return len(range(self.start, self.stop, self.step))

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`; the row dimension shrinks, leading ones stay."""
        *_, columns = self.base.shape
        groups = row_count(self.base.shape) // self._group
        return (groups, self._taken, columns) if groups > 1 or len(self.base.shape) > 2 else (self._taken, columns)

    @property
    def dtype(self) -> str:
        """See `Rows`."""
        return self.base.dtype

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`; each run of rows within one group is one read of the base."""
        pieces = []
        while start < stop:
            group, first = divmod(start, self._taken)
            count = min(self._taken - first, stop - start)
            low = group * self._group + self.start + first * self.step
            block = self.base.read(low, low + (count - 1) * self.step + 1, arena)
            pieces.append(block[:: self.step])
            start += count
        block = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return np.ascontiguousarray(block)


@dataclass(frozen=True)
class RowRuns:
    """Rows of `base`, all matrices of a stack counted as one, in the order of `runs`: each (first row, rows)."""

    base: Rows
    runs: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return (self._starts[-1], self.base.shape[-1])

    @property
    def dtype(self) -> str:
        """See `Rows`."""
        return self.base.dtype

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return (0, *accumulate(count for _, count in self.runs))

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`; each run is one read of the base."""
        pieces = [base.read(first, last, arena) for base, first, last in self.needs(start, stop)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`."""
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            first, count = self.runs[number]
            low = start - self._starts[number]
            high = min(count, low + stop - start)
            yield self.base, first + low, first + high
            start += high - low
            number += 1


@dataclass(frozen=True)
class Columns:
    """Of every row the values at `places`, in that order."""

    base: Rows
    places: range | tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return (*self.base.shape[:-1], len(self.places))

    @property
    def dtype(self) -> str:
        """See `Rows`."""
        return self.base.dtype

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`; whole rows of the base are read."""
        block = self.base.read(start, stop, arena)
        picked = self.places
        if isinstance(picked, range):
            return np.ascontiguousarray(block[:, picked.start : picked.stop : picked.step])
        return np.ascontiguousarray(block[:, list(picked)])


class Matrix(Rows, Protocol):
    """Rows of which a part can be read without the rest."""

    def read_part(self, start: int, stop: int, first: int, last: int) -> Block:
        """Columns [first, last) of rows [start, stop)."""


TOGETHER = 512
"""Rows of a transposed tensor that are read at a time: 1 KiB of a bf16 row in one piece."""


@dataclass(frozen=True)
class Transposed:
    """The last two dimensions swapped. Only the columns that are asked for are read, a piece of every row of the base."""

    base: Rows
    together: int = field(default=TOGETHER, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        *outer, rows, columns = self.base.shape
        return (*outer, columns, rows)

    @property
    def dtype(self) -> str:
        """See `Rows`."""
        return self.base.dtype

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        rows, columns = self.base.shape[-2:]
        pieces = []
        while start < stop:
            matrix, first = divmod(start, columns)
            last = min(columns, first + stop - start)
            low, high = matrix * rows, (matrix + 1) * rows
            if hasattr(self.base, "read_part"):
                block = self.base.read_part(low, high, first, last)
            else:
                block = self.base.read(low, high, arena)[:, first:last]
            pieces.append(block.T)
            start += last - first
        return np.ascontiguousarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`: all of each matrix."""
        rows, columns = self.base.shape[-2:]
        yield self.base, start // columns * rows, -(-stop // columns) * rows


def together(rows: Rows) -> int:
    """How many rows are best read at a time: a multiple of what any description below reads anyway."""
    found = 1
    below: Any = rows
    while below is not None:
        if isinstance(below, Grouped):
            found = max(found, below.group)
        found = max(found, getattr(below, "together", 1))
        parts = getattr(below, "parts", None)
        below = parts[0] if parts else getattr(below, "base", None)
    return found

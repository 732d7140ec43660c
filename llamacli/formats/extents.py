"""Which bytes of which files a block of rows is made of, told from the descriptions alone.

Exact for what is cut and stacked by rows; for a transform that mixes rows in its own way it is everything below it. Never
less than what reading the block will ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from llamacli.formats.dtypes import DTYPES
from llamacli.formats.file_access import Extent
from llamacli.formats.rows import Columns, Grouped, Joined, Mapped, Reshaped, RoundedToBF16, RowRange, Rows, row_count
from llamacli.formats.safetensors import StoredTensor


def extents(rows: Rows, start: int, stop: int) -> list[Extent]:
    """The bytes that `rows.read(start, stop)` asks for; touching pieces of one file are joined."""
    joined: list[Extent] = []
    for file, first, last in _extents(rows, start, stop):
        if joined and joined[-1][0] is file and joined[-1][2] == first:
            joined[-1] = (file, joined[-1][1], last)
        elif first < last:
            joined.append((file, first, last))
    return joined


def _extents(rows: Any, start: int, stop: int) -> Iterator[Extent]:
    if isinstance(rows, StoredTensor):
        width = (rows.shape[-1] if rows.shape else 1) * DTYPES[rows.stored].size
        yield rows.file, rows.offset + start * width, rows.offset + stop * width
    elif isinstance(rows, Joined):
        first = 0
        for part in rows.parts:
            last = first + row_count(part.shape)
            if max(start, first) < min(stop, last):
                yield from _extents(part, max(start, first) - first, min(stop, last) - first)
            first = last
    elif isinstance(rows, Mapped | RoundedToBF16 | Columns):
        yield from _extents(rows.base, start, stop)
    elif isinstance(rows, Grouped):
        yield from _extents(rows.base, start // rows.group * rows.group, -(-stop // rows.group) * rows.group)
    elif isinstance(rows, Reshaped):
        columns, below = rows.shape[-1], rows.base.shape[-1]
        yield from _extents(rows.base, start * columns // below, -(-stop * columns // below))
    elif isinstance(rows, RowRange):
        yield from _extents(rows.base, *_of_range(rows, start, stop))
    elif hasattr(rows, "needs"):
        for below, first, last in rows.needs(start, stop):
            yield from _extents(below, first, last)
    else:
        yield from _everything(rows)


def _of_range(rows: RowRange, start: int, stop: int) -> tuple[int, int]:
    """Rows of the base from the first to the last that is taken."""
    group = rows.group or row_count(rows.base.shape)
    taken = len(range(rows.start, rows.stop, rows.step))
    low, high = (number // taken * group + rows.start + number % taken * rows.step for number in (start, stop - 1))
    return low, high + 1


def _everything(rows: Any) -> Iterator[Extent]:
    """All stored tensors below a description, whole."""
    if isinstance(rows, StoredTensor):
        yield rows.file, rows.offset, rows.offset + rows.size_bytes
        return
    values = [getattr(rows, field.name) for field in fields(rows)] if is_dataclass(rows) else []
    for value in values:
        for below in value if isinstance(value, tuple) else (value,):
            if hasattr(below, "read") and hasattr(below, "shape"):
                yield from _everything(below)

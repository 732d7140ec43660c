"""What the formats with several weights in one 32-bit word share: taking words apart, groups of weights under one scale.

A run of words is a stream of bits, the lowest bit of the first word first; weight i stands at bit i times its width. Thirty-two
weights so take as many words as they have bits, whatever the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import CorruptFile
from llamacli.formats.dtypes import Block, FloatArray
from llamacli.formats.rows import Arena, Rows, row_count
from llamacli.formats.safetensors import StoredTensor

Codes = NDArray[np.uint8]

RUN = 32
"""Weights that end at the end of a word, whatever their width."""

AGAIN = "fetch the checkpoint again"


@dataclass(frozen=True)
class Found:
    """A weight that a format puts together, and the stored tensors that it is made of; the first gives it its place."""

    name: str
    rows: Rows
    parts: tuple[str, ...]


def unpack(words: NDArray[Any], bits: int) -> Codes:
    """Codes of rows of words: (rows, words) to (rows, words · 32 / bits)."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes: Codes = octets[..., None] >> shifts & np.uint8((1 << bits) - 1)
        return codes.reshape(len(octets), -1)
    stream = np.unpackbits(octets, axis=-1, bitorder="little")
    count = stream.shape[1] // bits
    runs = stream[:, : count * bits].reshape(len(octets), count, bits)
    return np.packbits(runs, axis=-1, bitorder="little")[..., 0]


def unpack_columns(tensor: StoredTensor, bits: int, start: int, stop: int) -> Codes:
    """Codes [start, stop) of every row of a tensor whose rows are packed: (rows, stop - start)."""
    first, last = start // RUN * bits, min(-(-stop // RUN) * bits, tensor.shape[1])
    words = tensor.read_part_raw(0, tensor.shape[0], first, last)
    return unpack(words, bits)[:, start % RUN : start % RUN + stop - start]


def unpack_rows(tensor: StoredTensor, bits: int, start: int, stop: int) -> Codes:
    """Codes [start, stop) of every column of a tensor whose columns are packed: (columns, stop - start)."""
    first, last = start // RUN * bits, min(-(-stop // RUN) * bits, tensor.shape[0])
    words = tensor.read_raw(first, last, Arena())
    return unpack(words.T, bits)[:, start % RUN : start % RUN + stop - start]


def all_of(tensor: StoredTensor) -> NDArray[Any]:
    """A small tensor's numbers as they are stored, in one run."""
    return tensor.read_raw(0, row_count(tensor.shape), Arena()).reshape(-1)


def groups_of(order: StoredTensor | None, columns: int, groups: int) -> NDArray[np.intp]:
    """The group of each column: as `order` has it, else `columns / groups` neighbours each. Raises CorruptFile."""
    if order is None:
        return np.arange(columns) // -(-columns // groups)
    found = all_of(order).astype(np.intp)
    if found.size != columns or (columns and not 0 <= found.min() <= found.max() < groups):
        raise CorruptFile(f"{order.name!r} does not give each of {columns:,} columns one of {groups} groups", AGAIN)
    return found


def scaled(codes: Block, zeros: Block, scales: FloatArray, group: NDArray[np.intp]) -> FloatArray:
    """(code - zero) · scale in float32: `codes` is (rows, columns), the others (rows, groups) or (1, groups)."""
    distance = codes.astype(np.float32)
    distance -= _spread(zeros.astype(np.float32), group)
    distance *= _spread(scales, group)
    return distance


def _spread(values: FloatArray, group: NDArray[np.intp]) -> FloatArray:
    return values if values.shape[1] == 1 else values.take(group, axis=1)


def companion(tensors: Mapping[str, StoredTensor], stem: str, part: str, kind: str = "") -> StoredTensor:
    """The tensor `stem.part`. Raises CorruptFile where it is missing or of another type than `kind`."""
    found = tensors.get(f"{stem}.{part}")
    if found is None:
        raise CorruptFile(f"the quantized weight {stem!r} has no {part}", AGAIN)
    if (kind and found.stored != kind) or len(found.shape) < 1:
        raise CorruptFile(f"{found.name!r} is {found.stored} of shape {found.shape}, not {kind or 'a table'}", AGAIN)
    return found


def must_fit(fits: bool, *parts: StoredTensor) -> None:
    """Raises CorruptFile that shows the shapes of `parts` unless they fit together."""
    if not fits:
        shapes = ", ".join(f"{part.name.rpartition('.')[2]} {part.shape}" for part in parts)
        raise CorruptFile(f"the parts of {parts[0].name.rpartition('.')[0]!r} do not fit together: {shapes}", AGAIN)

"""A saved conversation made as long as wanted: the cells of a short one, again and again, at growing positions.

Reading tens of thousands of tokens takes minutes, and what a context of that length takes in memory does not depend on
what they say. The format is the engine's (`llama_state_seq_save_file`): a header, the tokens, and for each cache the
cells' positions, then their keys and values by layer. What follows an attention cache (recurrent states) is copied.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_CELL = struct.Struct("<iIi")
"""Position, number of sequences, sequence."""
_BLOCK = 1 << 22


def stretch(short: Path, long: Path, cells: int, caches: int) -> None:
    """`long` with `cells` tokens, of a file whose first `caches` memories are attention caches."""
    with short.open("rb") as source, long.open("wb") as target:
        target.write(source.read(8))
        (count,) = struct.unpack("<I", source.read(4))
        tokens = source.read(4 * count)
        target.write(struct.pack("<I", cells) + _repeated(tokens, 4 * cells))
        for _ in range(caches):
            _stretch_cache(source, target, cells)
        target.write(source.read())


def _stretch_cache(source: BinaryIO, target: BinaryIO, cells: int) -> None:
    streams, count = struct.unpack("<II", source.read(8))
    assert streams == 1
    source.read(count * _CELL.size)
    target.write(struct.pack("<II", 1, cells))
    target.write(b"".join(_CELL.pack(position, 1, 0) for position in range(cells)))
    transposed, layers = struct.unpack("<II", source.read(8))
    assert not transposed, "only with flash attention"
    target.write(struct.pack("<II", transposed, layers))
    for _ in range(2 * layers):  # keys of all layers, then values
        kind, row = struct.unpack("<iQ", source.read(12))
        target.write(struct.pack("<iQ", kind, row))
        data, left = source.read(count * row), cells * row
        while left:
            written = target.write(data[: min(len(data), left)])
            left -= written


def _repeated(data: bytes, size: int) -> bytes:
    return (data * (-(-size // len(data))))[:size]

"""Importance matrices on disk: llama.cpp's GGUF format and the older binary one, read and written.

GGUF: for each tensor a pair `NAME.in_sum2` (float32, columns by matrices) and `NAME.counts` (float32, 1 by matrices),
sorted by name, and the keys `imatrix.*`. The older format: the number of entries; for each the length of its name, the
name, the number of chunks, the number of values, and the values, which are mean squares times chunks; then the number
of chunks of the whole, the length of the text's name, and that name. All numbers are little endian, 32 bits wide.
(llama.cpp: `tools/imatrix/imatrix.cpp`, `common/imatrix-loader.cpp`.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import CorruptFile, NotFound, Unsupported
from llamacli.formats.atomic import atomic_file
from llamacli.formats.gguf_encode import DEFAULT_ALIGNMENT, MAGIC, encode_header
from llamacli.formats.gguf_reader import GGUF, MAX_NAME_BYTES, TensorInfo, read_part
from llamacli.formats.gguf_values import Value, ValueType, array, string, u32
from llamacli.formats.tensor_types import F32
from llamacli.quantize.importance import Entry, ImportanceMatrix, checked_entry

Format = Literal["gguf", "dat"]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_DAMAGED = "the file is damaged or no importance matrix; make it again with llamacli imatrix"


def read_importance(path: Path) -> ImportanceMatrix:
    """Read either format, told apart by how the file starts.

    Raises NotFound where there is no such file, CorruptFile where it is damaged or something else.
    """
    try:
        with path.open("rb") as file:
            return _read_gguf(path) if file.read(4) == MAGIC else _Binary(path, file).read()
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as error:
        raise CorruptFile(f"cannot read {path}: {error}") from error


def write_importance(matrix: ImportanceMatrix, path: Path, form: Format = "gguf", *, force: bool = False) -> None:
    """Write the matrix whole or not at all; byte for byte what llama-imatrix writes of the same numbers.

    The older format holds no entry without any tokens, one text's name only, and no counts for single experts. Raises
    CannotWrite where `path` exists and `force` is not set, Unsupported for a name that GGUF cannot hold.
    """
    pieces = _gguf_pieces(matrix) if form == "gguf" else _binary_pieces(matrix)
    with atomic_file(path, force=force) as writing:
        for piece in pieces:
            writing.file.write(piece)


# -- GGUF --------------------------------------------------------------------------------------------------------


def _read_gguf(path: Path) -> ImportanceMatrix:
    header = read_part(path)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = [name.removesuffix(_SUMS) for name in tensors if name.endswith(_SUMS)]
    if not names:
        raise CorruptFile(f"{path} is a GGUF file but no importance matrix", "is it a model?")
    entries = {}
    with path.open("rb") as file:
        for name in names:
            sums = _values(header, file, tensors[name + _SUMS])
            if name + _COUNTS not in tensors:
                raise CorruptFile(f"{path}: {name} has sums but no counts", _DAMAGED)
            counts = _values(header, file, tensors[name + _COUNTS])
            if not np.isfinite(counts).all():
                raise CorruptFile(f"{path}: the counts of {name} are no numbers", _DAMAGED)
            entries[name] = checked_entry(name, sums, np.rint(counts).astype(np.int64), str(path))
    return ImportanceMatrix(
        entries,
        tuple(_text(dataset) for dataset in header.get("imatrix.datasets", ())),
        int(header.get("imatrix.chunk_count", 0)),
        int(header.get("imatrix.chunk_size", 0)),
        str(path),
    )


def _values(header: GGUF, file: BinaryIO, tensor: TensorInfo) -> NDArray[np.float32]:
    if tensor.type is not F32:
        raise CorruptFile(f"{header.path}: {tensor.name} is {tensor.type}, not F32", _DAMAGED)
    file.seek(header.tensor_start(tensor))
    return np.frombuffer(file.read(tensor.size_bytes), "<f4").astype(np.float32, copy=False)


def _gguf_pieces(matrix: ImportanceMatrix) -> Iterator[bytes]:
    """The header, then the data of each tensor with its padding."""
    metadata: dict[str, Value] = {
        "general.type": string("imatrix"),
        "imatrix.datasets": array(ValueType.STRING, matrix.datasets),
        "imatrix.chunk_count": u32(matrix.chunks),
        "imatrix.chunk_size": u32(matrix.chunk_size),
    }
    table, blobs, offset = [], [], 0
    for name, entry in sorted(matrix.entries.items()):
        matrices = entry.counts.size
        for suffix, values, columns in (
            (_SUMS, entry.sums, entry.sums.size // matrices),
            (_COUNTS, entry.counts, 1),
        ):
            if len((name + suffix).encode()) > MAX_NAME_BYTES:
                raise Unsupported(f"{name} is too long a name for an importance matrix", "leave this tensor out")
            blob = values.astype("<f4").tobytes()
            shape = (columns, matrices) if matrices > 1 else (columns,)
            table.append((name + suffix, shape, F32.id, offset))
            blobs.append(blob + bytes(-len(blob) % DEFAULT_ALIGNMENT))
            offset += len(blobs[-1])
    yield encode_header(metadata, table)
    yield from blobs


# -- the older format --------------------------------------------------------------------------------------------


class _Binary:
    """A cursor over one file of the older format."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.left = file.seek(0, 2)
        file.seek(0)

    def read(self) -> ImportanceMatrix:
        count = self._number("the number of entries")
        if not 1 <= count <= self.left // 16:
            raise CorruptFile(f"{self.path} is no importance matrix", _DAMAGED)
        entries = dict(self._entry() for _ in range(count))
        chunks = self._number("the number of chunks") if self.left else 0
        dataset = self._text("the text's name") if self.left else ""
        return ImportanceMatrix(entries, (dataset,) if dataset else (), chunks, 0, str(self.path))

    def _entry(self) -> tuple[str, Entry]:
        name = self._text("a name")
        chunks = self._number(f"the chunks of {name}")
        size = self._number(f"the size of {name}")
        sums = np.frombuffer(self._take(4 * size, f"the values of {name}"), "<f4").astype(np.float32, copy=False)
        # Without chunks the values stand for themselves.
        return name, checked_entry(name, sums, np.array([max(chunks, 1)], np.int64), str(self.path))

    def _text(self, what: str) -> str:
        return _text(self._take(self._number(f"the length of {what}"), what))

    def _number(self, what: str) -> int:
        return int(struct.unpack("<i", self._take(4, what))[0])

    def _take(self, size: int, what: str) -> bytes:
        if not 0 <= size <= self.left:
            raise CorruptFile(f"{self.path} ends before {what}, or is no importance matrix", _DAMAGED)
        self.left -= size
        return self.file.read(size)


def _binary_pieces(matrix: ImportanceMatrix) -> Iterator[bytes]:
    chunk_size = max(matrix.chunk_size, 1)
    seen = {name: entry for name, entry in sorted(matrix.entries.items()) if entry.counts.max() > 0}
    yield struct.pack("<i", len(seen))
    for name, entry in seen.items():
        chunks = -(-int(entry.counts.max()) // chunk_size)
        raw = name.encode()
        yield struct.pack(f"<i{len(raw)}sii", len(raw), raw, chunks, entry.sums.size)
        step = entry.sums.size // entry.counts.size
        for start in range(0, entry.sums.size, step):
            yield (entry.mean_squares(start, start + step) * np.float32(chunks)).astype("<f4").tobytes()
    dataset = matrix.datasets[-1].encode() if matrix.datasets else b""
    yield struct.pack(f"<ii{len(dataset)}s", matrix.chunks, len(dataset), dataset)


def _text(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")

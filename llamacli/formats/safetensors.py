"""One safetensors file: its header, checked by every rule of the format, and tensors read only when asked.

Format: 8 bytes little-endian header length, a JSON object, then the tensors' bytes without holes or overlap
(the README of the safetensors project, "Format"). The file is untrusted: nothing is allocated from a number in it
before that number is known to be possible.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.dtypes import DTYPES, WEIGHT_DTYPES, Block, decode
from llamacli.formats.file_access import RandomAccess
from llamacli.formats.rows import Arena

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: a description until someone asks for rows."""

    name: str
    stored: str
    shape: tuple[int, ...]
    file: RandomAccess
    offset: int
    size_bytes: int

    @property
    def dtype(self) -> str:
        """What `read` gives: the stored type, or F32 where a kernel cannot take that."""
        return self.stored if self.stored in WEIGHT_DTYPES else "F32"

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """Rows [start, stop) as `dtype`; see `Rows`. Raises CorruptFile if the file ends early."""
        raw = self.read_raw(start, stop, arena)
        return raw if self.stored in WEIGHT_DTYPES else decode(raw, self.stored)

    def read_raw(self, start: int, stop: int, arena: Arena) -> Block:
        """Rows [start, stop) with the bits as stored."""
        dtype = DTYPES[self.stored]
        columns = self.shape[-1] if self.shape else 1
        block = arena.empty((stop - start, columns), dtype.numpy)
        if block.size:
            self.file.read_into(self.offset + start * columns * dtype.size, block.view(np.uint8).reshape(-1).data)
        return block

    def read_part(self, start: int, stop: int, first: int, last: int) -> Block:
        """Columns [first, last) of rows [start, stop) as `dtype`, one read for each row."""
        raw = self.read_part_raw(start, stop, first, last)
        return raw if self.stored in WEIGHT_DTYPES else decode(raw, self.stored)

    def read_part_raw(self, start: int, stop: int, first: int, last: int) -> Block:
        """The same with the bits as stored."""
        dtype, columns = DTYPES[self.stored], self.shape[-1]
        raw = np.empty((stop - start, last - first), dtype.numpy)
        for number, row in enumerate(range(start, stop)):
            offset = self.offset + (row * columns + first) * dtype.size
            self.file.read_into(offset, raw[number].view(np.uint8).data)
        return raw


@dataclass(frozen=True)
class Shard:
    """The content of one file: its tensors in file order and the free-form strings of its header."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def read_shard(file: RandomAccess, label: str) -> Shard:
    """Read and check the header of `file`, called `label` in messages.

    Raises CorruptFile for every breach of the format, Unsupported for files of another kind (pickle, Git LFS pointer).
    """
    if file.size < 8:
        raise CorruptFile(f"{label} is too short for a safetensors file ({file.size} bytes)", _AGAIN)
    start = bytearray(min(file.size, 64))
    file.read_into(0, memoryview(start))
    _refuse_others(bytes(start), label)
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise CorruptFile(f"{label}: a header of {length:,} bytes is over the format's limit", _AGAIN)
    if length < 2 or 8 + length > file.size:
        raise CorruptFile(
            f"{label} is truncated: its header needs {8 + length:,} bytes, the file has {file.size:,}", _AGAIN
        )
    raw = bytearray(length)
    file.read_into(8, memoryview(raw))
    header = _parse(bytes(raw), label)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptFile(f"{label}: __metadata__ is not a table of strings")
    tensors = [_tensor(name, entry, file, 8 + length, label) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.offset + tensor.size_bytes))
    _check_layout(tensors, 8 + length, file.size, label)
    return Shard({tensor.name: tensor for tensor in tensors}, metadata)


_AGAIN = "the file is damaged or incomplete; fetch it again"


def _refuse_others(start: bytes, label: str) -> None:
    if start[8:9] == b"{":
        return  # a header's length may begin like anything
    if start.startswith(b"version https://git-lfs"):
        raise CorruptFile(
            f"{label} is a Git LFS pointer, not the weights",
            "run `git lfs pull` in the folder, or use llamacli download",
        )
    if start[:1] == b"\x80" or start.startswith((b"PK\x03\x04", b"7z\xbc\xaf")):
        raise Unsupported(
            f"{label} is a pickle or an archive, whatever its name says",
            "pickled weights can run code and are never read; get the safetensors version of this checkpoint",
        )
    if start.startswith(b"GGUF"):
        raise Unsupported(f"{label} is a GGUF file, not safetensors", "give the file itself as the source")
    if start.lstrip()[:1] == b"<":
        raise CorruptFile(
            f"{label} is a web page, not weights", "the download went to a login or error page; fetch it again"
        )


def _parse(raw: bytes, label: str) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise CorruptFile(f"{label}: the header is not a JSON object", _AGAIN)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise CorruptFile(f"{label}: {twice!r} stands twice in the header")
        return table

    def no_constant(text: str) -> None:
        raise CorruptFile(f"{label}: {text} in the header")

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{label}: the header is not valid JSON", _AGAIN) from error
    if not isinstance(header, dict):
        raise CorruptFile(f"{label}: the header is not a JSON object", _AGAIN)
    return header


def _tensor(name: str, entry: Any, file: RandomAccess, data_start: int, label: str) -> StoredTensor:
    where = f"{label}: tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CorruptFile(f"{where} lacks dtype, shape or data_offsets")
    stored, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not _whole_numbers(shape) or len(shape) > 16:
        raise CorruptFile(f"{where} has an impossible shape")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CorruptFile(f"{where} has impossible offsets")
    if not isinstance(stored, str) or not re.fullmatch(r"[A-Z0-9_]{2,16}", stored):
        raise CorruptFile(f"{where} has an impossible type")
    if stored not in DTYPES:
        raise Unsupported(f"{where} has type {stored}, which is not supported")
    size = offsets[1] - offsets[0]
    if prod(shape) * DTYPES[stored].size != size:
        raise CorruptFile(f"{where}: {size:,} bytes do not hold {stored} of shape {tuple(shape)}")
    return StoredTensor(name, stored, tuple(shape), file, data_start + offsets[0], size)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 63 for n in value
    )


def _check_layout(tensors: list[StoredTensor], start: int, size: int, label: str) -> None:
    """The tensors fill the rest of the file without holes or overlap."""
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            what = "overlaps the one before" if tensor.offset < end else "leaves a hole before it"
            raise CorruptFile(f"{label}: tensor {tensor.name!r} {what}")
        end += tensor.size_bytes
    if end > size:
        raise CorruptFile(f"{label} is truncated: its tensors need {end:,} bytes, the file has {size:,}", _AGAIN)
    if end < size:
        raise CorruptFile(f"{label} has {size - end:,} bytes that belong to no tensor", _AGAIN)

"""Strict, bounded reading of untrusted GGUF: metadata and the table of tensors, never the weights.

Accepts what ggml's own parser accepts and can use, version 2 and 3, little endian; everything else is a `CorruptFile`
with one line that says what is wrong. Memory and time are bounded by the header's real size in the file, whatever its
counts claim. Needs no numpy, so that `list` and `show` start at once. Whether the *content* is safe for the engine is
the subject of `gguf_check`.
"""

from __future__ import annotations

import math
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, overload

from llamacli.errors import CorruptFile, NotFound
from llamacli.formats.foreign_magic import what_it_is
from llamacli.formats.gguf_encode import DEFAULT_ALIGNMENT, MAGIC
from llamacli.formats.gguf_values import STRUCT_FORMAT, Value, ValueType
from llamacli.formats.tensor_types import BY_ID, FILE_TYPES, TensorType

Arrays = Literal["all", "skip"]
"""`skip` keeps only the length of arrays that are longer than `LONG_ARRAY`."""

LONG_ARRAY = 64
MAX_HEADER_BYTES = 1 << 28
MAX_NAME_BYTES = 63
MAX_DIMENSIONS = 4
_FIRST_READ = 1 << 18
_MIN_ENTRY_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8
_AGAIN = "the file is damaged or incomplete; download or convert it again"
_U64 = struct.Struct("<Q").unpack_from


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `offset` counts bytes from the start of the data of its `part`.

    `shape` is in ggml's order, the row length first.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size_bytes: int
    part: int = 0

    @property
    def weights(self) -> int:
        """Number of parameters."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Skipped:
    """An array of which only the length was wanted."""

    length: int

    def __len__(self) -> int:
        return self.length


class Strings(Sequence["str | bytes"]):
    """An array of strings as it lies in the file, taken apart when first looked at.

    `raw` holds every item with its eight bytes of length in front. An item that is not UTF-8 stays bytes.
    """

    def __init__(self, raw: bytes, length: int) -> None:
        self.raw, self.length = raw, length

    @cached_property
    def byte_strings(self) -> list[bytes]:
        """Every item as it is."""
        raw, unpack, start, items = self.raw, _U64, 8, []
        for _ in range(self.length):
            end = start + unpack(raw, start - 8)[0]
            items.append(raw[start:end])
            start = end + 8
        return items

    @cached_property
    def decoded(self) -> tuple[str | bytes, ...]:
        """Every item as text where it is text."""
        try:
            return tuple([item.decode() for item in self.byte_strings])
        except UnicodeDecodeError:
            return tuple([text_or_bytes(item) for item in self.byte_strings])

    def forget(self) -> None:
        """Let go of the items that were taken apart; whoever looks again takes them apart again."""
        for name in ("byte_strings", "decoded"):
            self.__dict__.pop(name, None)

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> str | bytes: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str | bytes, ...]: ...
    def __getitem__(self, index: int | slice) -> str | bytes | tuple[str | bytes, ...]:
        return self.decoded[index] if isinstance(index, slice) else text_or_bytes(self.byte_strings[index])

    def __iter__(self) -> Iterator[str | bytes]:
        return iter(self.decoded)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Strings):
            return self.raw == other.raw
        return isinstance(other, (tuple, list)) and self.decoded == tuple(other)

    def __hash__(self) -> int:
        return hash(self.decoded)

    def __repr__(self) -> str:
        return f"<{len(self)} strings>"


@dataclass(frozen=True)
class GGUF:
    """One model: its metadata, and its tensors over all parts of the file.

    `metadata` is that of the first part. `data_offsets` says for each part where its data starts in the file;
    `size_bytes` is the sum of the parts' sizes.
    """

    paths: tuple[Path, ...]
    version: int
    alignment: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offsets: tuple[int, ...]
    size_bytes: int

    @property
    def path(self) -> Path:
        """The first part."""
        return self.paths[0]

    @property
    def architecture(self) -> str:
        """`general.architecture`, or nothing."""
        value = self.metadata.get("general.architecture")
        return value.value if value and isinstance(value.value, str) else ""

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value under `key`, in which `{arch}` stands for the architecture; arrays are tuples.

        An array that was skipped is given as `Skipped`.
        """
        value = self.metadata.get(key.replace("{arch}", self.architecture))
        if value is None:
            return default
        return value.value.decoded if isinstance(value.value, Strings) else value.value

    def forget_texts(self) -> None:
        """Hold arrays of texts as they lie in the file, until somebody looks at them again."""
        for value in self.metadata.values():
            if isinstance(value.value, Strings):
                value.value.forget()

    @cached_property
    def weights(self) -> int:
        """Number of parameters."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits that a parameter takes on average; 0 for a file without tensors."""
        return 8 * sum(tensor.size_bytes for tensor in self.tensors) / self.weights if self.weights else 0.0

    @property
    def file_type_name(self) -> str:
        """`general.file_type` by name; where it is missing or unknown, the type that holds most bytes."""
        number = self.get("general.file_type")
        if isinstance(number, int) and number in FILE_TYPES:
            return FILE_TYPES[number]
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.size_bytes
        return max(sizes, key=lambda name: sizes[name]) if sizes else ""

    def tensor_start(self, tensor: TensorInfo) -> int:
        """Where the bytes of `tensor` start in the file `paths[tensor.part]`."""
        return self.data_offsets[tensor.part] + tensor.offset


def read_gguf(path: Path, *, arrays: Arrays = "all") -> GGUF:
    """Read the header of a model; any part of a split file opens the whole.

    Raises `NotFound` where there is no such file, and `CorruptFile` where it is not a sound GGUF file.
    """
    from llamacli.formats.gguf_split import join_parts  # it reads its parts with read_part

    return join_parts(path, read_part(path, arrays=arrays), arrays=arrays)


def read_part(path: Path, *, arrays: Arrays = "all") -> GGUF:
    """Read the header of exactly this file, part of a split or not. Raises as `read_gguf` does."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise CorruptFile(f"{path} is a folder, not a GGUF file", "name the .gguf file inside it")
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFile(f"{path} is not a regular file")
        with path.open("rb") as file:
            return _Header(path, file, status.st_size, arrays).read()
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except PermissionError:
        raise NotFound(f"cannot read {path}: permission denied") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise CorruptFile(f"cannot read {path}: {error}") from error


def read_header(path: Path, file: BinaryIO, size: int, *, arrays: Arrays = "all") -> GGUF:
    """Read the header of a file of `size` bytes that is elsewhere, called `path`. Raises `CorruptFile`.

    `file` is read from its beginning and no further than the header reaches, at most twice its length.
    """
    return _Header(path, file, size, arrays).read()


def text_or_bytes(raw: bytes) -> str | bytes:
    """The text that `raw` spells in UTF-8, or `raw` itself."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class _Header:
    """A cursor over the front of one file, which reads on as far as it is asked to."""

    def __init__(self, path: Path, file: BinaryIO, size: int, arrays: Arrays) -> None:
        self.path, self.file, self.size, self.arrays = path, file, size, arrays
        self.buffer = file.read(_FIRST_READ)
        self.position = 0

    # -- the file, top to bottom -------------------------------------------------------------------------------

    def read(self) -> GGUF:
        version, tensor_count, entry_count = self._preamble()
        metadata = self._metadata(entry_count)
        alignment = self._alignment(metadata)
        rows = self._tensor_rows(tensor_count)
        data_start = self.position + (-self.position % alignment if rows else 0)
        tensors = self._laid_out(rows, alignment, data_start)
        return GGUF((self.path,), version, alignment, metadata, tensors, (data_start,), self.size)

    def _preamble(self) -> tuple[int, int, int]:
        if self.buffer[:4] != MAGIC:
            found, hint = what_it_is(self.buffer, self.size)
            raise CorruptFile(f"{self.path} is not a GGUF file: {found}", hint)
        self.position = 4
        version = self.number(ValueType.UINT32)
        if version and version & 0xFFFF == 0:
            self.fail("it is for big-endian machines", "download or convert the little-endian file")
        if version not in (2, 3):
            self.fail(f"GGUF version {version}; this program reads 2 and 3", "convert the model again")
        tensor_count, entry_count = self.number(ValueType.UINT64), self.number(ValueType.UINT64)
        left = self.size - self.position
        if tensor_count * _MIN_TENSOR_BYTES + entry_count * _MIN_ENTRY_BYTES > left:
            self.fail(f"it claims {tensor_count:,} tensors and {entry_count:,} keys in {self.size:,} bytes")
        return version, tensor_count, entry_count

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self.name("a metadata key")
            if key in metadata:
                self.fail(f"the key {key!r} stands there twice")
            metadata[key] = self.value(key)
        return metadata

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        value = metadata.get("general.alignment")
        if value is None:
            return DEFAULT_ALIGNMENT
        if value.type is not ValueType.UINT32:
            self.fail("general.alignment is not an unsigned 32-bit number")
        alignment: int = value.value
        if alignment < 8 or alignment & (alignment - 1):
            self.fail(f"general.alignment is {alignment}, not a power of two of at least 8")
        return alignment

    def _tensor_rows(self, count: int) -> list[tuple[str, tuple[int, ...], TensorType, int]]:
        rows = []
        seen: set[str] = set()
        for _ in range(count):
            name = self.name("a tensor name")
            if name in seen:
                self.fail(f"the tensor {name!r} stands there twice")
            seen.add(name)
            rows.append(self._tensor_row(name))
        return rows

    def _tensor_row(self, name: str) -> tuple[str, tuple[int, ...], TensorType, int]:
        if len(name.encode()) > MAX_NAME_BYTES:
            self.fail(f"the tensor name {name!r} is longer than {MAX_NAME_BYTES} bytes")
        dimensions = self.number(ValueType.UINT32)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            self.fail(f"the tensor {name!r} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
        shape = tuple(self.number(ValueType.UINT64) for _ in range(dimensions))
        type_id, offset = self.number(ValueType.UINT32), self.number(ValueType.UINT64)
        kind = BY_ID.get(type_id)
        if kind is None:
            self.fail(f"the tensor {name!r} has type {type_id}, which is unknown or was removed from ggml")
        if min(shape) < 1 or math.prod(shape) >= 1 << 63:
            self.fail(f"the tensor {name!r} has the impossible shape {shape}")
        if shape[0] % kind.block_size:
            self.fail(f"the tensor {name!r} has rows of {shape[0]}, not a multiple of {kind}'s {kind.block_size}")
        return name, shape, kind, offset

    def _laid_out(
        self, rows: Sequence[tuple[str, tuple[int, ...], TensorType, int]], alignment: int, start: int
    ) -> tuple[TensorInfo, ...]:
        """Tensors must follow each other without gaps, each at the next multiple of the alignment, within the file."""
        sizes = [kind.row_bytes(shape[0]) * math.prod(shape[1:]) for _, shape, kind, _ in rows]
        expected = accumulate((size + -size % alignment for size in sizes), initial=0)
        tensors = []
        for (name, shape, kind, offset), size, place in zip(rows, sizes, expected, strict=False):
            if offset != place:
                self.fail(f"the tensor {name!r} lies at {offset:,} where {place:,} is expected")
            if start + offset + size > self.size:
                self.fail(
                    f"it ends after {self.size:,} bytes, within the tensor {name!r}, which needs "
                    f"{start + offset + size:,}"
                )
            tensors.append(TensorInfo(name, shape, kind, offset, size))
        return tuple(tensors)

    # -- values ------------------------------------------------------------------------------------------------

    def value(self, key: str) -> Value:
        kind = self.kind(key)
        if kind is ValueType.ARRAY:
            return self._array(key)
        if kind is ValueType.STRING:
            return Value(kind, text_or_bytes(self.string()))
        if kind is ValueType.BOOL:
            number = self.take(1)[0]
            if number > 1:
                self.fail(f"the key {key!r} is neither true nor false but {number}")
            return Value(kind, bool(number))
        return Value(kind, self.number(kind))

    def kind(self, key: str) -> ValueType:
        number = self.number(ValueType.UINT32)
        try:
            return ValueType(number)
        except ValueError:
            self.fail(f"the key {key!r} has the unknown type {number}")

    def _array(self, key: str) -> Value:
        element = self.kind(key)
        if element is ValueType.ARRAY:
            self.fail(f"the key {key!r} holds an array of arrays, which the engine does not read")
        count = self.number(ValueType.UINT64)
        least = 8 if element is ValueType.STRING else struct.calcsize(STRUCT_FORMAT[element])
        if count * least > self.size - self.position:
            self.fail(f"the key {key!r} claims {count:,} items, more than the file holds")
        skip = self.arrays == "skip" and count > LONG_ARRAY
        if element is ValueType.STRING:
            strings = self._strings(count)
            return Value(ValueType.ARRAY, Skipped(count) if skip else strings, element)
        raw = self.take(count * least)
        if element is ValueType.BOOL and raw.translate(None, b"\x00\x01"):
            self.fail(f"the key {key!r} holds items that are neither true nor false")
        if skip:
            return Value(ValueType.ARRAY, Skipped(count), element)
        return Value(ValueType.ARRAY, struct.unpack(f"<{count}{STRUCT_FORMAT[element][1]}", raw), element)

    def _strings(self, count: int) -> Strings:
        """Walk over `count` strings; the one hot loop of reading a header."""
        start, position, buffer, unpack, left = self.position, self.position, self.buffer, _U64, count
        while left:
            try:
                for left in range(left, 0, -1):  # noqa: B007, B020 - goes on where it stopped
                    position += 8 + unpack(buffer, position)[0]
                left = 0
            except (struct.error, OverflowError):  # beyond what is read so far
                self.position = position
                self.need(8)
                buffer = self.buffer
        self.position = start
        return Strings(self.take(position - start), count)

    # -- bytes -------------------------------------------------------------------------------------------------

    def name(self, what: str) -> str:
        """A key or tensor name: not empty, UTF-8, without zero bytes (where the engine would stop reading it)."""
        raw = self.string()
        if not raw:
            self.fail(f"{what} is empty")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8: {raw[:40]!r}")
        if "\0" in text:
            self.fail(f"{what} contains a zero byte: {text[:40]!r}")
        return text

    def string(self) -> bytes:
        return self.take(self.number(ValueType.UINT64))

    def number(self, kind: ValueType) -> Any:
        layout = STRUCT_FORMAT[kind]
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def take(self, count: int) -> bytes:
        self.need(count)
        start, self.position = self.position, self.position + count
        return self.buffer[start : self.position]

    def need(self, count: int) -> None:
        """See to it that `count` bytes from the position on are in the buffer."""
        end = self.position + count
        if end <= len(self.buffer):
            return
        if end > self.size:
            self.fail(f"it ends after {self.size:,} bytes, within its header")
        if end > MAX_HEADER_BYTES:
            self.fail(f"its header is larger than {MAX_HEADER_BYTES:,} bytes")
        self.buffer += self.file.read(max(end - len(self.buffer), len(self.buffer)))
        if end > len(self.buffer):
            self.fail("it became shorter while it was read")

    def fail(self, what: str, hint: str = _AGAIN) -> NoReturn:
        raise CorruptFile(f"{self.path}: {what}", hint)

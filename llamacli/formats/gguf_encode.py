"""The header of a GGUF file as bytes: metadata, then the table of tensors, then padding up to the data.

Layout of GGUF version 3, little endian, as ggml's specification describes it (`docs/gguf.md` of ggml). Pure: values in,
bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from llamacli.formats.gguf_values import STRUCT_FORMAT, Value, ValueType

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32

TensorEntry = tuple[str, tuple[int, ...], int, int]
"""Name, shape in ggml's order (row length first), type number, offset from the start of the data in bytes."""


def encode_header(
    metadata: Mapping[str, Value], tensors: Sequence[TensorEntry], alignment: int = DEFAULT_ALIGNMENT
) -> bytes:
    """Everything that stands before the data, padded with zeros to a multiple of `alignment` bytes.

    Keys and tensors keep their order. The caller sees to it that `general.alignment` says the same as `alignment`.
    Raises `ValueError` for a value that does not fit its type.
    """
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    parts += [encode_entry(key, value) for key, value in metadata.items()]
    parts += [_tensor_entry(*tensor) for tensor in tensors]
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment)


def encode_entry(key: str, value: Value) -> bytes:
    """One metadata pair: key, type, value."""
    try:
        if value.type is not ValueType.ARRAY:
            return encode_string(key) + struct.pack("<I", value.type) + _scalar(value.type, value.value)
        if value.element is None or value.element is ValueType.ARRAY:
            raise ValueError("an array needs an element type that is not an array itself")
        start = struct.pack("<IIQ", ValueType.ARRAY, value.element, len(value.value))
        return encode_string(key) + start + _items(value.element, value.value)
    except (struct.error, OverflowError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the value of {key!r} does not fit {value.type.name}: {error}") from error


def encode_string(text: str | bytes) -> bytes:
    """Length in bytes as 64 bits, then the bytes; nothing is terminated."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _scalar(kind: ValueType, value: Any) -> bytes:
    if kind is ValueType.STRING:
        return encode_string(value)
    return struct.pack(STRUCT_FORMAT[kind], value)


def _items(kind: ValueType, items: Sequence[Any]) -> bytes:
    if kind is ValueType.STRING:
        return getattr(items, "raw", None) or b"".join([encode_string(item) for item in items])  # as it was read
    code = STRUCT_FORMAT[kind][1]
    return struct.pack(f"<{len(items)}{code}", *items)


def _tensor_entry(name: str, shape: tuple[int, ...], type_id: int, offset: int) -> bytes:
    return encode_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_id, offset)

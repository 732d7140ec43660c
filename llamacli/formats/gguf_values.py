"""Typed metadata values of GGUF: what stands under a key, with the type it has on disk.

The type numbers are those of the format's specification (ggml's `gguf.h`). Needs no numpy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class ValueType(IntEnum):
    """How a metadata value is stored."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


STRUCT_FORMAT: dict[ValueType, str] = {
    ValueType.UINT8: "<B", ValueType.INT8: "<b", ValueType.UINT16: "<H", ValueType.INT16: "<h",
    ValueType.UINT32: "<I", ValueType.INT32: "<i", ValueType.FLOAT32: "<f", ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q", ValueType.INT64: "<q", ValueType.FLOAT64: "<d",
}  # fmt: skip
"""`struct` format of every type of fixed size."""


@dataclass(frozen=True)
class Value:
    """One metadata value. An array has `element` set and a tuple of plain Python values; strings may be bytes.

    Token texts can be any bytes, so a STRING holds `str`, or `bytes` where it is not valid UTF-8.
    """

    type: ValueType
    value: Any
    element: ValueType | None = None


def u32(value: int) -> Value:
    """An unsigned 32-bit number, llama.cpp's usual type for counts."""
    if not 0 <= int(value) < 1 << 32:
        raise ValueError(f"{value} is no unsigned 32-bit number")
    return Value(ValueType.UINT32, int(value))


def i32(value: int) -> Value:
    """A signed 32-bit number."""
    return Value(ValueType.INT32, int(value))


def u64(value: int) -> Value:
    """An unsigned 64-bit number."""
    return Value(ValueType.UINT64, int(value))


def f32(value: float) -> Value:
    """A single-precision number."""
    if float(value) != float(value):
        raise ValueError("NaN is no value for a key")
    return Value(ValueType.FLOAT32, float(value))


def boolean(value: bool) -> Value:
    """True or false."""
    return Value(ValueType.BOOL, bool(value))


def string(value: str | bytes) -> Value:
    """Text."""
    return Value(ValueType.STRING, value)


def array(element: ValueType, items: Iterable[Any]) -> Value:
    """Many values of one type."""
    return Value(ValueType.ARRAY, tuple(items), element)

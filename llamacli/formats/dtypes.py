"""How checkpoints store numbers, and how each becomes float32.

Names are those of the safetensors format. bf16 travels as the uint16 that holds its bits, because numpy has no bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from llamacli.errors import Unsupported

FloatArray = NDArray[np.float32]
Block = NDArray[Any]
"""Rows as they are stored: float32, float16, or uint16 that holds bf16; shape (rows, columns), C-contiguous."""


@dataclass(frozen=True)
class DType:
    """A stored number: its size and the numpy type that holds its bits."""

    name: str
    size: int
    numpy: DTypeLike


DTYPES: dict[str, DType] = {
    dtype.name: dtype
    for dtype in (
        DType("F64", 8, "<f8"), DType("F32", 4, "<f4"), DType("F16", 2, "<f2"), DType("BF16", 2, "<u2"),
        DType("F8_E4M3", 1, "u1"), DType("F8_E5M2", 1, "u1"), DType("F8_E8M0", 1, "u1"),
        DType("I64", 8, "<i8"), DType("U64", 8, "<u8"), DType("I32", 4, "<i4"), DType("U32", 4, "<u4"),
        DType("I16", 2, "<i2"), DType("U16", 2, "<u2"), DType("I8", 1, "i1"), DType("U8", 1, "u1"),
        DType("BOOL", 1, "u1"), DType("C64", 8, "<c8"),
    )
}  # fmt: skip
"""Every type of the safetensors format whose values take whole bytes."""

WEIGHT_DTYPES = ("F32", "F16", "BF16")
"""What rows are made of when they reach a kernel."""


def widen(block: Block) -> FloatArray:
    """float32 of a block as stored (float32 is returned as it is)."""
    if block.dtype == np.uint16:
        wide = block.astype(np.uint32)
        wide <<= 16
        floats: FloatArray = wide.view(np.float32)
        return floats
    return block.astype(np.float32, copy=False)


def decode(raw: NDArray[Any], dtype: str) -> FloatArray:
    """float32 of stored numbers of any floating type. Raises Unsupported for the others."""
    if dtype == "BF16":
        return widen(raw)
    if dtype in ("F64", "F32", "F16", "I8"):
        return raw.astype(np.float32, copy=False)
    if dtype in ("F8_E4M3", "F8_E5M2", "F8_E8M0"):
        values: FloatArray = _table(dtype)[raw]
        return values
    raise Unsupported(f"numbers of type {dtype} are not weights")


@cache
def _table(dtype: str) -> FloatArray:
    """All 256 values of an 8-bit floating type (OCP 8-bit floating point and microscaling specifications)."""
    codes = np.arange(256)
    if dtype == "F8_E8M0":
        return np.where(codes == 255, np.nan, np.exp2(codes - 127.0)).astype(np.float32)
    exponent_bits, mantissa_bits, bias = (4, 3, 7) if dtype == "F8_E4M3" else (5, 2, 15)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = codes >> mantissa_bits & (1 << exponent_bits) - 1
    mantissa = (codes & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    normal = np.exp2(exponent - float(bias)) * (1 + mantissa)
    value = sign * np.where(exponent == 0, np.exp2(1.0 - bias) * mantissa, normal)
    if dtype == "F8_E4M3":
        value[codes & 0x7F == 0x7F] = np.nan
    else:
        top = exponent == 31
        value[top] = np.where(mantissa[top] == 0, sign[top] * np.inf, np.nan)
    table: FloatArray = value.astype(np.float32)
    return table

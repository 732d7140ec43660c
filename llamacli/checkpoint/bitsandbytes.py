"""bitsandbytes: matrices as 4-bit codes of a table (nf4, fp4) in blocks under one scale, or as 8-bit integers by row.

4 bits: `weight` holds the matrix as one run of codes, the high half of a byte first; `quant_map` is the table, `absmax` the
scales, themselves 8-bit codes of a second table where they are quantized too; a JSON text in `quant_state` gives shape and
block. 8 bits: `weight` times `SCB` over 127. Values are computed in float32, as that library computes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from llamacli.checkpoint.packed import AGAIN, Found, all_of, companion, must_fit
from llamacli.errors import CorruptFile
from llamacli.formats.dtypes import DTYPES, Block, FloatArray, widen
from llamacli.formats.rows import Arena, Rows
from llamacli.formats.safetensors import StoredTensor

KINDS = ("nf4", "fp4")
_MAX_STATE = 4096
"""Bytes; a real one has 150."""
_OVER_127 = np.float32(1 / 127)


def uncovered(settings: Mapping[str, Any]) -> str:
    """What of this checkpoint is another layout, by name; empty for what is read."""
    kind = settings.get("bnb_4bit_quant_type", "nf4")
    four = settings.get("load_in_4bit") or settings.get("_load_in_4bit")
    return "" if not four or kind in KINDS else str(kind)


def find(settings: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Iterator[Found]:
    """Every matrix. Raises CorruptFile for parts that are missing or do not fit together."""
    for name, weight in tensors.items():
        stem = name.removesuffix(".weight")
        if stem == name:
            continue
        state = next((f"quant_state.bitsandbytes__{kind}" for kind in KINDS
                      if f"{name}.quant_state.bitsandbytes__{kind}" in tensors), "")  # fmt: skip
        if state:
            yield _four_bits(name, weight, tensors, companion(tensors, name, state, "U8"))
        elif weight.stored == "I8":
            yield _eight_bits(stem, weight, tensors)


def _eight_bits(stem: str, weight: StoredTensor, tensors: Mapping[str, StoredTensor]) -> Found:
    scale, layout = companion(tensors, stem, "SCB"), tensors.get(f"{stem}.weight_format")
    must_fit(len(weight.shape) == 2 and prod(scale.shape) == weight.shape[0], weight, scale)
    if layout and (layout.size_bytes != 1 or all_of(layout)[0] != 0):
        raise CorruptFile(f"{layout.name!r} is not 0: the matrix is laid out for a graphics card, not by rows")
    parts = (weight.name, scale.name, *([layout.name] if layout else []))
    return Found(weight.name, EightBits(weight, scale), parts)


@dataclass(frozen=True)
class EightBits:
    """Signed bytes times the largest of their row over 127."""

    base: StoredTensor
    scale: StoredTensor
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.base.shape

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        scales = widen(self.scale.read(0, 1, Arena()).reshape(-1)[start:stop, None])
        values: FloatArray = self.base.read(start, stop, arena) * scales * _OVER_127
        return values

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`."""
        yield self.base, start, stop
        yield self.scale, 0, 1


def _four_bits(name: str, weight: StoredTensor, tensors: Mapping[str, StoredTensor], state: StoredTensor) -> Found:
    told = _state(state)
    table, scales = companion(tensors, name, "quant_map", "F32"), companion(tensors, name, "absmax")
    parts = [weight, state, table, scales]
    inner: Inner | None = None
    if scales.stored == "U8":
        codes, outer = (companion(tensors, name, f"nested_{part}", "F32") for part in ("quant_map", "absmax"))
        parts += [codes, outer]
        inner = Inner(codes, outer, told["nested_blocksize"], told["nested_offset"])
        must_fit(
            prod(codes.shape) == 256 and prod(outer.shape) * inner.block >= prod(scales.shape), scales, codes, outer
        )
    must_fit(scales.stored in ("U8", "F32"), weight, scales)
    count = prod(told["shape"])
    rows = FourBits(weight, table, scales, inner, told["shape"], told["blocksize"])
    fits = weight.size_bytes == -(-count // 2) and prod(table.shape) == 16
    must_fit(fits and prod(scales.shape) == -(-count // rows.block), weight, table, scales)
    return Found(name, rows, tuple(part.name for part in parts))


def _state(tensor: StoredTensor) -> dict[str, Any]:
    """The JSON beside a weight. Raises CorruptFile unless it has what is needed."""
    try:
        if tensor.size_bytes > _MAX_STATE:
            raise ValueError
        value = json.loads(bytes(all_of(tensor)))
        shape, block = tuple(value["shape"]), value["blocksize"]
        nested, offset = value.get("nested_blocksize", 1), float(value.get("nested_offset", 0.0))
        if not all(type(n) is int and n > 0 for n in (*shape, block, nested)) or not shape or not np.isfinite(offset):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile(f"{tensor.name!r} does not give a shape and a block", AGAIN) from error
    return {"shape": shape, "blocksize": block, "nested_blocksize": nested, "nested_offset": offset}


@dataclass(frozen=True)
class Inner:
    """How scales that are 8-bit codes become numbers: table · scale of their block + offset."""

    table: StoredTensor
    scales: StoredTensor
    block: int
    offset: float

    def values(self, codes: Block, start: int) -> FloatArray:
        """The scales from number `start` on."""
        outer = widen(all_of(self.scales))[np.arange(start, start + codes.size) // self.block]
        found: FloatArray = widen(all_of(self.table))[codes] * outer + np.float32(self.offset)
        return found


@dataclass(frozen=True)
class FourBits:
    """The rows of one matrix, put together when asked for; see the module."""

    base: StoredTensor
    table: StoredTensor
    scales: StoredTensor
    inner: Inner | None
    shape: tuple[int, ...]
    block: int
    dtype: str = field(default="F32", init=False)

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`: a run of bytes, and the scales of the blocks that it meets."""
        columns = self.shape[-1]
        first, last = start * columns, stop * columns
        octets = _run(self.base, first // 2, -(-last // 2))
        codes = np.stack((octets >> 4, octets & 15), axis=-1).reshape(-1)[first % 2 : first % 2 + last - first]
        low, high = first // self.block, -(-last // self.block)
        size = DTYPES[self.scales.stored].size
        scales: Block = _run(self.scales, low * size, high * size).view(DTYPES[self.scales.stored].numpy)
        wide: FloatArray = self.inner.values(scales, low) if self.inner else scales
        spread = wide.repeat(self.block)[first - low * self.block :][: last - first]
        values: FloatArray = widen(all_of(self.table))[codes] * spread
        return values.reshape(stop - start, columns)

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`: its bytes, and what is beside them whole."""
        columns = self.shape[-1]
        yield _bytes_of(self.base), start * columns // 2, -(-stop * columns // 2)
        for part in (self.table, self.scales, *((self.inner.table, self.inner.scales) if self.inner else ())):
            yield _bytes_of(part), 0, part.size_bytes


def _bytes_of(tensor: StoredTensor) -> StoredTensor:
    """The same bytes, each a row of its own."""
    return StoredTensor(tensor.name, "U8", (tensor.size_bytes, 1), tensor.file, tensor.offset, tensor.size_bytes)


def _run(tensor: StoredTensor, first: int, last: int) -> Block:
    return _bytes_of(tensor).read_raw(first, last, Arena()).reshape(-1)

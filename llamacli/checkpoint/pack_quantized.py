"""compressed-tensors' "pack-quantized": matrices as integers of 2, 4 or 8 bits, rows of words, scales by row or group.

`weight_packed` is (outputs, inputs · bits / 32) and holds each integer plus half its range; `weight_scale` is (outputs, groups)
or one column; `weight_zero_point`, where there is one, is packed along the outputs, or one signed byte each; `weight_g_idx`
names each input's group. The value is (integer - zero) · scale, here in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacli.checkpoint.packed import Found, companion, groups_of, must_fit, scaled, unpack, unpack_rows
from llamacli.formats.dtypes import Block, widen
from llamacli.formats.rows import Arena, Rows, row_count
from llamacli.formats.safetensors import StoredTensor

WIDTHS = (2, 4, 8)


def uncovered(settings: Mapping[str, Any]) -> str:
    """What of this checkpoint is another layout, by name; empty for what is read."""
    widths = _widths(settings)
    if len(widths) == 1 and widths <= set(WIDTHS):
        return ""
    return f"{' and '.join(map(str, sorted(widths)))} bits" if widths else "no width"


def _widths(settings: Mapping[str, Any]) -> set[int]:
    groups = settings.get("config_groups")
    weights = [group.get("weights") or {} for group in groups.values()] if isinstance(groups, Mapping) else []
    return {weight["num_bits"] for weight in weights if type(weight.get("num_bits")) is int}


def find(settings: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Iterator[Found]:
    """Every matrix. Raises CorruptFile for parts that are missing or do not fit together."""
    for name, weight in tensors.items():
        stem = name.removesuffix(".weight_packed")
        if stem == name:
            continue
        companion(tensors, stem, "weight_packed", "I32")
        scale = companion(tensors, stem, "weight_scale")
        zero, order = (tensors.get(f"{stem}.weight_{part}") for part in ("zero_point", "g_idx"))
        others = tuple(part for part in (zero, order, tensors.get(f"{stem}.weight_shape")) if part)
        must_fit(len(weight.shape) == 2, weight)
        rows = PackQuantized(weight, scale, zero, order, *_widths(settings))
        must_fit(rows.fits(), weight, scale, *others)
        yield Found(f"{stem}.weight", rows, (name, scale.name, *(part.name for part in others)))


@dataclass(frozen=True)
class PackQuantized:
    """The rows of one matrix, put together when asked for; see the module."""

    base: StoredTensor
    scale: StoredTensor
    zero: StoredTensor | None
    order: StoredTensor | None
    bits: int
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return (self.base.shape[0], self.base.shape[1] * 32 // self.bits)

    @property
    def _groups(self) -> int:
        return self.scale.shape[1] if len(self.scale.shape) == 2 else 1

    def fits(self) -> bool:
        """Whether all parts have the sizes that belong together."""
        rows, columns = self.shape
        if self.scale.shape not in ((1,), (rows,), (rows, self._groups)) or not self._groups:
            return False
        if self.order is None and columns % self._groups:
            return False
        if self.order and (self.order.stored != "I32" or self.order.shape != (columns,)):
            return False
        packed, plain = (-(-rows * self.bits // 32), self._groups), self.scale.shape
        return self.zero is None or (self.zero.stored, self.zero.shape) in (("I32", packed), ("I8", plain))

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        codes = unpack(self.base.read_raw(start, stop, arena), self.bits)
        group = groups_of(self.order, self.shape[1], self._groups)
        scales = widen(_rows(self.scale, start, stop))
        return scaled(codes, self._zeros(start, stop), scales, group)

    def _zeros(self, start: int, stop: int) -> NDArray[Any]:
        half = 1 << self.bits - 1
        if self.zero is None:
            return np.full((1, 1), half)
        if self.zero.stored == "I8":
            signed: NDArray[Any] = _rows(self.zero, start, stop) + half
            return signed
        found: NDArray[Any] = unpack_rows(self.zero, self.bits, start, stop).T
        return found

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`: its rows, and the parts beside them whole."""
        yield self.base, start, stop
        for part in (self.scale, self.zero, self.order):
            if part:
                yield part, 0, row_count(part.shape)


def _rows(tensor: StoredTensor, start: int, stop: int) -> NDArray[Any]:
    """(rows, groups) of scales or zero points; one number for all stays one."""
    if len(tensor.shape) == 2:
        return tensor.read(start, stop, Arena())
    values = tensor.read(0, 1, Arena()).reshape(-1, 1)
    return values if len(values) == 1 else values[start:stop]

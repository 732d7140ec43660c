"""GPTQ: matrices as integers of 2, 3, 4 or 8 bits with a scale and a zero point for each output and group of inputs.

`qweight` is (inputs · bits / 32, outputs): every column holds one row of the matrix. `qzeros` is packed along the outputs,
one less than the zero point in the first version of the format. `g_idx` names each input's group, which with `desc_act` are
no neighbours. The layout is that of AutoGPTQ and GPTQModel; the value is (code - zero) · scale, here in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamacli.checkpoint.packed import Found, companion, groups_of, must_fit, scaled, unpack, unpack_columns
from llamacli.formats.dtypes import Block, widen
from llamacli.formats.rows import TOGETHER, Arena, Rows
from llamacli.formats.safetensors import StoredTensor

WIDTHS = (2, 3, 4, 8)
FORMATS = {"gptq": 1, "gptq_v2": 0}
"""Name of the layout to what is added to a stored zero point."""


def uncovered(settings: Mapping[str, Any]) -> str:
    """What of this checkpoint's GPTQ is another layout, by name; empty for what is read."""
    kind = _format(settings)
    if kind not in FORMATS:
        return kind
    if settings.get("is_marlin_format") is True:
        return "marlin"
    if settings.get("rotation"):
        return f"rotation {settings['rotation']}"
    return "" if settings.get("pack_dtype", "int32") == "int32" else f"packed in {settings['pack_dtype']}"


def _format(settings: Mapping[str, Any]) -> str:
    return str(settings.get("checkpoint_format") or settings.get("format") or "gptq")


def find(settings: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Iterator[Found]:
    """Every matrix. Raises CorruptFile for parts that are missing or do not fit together."""
    for name, weight in tensors.items():
        stem = name.removesuffix(".qweight")
        if stem == name:
            continue
        parts = [companion(tensors, stem, part, "I32") for part in ("qweight", "qzeros")]
        scales, order = companion(tensors, stem, "scales"), tensors.get(f"{stem}.g_idx")
        must_fit(all(len(part.shape) == 2 for part in (*parts, scales)), *parts, scales)
        rows = Gptq(weight, parts[1], scales, order, FORMATS[_format(settings)])
        must_fit(rows.fits(), *parts, scales, *([order] if order else []))
        yield Found(f"{stem}.weight", rows, (name, parts[1].name, scales.name, *([order.name] if order else [])))


@dataclass(frozen=True)
class Gptq:
    """The rows of one matrix, put together when asked for; see the module."""

    base: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    order: StoredTensor | None
    shift: int
    dtype: str = field(default="F32", init=False)
    together: int = field(default=TOGETHER, init=False)

    @property
    def bits(self) -> int:
        """Width of a code: told by how many zero points a row of words holds. Models may mix widths."""
        return 32 * self.zeros.shape[1] // max(self.scales.shape[1], 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return (self.base.shape[1], self.base.shape[0] * 32 // self.bits)

    def fits(self) -> bool:
        """Whether all parts have the sizes that belong together."""
        groups, outputs = self.scales.shape
        if self.bits not in WIDTHS or self.zeros.shape != (groups, -(-outputs * self.bits // 32)) or not groups:
            return False
        order = self.order is None or (self.order.stored == "I32" and self.order.shape == (self.shape[1],))
        return order and self.base.shape[1] == outputs and self.base.shape[0] * 32 % self.bits == 0

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`: a column of every row of words."""
        bits, groups = self.bits, self.scales.shape[0]
        codes = unpack(self.base.read_part_raw(0, self.base.shape[0], start, stop).T, bits)
        zeros = unpack_columns(self.zeros, bits, start, stop).T + self.shift & (1 << bits) - 1
        scales = widen(self.scales.read_part(0, groups, start, stop)).T
        return scaled(codes, zeros, scales, groups_of(self.order, self.shape[1], groups))

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`: a piece of every row of each part."""
        for part in (self.base, self.zeros, self.scales):
            yield part, 0, part.shape[0]
        if self.order:
            yield self.order, 0, 1

"""AWQ in its "gemm" layout: matrices as integers of 4 bits with a scale and a zero point for each output and group of inputs.

`qweight` is (inputs, outputs / 8), `qzeros` (groups, outputs / 8): eight outputs in a word, their nibbles in the order 0, 2, 4,
6, 1, 3, 5, 7. The layout is AutoAWQ's; the value is (code - zero) · scale, here in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llamacli.checkpoint.packed import Codes, Found, companion, groups_of, must_fit, scaled, unpack
from llamacli.formats.dtypes import Block, widen
from llamacli.formats.rows import TOGETHER, Arena, Rows
from llamacli.formats.safetensors import StoredTensor

IN_WORD = 8
PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])
"""Which nibble of its word each of eight outputs is."""


def uncovered(settings: Mapping[str, Any]) -> str:
    """What of this checkpoint's AWQ is another layout, by name; empty for what is read."""
    kind = str(settings.get("version") or settings.get("checkpoint_format") or settings.get("format") or "gemm").lower()
    bits = settings.get("bits", settings.get("w_bit", 4))
    if kind != "gemm":
        return kind
    if bits != 4:
        return f"{bits} bits"
    return "without zero points" if settings.get("zero_point") is False else ""


def find(settings: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Iterator[Found]:
    """Every matrix. Raises CorruptFile for parts that are missing or do not fit together."""
    for name, weight in tensors.items():
        stem = name.removesuffix(".qweight")
        if stem == name:
            continue
        zeros, scales = companion(tensors, stem, "qzeros", "I32"), companion(tensors, stem, "scales")
        companion(tensors, stem, "qweight", "I32")
        must_fit(len(weight.shape) == len(zeros.shape) == len(scales.shape) == 2, weight, zeros, scales)
        groups, outputs = scales.shape
        fits = outputs == weight.shape[1] * IN_WORD and zeros.shape == (groups, weight.shape[1]) and groups > 0
        must_fit(fits and weight.shape[0] % groups == 0, weight, zeros, scales)
        yield Found(f"{stem}.weight", Awq(weight, zeros, scales), (name, zeros.name, scales.name))


@dataclass(frozen=True)
class Awq:
    """The rows of one matrix, put together when asked for; see the module."""

    base: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    dtype: str = field(default="F32", init=False)
    together: int = field(default=TOGETHER, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return (self.base.shape[1] * IN_WORD, self.base.shape[0])

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`: a column of every row of words."""
        groups = self.scales.shape[0]
        codes, zeros = _codes(self.base, start, stop), _codes(self.zeros, start, stop)
        scales = widen(self.scales.read_part(0, groups, start, stop)).T
        return scaled(codes, zeros, scales, groups_of(None, self.shape[1], groups))

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`: a piece of every row of each part."""
        for part in (self.base, self.zeros, self.scales):
            yield part, 0, part.shape[0]


def _codes(tensor: StoredTensor, start: int, stop: int) -> Codes:
    """Codes of outputs [start, stop): (outputs, rows of the tensor)."""
    first, last = start // IN_WORD, -(-stop // IN_WORD)
    codes = unpack(tensor.read_part_raw(0, tensor.shape[0], first, last), 4)
    ordered = codes.reshape(len(codes), -1, IN_WORD)[:, :, PLACES].reshape(len(codes), -1)
    wanted: Codes = ordered[:, start - first * IN_WORD : stop - first * IN_WORD].T
    return wanted

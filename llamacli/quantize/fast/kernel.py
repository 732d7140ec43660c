"""The fast kernel: which compiled search makes which type, how hard it looks, and one scratch memory per thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.tensor_types import BY_NAME, TensorType
from llamacli.quantize.fast import compiled
from llamacli.quantize.fast.iq4 import quantize_iq4nl, quantize_iq4xs
from llamacli.quantize.fast.legacy import quantize_q40_q50, quantize_q41_q51, quantize_q80
from llamacli.quantize.fast.q2k import quantize_q2k
from llamacli.quantize.fast.q3k_q6k import quantize_q3k_q6k
from llamacli.quantize.fast.q4k_q5k import quantize_q4k_q5k
from llamacli.quantize.fast.tiles import BF16, F16, F32, Blocks, Scratch, Search, new_scratch
from llamacli.quantize.kernels import Rows, address, checked_output

_STORAGE = {"float32": F32, "float16": F16, "uint16": BF16}


@dataclass(frozen=True)
class Method:
    """How one type is made: a compiled entry, its variant, and the search without and with importance."""

    entry: Any
    variant: int
    plain: Search
    weighted: Search


def offsets(first: float, step: float, count: int) -> NDArray[np.float32]:
    """`count` evenly spaced candidates."""
    return np.asarray([first + step * k for k in range(count)], np.float32)


def search(grid: NDArray[np.float32], *, step: float = 0.02, steps: int = 1, flatness: float = 0.0) -> Search:
    """A search with one joint refinement."""
    return Search(grid, step, steps, 1, flatness)


def both_signs(high: float, spread: float, other: Iterable[float]) -> NDArray[np.float32]:
    """What the largest weight becomes: `-high` first, then numbers within `spread` of it, then the `other` end's."""
    around = offsets(-high - spread, spread / 4, 9)
    return np.asarray([around[4], *around[:4], *around[5:], *other], np.float32)


# Grids and flatness were chosen by weighted error and by KL divergence on trained models; benchmarks/kernels.py and
# benchmarks/kernel_quality.py measure both.
METHODS: dict[str, Method] = {
    "Q4_K": Method(
        quantize_q4k_q5k,
        0,
        search(offsets(-1.6, 0.2, 18), steps=2, flatness=2.0),
        search(offsets(-3.0, 0.35, 21)),
    ),
    "Q5_K": Method(quantize_q4k_q5k, 1, search(offsets(-1.6, 0.3, 12)), search(offsets(-1.6, 0.3, 12))),
    "Q3_K": Method(
        quantize_q3k_q6k,
        1,
        search(both_signs(4, 1.2, (3.25, 3.65, 4.05)), step=0.04, flatness=1.0),
        search(both_signs(4, 1.2, (3.25, 3.65, 4.05)), step=0.04),
    ),
    "Q6_K": Method(
        quantize_q3k_q6k,
        0,
        search(both_signs(32, 1.2, ()), step=0.01, flatness=0.3),
        search(both_signs(32, 1.2, ()), step=0.01),
    ),
    "Q2_K": Method(
        quantize_q2k, 0, search(offsets(-1.0, 0.15, 12), flatness=1.0), search(offsets(-1.6, 0.2, 15), steps=1)
    ),
    "IQ4_XS": Method(
        quantize_iq4xs,
        0,
        search(both_signs(127, 8.0, (104, 109, 114, 119, 124, 129)), step=0.01, flatness=0.3),
        search(both_signs(127, 8.0, (104, 109, 114, 119, 124, 129)), step=0.01),
    ),
    "IQ4_NL": Method(
        quantize_iq4nl,
        0,
        search(both_signs(127, 8.0, (104, 109, 114, 119, 124, 129)), step=0.01, flatness=0.3),
        search(both_signs(127, 8.0, (104, 109, 114, 119, 124, 129)), step=0.01),
    ),
    "Q4_0": Method(
        quantize_q40_q50,
        0,
        search(both_signs(8, 1.2, (7.05, 7.45, 7.85)), flatness=2.0),
        search(both_signs(8, 1.2, (7.05, 7.45, 7.85))),
    ),
    "Q5_0": Method(
        quantize_q40_q50,
        1,
        search(both_signs(16, 1.2, (15.05, 15.45, 15.85)), flatness=2.0),
        search(both_signs(16, 1.2, (15.05, 15.45, 15.85))),
    ),
    "Q4_1": Method(quantize_q41_q51, 0, search(offsets(-1.6, 0.2, 18), flatness=2.0), search(offsets(-3.0, 0.35, 21))),
    "Q5_1": Method(quantize_q41_q51, 1, search(offsets(-1.6, 0.3, 12), flatness=2.0), search(offsets(-1.6, 0.3, 12))),
    "Q8_0": Method(quantize_q80, 0, search(offsets(0, 1, 3)), search(offsets(0, 1, 3))),
}


class FastKernel:
    """Our vectorised searches."""

    name = "fast"

    def __init__(self) -> None:
        self._local = threading.local()

    def supports(self, type: TensorType, *, weighted: bool) -> bool:  # noqa: A002
        """The types of METHODS, with and without importance."""
        return type.name in METHODS

    def quantize(
        self,
        type: TensorType,  # noqa: A002
        rows: Rows,
        out: memoryview | NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        """See `Kernel.quantize`."""
        target = checked_output(self, type, rows, out, importance)
        if not rows.size:
            return
        per_row = rows.shape[1] // type.block_size
        method = METHODS[type.name]
        blocks = Blocks(
            source=address(rows),
            storage=_STORAGE[rows.dtype.name],
            importance=0 if importance is None else address(importance),
            per_row=per_row,
            total=rows.shape[0] * per_row,
            out=address(target),
        )
        chosen = method.plain if importance is None else method.weighted
        method.entry(blocks, method.variant, chosen, self._scratch())

    def needs_compile(self, types: Iterable[TensorType]) -> bool:
        """Whether one of these types was not compiled before by this user."""
        return any(not compiled.is_kept(entry_name(kind)) for kind in types if kind.name in METHODS)

    def prepare(self, types: Iterable[TensorType]) -> None:
        """Compile (1 to 6 seconds a family of types) or load (a quarter second) by making one block of zeros of each."""
        if self.needs_compile(types := list(types)):
            compiled.forget_older()
        for kind in types:
            if kind.name in METHODS:
                self.quantize(kind, np.zeros((1, kind.block_size), np.float32), np.zeros(kind.block_bytes, np.uint8))
                compiled.remember(entry_name(kind))

    def _scratch(self) -> Scratch:
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = new_scratch()
        return scratch


def known_types() -> tuple[TensorType, ...]:
    """The types that this kernel makes."""
    return tuple(BY_NAME[name] for name in METHODS)


def entry_name(kind: TensorType) -> str:
    """The compiled function that makes this type."""
    return str(METHODS[kind.name].entry.__name__)

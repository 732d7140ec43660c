"""The fast kernel: compiled searches for rows of weights, with one scratch memory per thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.tensor_types import TensorType
from llamacli.quantize.fast import compiled
from llamacli.quantize.fast.codebooks import books_for
from llamacli.quantize.fast.methods import METHODS
from llamacli.quantize.fast.tiles import BF16, F16, F32, Blocks, Scratch, new_scratch
from llamacli.quantize.kernels import Rows, address, checked_output

_STORAGE = {"float32": F32, "float16": F16, "uint16": BF16}


class FastKernel:
    """Our vectorised searches."""

    name = "fast"

    def __init__(self) -> None:
        self._local = threading.local()

    def supports(self, type: TensorType, *, weighted: bool) -> bool:  # noqa: A002
        """The types of METHODS; the coarsest need an importance."""
        method = METHODS.get(type.name)
        return method is not None and (weighted or not method.always_weighted)

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
        books = (books_for(method.book),) if method.book else ()
        method.entry(blocks, method.variant, chosen, self._scratch(), *books)

    def needs_compile(self, types: Iterable[TensorType]) -> bool:
        """Whether one of these types was not compiled before by this user."""
        return any(not compiled.is_kept(entry_name(kind)) for kind in types if kind.name in METHODS)

    def prepare(self, types: Iterable[TensorType]) -> None:
        """Compile (1 to 6 seconds a family of types) or load (a quarter second) by making one block of zeros of each."""
        if self.needs_compile(types := list(types)):
            compiled.forget_older()
        for kind in types:
            if kind.name in METHODS:
                zeros, importance = np.zeros((1, kind.block_size), np.float32), np.ones(kind.block_size, np.float32)
                self.quantize(kind, zeros, np.zeros(kind.block_bytes, np.uint8), importance)
                compiled.remember(entry_name(kind))

    def _scratch(self) -> Scratch:
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = new_scratch()
        return scratch


def entry_name(kind: TensorType) -> str:
    """The compiled function that makes this type."""
    return str(METHODS[kind.name].entry.__name__)

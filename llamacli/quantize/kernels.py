"""The two ways to quantize rows: ggml's own (exact), and ours (fast).

A kernel turns rows of weights, as a checkpoint stores them, into the blocks of a tensor type. Both give every row the
same bytes whatever rows come with it, and both release the interpreter's lock, so threads may share one kernel.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import CorruptFile, EngineError, UsageError
from llamacli.formats.tensor_types import TensorType
from llamacli.quantize.ggml import GgmlRows, ggml_rows

Rows: TypeAlias = "NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16]"
"""(rows, columns), C-contiguous: float32, float16, or uint16 that holds the bit patterns of bf16."""

KernelName: TypeAlias = Literal["auto", "fast", "ggml"]

WEIGHTS_AT_ONCE = 1 << 16
"""How many weights ggml's kernel widens to float32 at a time: 256 KiB, which stays in the processor's cache."""

NEVER_STORED = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"})
"""Types of ggml that only computations use: not targets."""

WEIGHTED_ONLY = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S"})
"""ggml aborts the process when one of these comes without an importance."""

_EXPONENT = {"float32": 0x7F80_0000, "float16": 0x7C00, "uint16": 0x7F80}
"""Bits that are all ones in NaN and infinity, per storage dtype (uint16 holds bf16)."""


class Kernel(Protocol):
    """A way to quantize rows."""

    name: str

    def supports(self, type: TensorType, *, weighted: bool) -> bool:  # noqa: A002
        """Whether `quantize` can make this type, with (`weighted`) or without an importance."""

    def quantize(
        self,
        type: TensorType,  # noqa: A002
        rows: Rows,
        out: memoryview | NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        """Write `rows.shape[0] * type.row_bytes(rows.shape[1])` bytes to `out`.

        `importance` holds one finite, non-negative float32 per column: how much an error in that column matters.
        Raises EngineError when the arguments do not fit together or the type is not supported, CorruptFile when a
        weight is too large for F16.
        """

    def needs_compile(self, types: Iterable[TensorType]) -> bool:
        """Whether the first use of these types will take seconds to compile."""

    def prepare(self, types: Iterable[TensorType]) -> None:
        """Compile or load what these types need, so that no block waits for it later."""


class GgmlKernel:
    """ggml's quantizers: every type, byte for byte what llama-quantize writes."""

    name = "ggml"

    def __init__(self) -> None:
        self._rows: GgmlRows = ggml_rows()
        self._local = threading.local()

    def supports(self, type: TensorType, *, weighted: bool) -> bool:  # noqa: A002
        """Every target type of ggml; three need an importance."""
        return type.name not in NEVER_STORED and (weighted or type.name not in WEIGHTED_ONLY)

    def quantize(
        self,
        type: TensorType,  # noqa: A002
        rows: Rows,
        out: memoryview | NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        """See `Kernel.quantize`."""
        target = checked_output(self, type, rows, out, importance)
        if _stored_as(rows) == type.name:
            target[:] = rows.reshape(-1).view(np.uint8)
            return
        columns = rows.shape[1]
        step = max(1, WEIGHTS_AT_ONCE // max(columns, 1))
        weights = None if importance is None else address(importance)
        for start in range(0, rows.shape[0], step):
            part = rows[start : start + step]
            where = address(target) + start * type.row_bytes(columns)
            self._rows.quantize(type.id, self._float32(part), where, part.shape[0], columns, weights)
        if type.name == "F16":
            _refuse_overflow(target)

    def needs_compile(self, types: Iterable[TensorType]) -> bool:
        """Nothing is compiled here."""
        return False

    def prepare(self, types: Iterable[TensorType]) -> None:
        """The library is open already."""

    def _float32(self, rows: Rows) -> int:
        """Address of the rows as float32: their own, or this thread's buffer after widening."""
        if rows.dtype == np.float32:
            return address(rows)
        buffer: NDArray[np.float32] | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.size < rows.size:
            buffer = self._local.buffer = np.empty(max(rows.size, WEIGHTS_AT_ONCE), np.float32)
        widen: Callable[[int, int, int], None]
        widen = self._rows.widen_f16 if rows.dtype == np.float16 else self._rows.widen_bf16
        widen(address(rows), address(buffer), rows.size)
        return address(buffer)


class FastThenGgml:
    """Ours for the types it knows, ggml's for the rest."""

    name = "fast"

    def __init__(self, fast: Kernel, ggml: Kernel) -> None:
        self._fast = fast
        self._ggml = ggml

    def chosen(self, type: TensorType, *, weighted: bool) -> Kernel:  # noqa: A002
        """The kernel that will quantize this type."""
        return self._fast if self._fast.supports(type, weighted=weighted) else self._ggml

    def supports(self, type: TensorType, *, weighted: bool) -> bool:  # noqa: A002
        """Whatever either supports."""
        return self._fast.supports(type, weighted=weighted) or self._ggml.supports(type, weighted=weighted)

    def quantize(
        self,
        type: TensorType,  # noqa: A002
        rows: Rows,
        out: memoryview | NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        """See `Kernel.quantize`."""
        self.chosen(type, weighted=importance is not None).quantize(type, rows, out, importance)

    def needs_compile(self, types: Iterable[TensorType]) -> bool:
        """Whether one of ours must be compiled first."""
        return self._fast.needs_compile(types)

    def prepare(self, types: Iterable[TensorType]) -> None:
        """Compile or load ours."""
        self._fast.prepare(types)


@functools.cache
def ggml_kernel() -> Kernel:
    """The engine's own quantizers. Raises EngineError when the bindings cannot be loaded."""
    return GgmlKernel()


def kernel_named(name: KernelName) -> Kernel:
    """The kernel that `--kernel NAME` asks for.

    `ggml` is byte for byte llama-quantize. `fast` is ours for the types that it knows, ggml's for the rest; it raises
    UsageError when numba is missing or does not work here. `auto` is `fast` where that works and `ggml` elsewhere.
    """
    if name == "ggml":
        return ggml_kernel()
    try:
        from llamacli.quantize.fast.kernel import FastKernel
    except ImportError as error:  # numba is absent, or refuses this numpy or this Python
        if name == "auto":
            return ggml_kernel()
        hint = "Install it with `pip install --upgrade numba`, or use --kernel ggml."
        raise UsageError(f"--kernel fast needs numba: {error}", hint) from error
    return FastThenGgml(FastKernel(), ggml_kernel())


def first_nonfinite(rows: Rows) -> int | None:
    """Index, in the flattened rows, of the first NaN or infinity; None when all weights are finite.

    Tests the exponent bits as stored: nothing is widened.
    """
    bits: NDArray[Any] = rows.reshape(-1)
    if bits.dtype != np.uint16:
        bits = bits.view(np.uint32 if bits.dtype == np.float32 else np.uint16)
    exponent = bits.dtype.type(_EXPONENT[rows.dtype.name])
    without_sign = bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    for start in range(0, bits.size, WEIGHTS_AT_ONCE):
        magnitudes = bits[start : start + WEIGHTS_AT_ONCE] & without_sign
        if magnitudes.max() >= exponent:
            return start + int((magnitudes >= exponent).argmax())
    return None


def checked_output(
    kernel: Kernel,
    type: TensorType,  # noqa: A002
    rows: Rows,
    out: memoryview | NDArray[np.uint8],
    importance: NDArray[np.float32] | None,
) -> NDArray[np.uint8]:
    """`out` as a flat array of exactly the bytes to write; native code gets nothing that could make it abort.

    Raises EngineError that names what does not fit.
    """
    if not kernel.supports(type, weighted=importance is not None):
        need = " without an importance matrix" if type.name in WEIGHTED_ONLY and importance is None else ""
        raise EngineError(f"the {kernel.name} kernel cannot make {type}{need}", "Choose another type.")
    if rows.ndim != 2 or rows.dtype.name not in _EXPONENT or not rows.flags.c_contiguous:
        raise EngineError(f"rows must be contiguous (rows, columns), not {rows.dtype} {rows.shape}")
    if rows.shape[1] % type.block_size:
        raise EngineError(f"{type} needs rows that are a multiple of {type.block_size}, not {rows.shape[1]}")
    if importance is not None:
        _check_importance(importance, rows.shape[1])
    target: NDArray[np.uint8] = np.frombuffer(out, np.uint8)
    size = rows.shape[0] * type.row_bytes(rows.shape[1])
    if target.size < size or not target.flags.writeable:
        raise EngineError(f"{rows.shape[0]} rows of {type} need {size} writable bytes, not {target.size}")
    return target[:size]


def address(array: NDArray[Any]) -> int:
    """Where an array's first value lies in memory."""
    return int(array.__array_interface__["data"][0])


def _check_importance(importance: NDArray[np.float32], columns: int) -> None:
    fits = importance.dtype == np.float32 and importance.shape == (columns,) and importance.flags.c_contiguous
    if not fits:
        raise EngineError(f"the importance must be {columns} float32 values, not {importance.dtype} {importance.shape}")
    if not (np.isfinite(importance).all() and importance.min(initial=0) >= 0):
        raise EngineError("the importance has negative, infinite or missing values", "Make the matrix again.")


def _stored_as(rows: Rows) -> str:
    return {"float32": "F32", "float16": "F16", "uint16": "BF16"}[rows.dtype.name]


def _refuse_overflow(target: NDArray[np.uint8]) -> None:
    if first_nonfinite(target.view(np.float16)[None, :]) is not None:
        raise CorruptFile("a weight is larger than F16 can hold (65504)", "Use BF16 or F32 for this tensor.")

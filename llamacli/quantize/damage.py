"""What each type would do to each tensor: measured by quantizing rows of it and restoring them.

The error of a tensor is the sum of squared differences over the sum of squared weights, each column counted by its
importance where a matrix is at hand, or by how columns go together where the search is thorough: the share of noise in
what the tensor computes. Large tensors are judged by a sample of their rows, evenly spread and the same every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.dtypes import Block, FloatArray, widen
from llamacli.formats.rows import Arena, Rows, row_count
from llamacli.formats.tensor_types import TensorType
from llamacli.progress import Progress, Silent
from llamacli.quantize.ggml import ggml_rows
from llamacli.quantize.importance import Importance
from llamacli.quantize.kernels import Kernel, address

if TYPE_CHECKING:
    from llamacli.quantize.thorough import Thorough

SAMPLE_WEIGHTS = 1 << 20
"""Weights of a tensor that are looked at: the error of the error is then below one per cent."""

_FEWER = 16
"""Of these, every how manieth row of a slow type's."""

_PIECE_WEIGHTS = 1 << 17
"""Weights that are quantized at a time: neighbouring rows, so that a disk can follow."""

Errors: TypeAlias = "Mapping[str, Mapping[TensorType, float]]"
"""Share of noise by tensor and type."""


@dataclass(frozen=True)
class _Piece:
    """Neighbouring rows of one tensor; `expert` counts matrices in a stack."""

    name: str
    rows: Rows
    start: int
    stop: int
    expert: int


def measure_errors(
    tensors: Mapping[str, Rows],
    candidates: Mapping[str, Sequence[TensorType]],
    kernel: Kernel,
    importance: Importance | None = None,
    *,
    thorough: Thorough | None = None,
    threads: int = 1,
    sample: int = SAMPLE_WEIGHTS,
    progress: Progress | None = None,
) -> dict[str, dict[TensorType, float]]:
    """The error of every tensor in each of its candidate types; of a type that cannot be made here, nothing.

    Progress counts weights looked at. Raises what reading raises.
    """
    progress = progress or Silent()
    place = local()
    totals: dict[str, NDArray[np.float64]] = {}
    pieces = [piece for name in candidates for piece in _pieces(name, tensors[name], sample)]
    types = {name: _possible(candidates[name], kernel, importance, name) for name in candidates}

    def measure(piece: _Piece) -> tuple[_Piece, NDArray[np.float64]]:
        if not hasattr(place, "arena"):
            place.arena = Arena()
        place.arena.reset()
        weights = importance.weights_for(piece.name, piece.expert) if importance else None
        block = np.ascontiguousarray(piece.rows.read(piece.start, piece.stop, place.arena))
        return piece, _squares(block, types[piece.name], kernel, weights, _about(piece.name, thorough))

    with ThreadPoolExecutor(threads) as pool:
        try:
            for piece, squares in pool.map(measure, pieces):
                totals[piece.name] = totals.get(piece.name, 0) + squares
                progress.describe(piece.name)
                progress.advance((piece.stop - piece.start) * piece.rows.shape[-1])
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {
        name: {kind: float(noise / (whole or 1.0)) for kind, (noise, whole) in zip(types[name], total, strict=True)}
        for name, total in totals.items()
    }


def sampled_weights(tensors: Mapping[str, Rows], names: Sequence[str], sample: int = SAMPLE_WEIGHTS) -> int:
    """How many weights `measure_errors` will look at."""
    pieces = (piece for name in names for piece in _pieces(name, tensors[name], sample))
    return sum((piece.stop - piece.start) * piece.rows.shape[-1] for piece in pieces)


def _possible(
    types: Sequence[TensorType], kernel: Kernel, importance: Importance | None, name: str
) -> tuple[TensorType, ...]:
    weighted = importance is not None and name in importance.known
    return tuple(kind for kind in types if not kind.quantized or kernel.supports(kind, weighted=weighted))


def _pieces(name: str, rows: Rows, sample: int) -> Iterator[_Piece]:
    """Pieces spread over the tensor, none across two matrices of a stack."""
    columns = rows.shape[-1]
    matrix = rows.shape[-2] if len(rows.shape) > 1 else 1
    total = row_count(rows.shape)
    step = min(max(1, _PIECE_WEIGHTS // columns), matrix)
    wanted = max(1, min(sample // (step * columns), -(-total // step)))
    starts = sorted({_aligned(total * number // wanted, matrix, step) for number in range(wanted)})
    for start in starts:
        yield _Piece(name, rows, start, min(start + step, (start // matrix + 1) * matrix), start // matrix)


def _aligned(row: int, matrix: int, step: int) -> int:
    """The start of the piece that holds `row`."""
    return row // matrix * matrix + row % matrix // step * step


@dataclass(frozen=True)
class _Thorough:
    """The thorough search, as it is for one tensor."""

    search: Thorough
    name: str

    def improve(self, kind: TensorType, rows: Block, blocks: NDArray[np.uint8]) -> None:
        if self.search.improves(self.name, kind):
            self.search.improve(self.name, kind, rows, blocks)

    def weighted(self, values: FloatArray) -> float:
        return self.search.weighted(self.name, values)


def _about(name: str, thorough: Thorough | None) -> _Thorough | None:
    return _Thorough(thorough, name) if thorough is not None and thorough.knows(name) else None


def _squares(
    block: Block,
    types: Sequence[TensorType],
    kernel: Kernel,
    importance: NDArray[np.float32] | None,
    thorough: _Thorough | None,
) -> NDArray[np.float64]:
    """For each type the weighted sums of squares of the differences and of the weights: (types, 2)."""
    out = np.empty((len(types), 2), np.float64)
    for number, kind in enumerate(types):
        rows = block[::_FEWER] if _is_slow(kind, kernel) else block
        weights = widen(rows)
        noise = restored(np.ascontiguousarray(rows), kind, kernel, importance, thorough) - weights
        if thorough is None:
            out[number] = _weighted(noise, importance), _weighted(weights, importance)
        else:
            out[number] = thorough.weighted(noise), thorough.weighted(weights)
    return out


def _is_slow(kind: TensorType, kernel: Kernel) -> bool:
    """Whether the search of this type takes seconds for a million weights: ggml's for types with codebooks."""
    return kind.name.startswith("IQ1") or (kernel.name == "ggml" and kind.name.startswith(("IQ2", "IQ3")))


def _weighted(values: FloatArray, importance: NDArray[np.float32] | None) -> float:
    columns = np.einsum("ij,ij->j", values, values)
    return float(columns.sum(dtype=np.float64) if importance is None else np.dot(columns, importance))


def restored(
    block: Block,
    kind: TensorType,
    kernel: Kernel,
    importance: NDArray[np.float32] | None = None,
    thorough: _Thorough | None = None,
) -> FloatArray:
    """What is left of rows after they were stored in `kind`: float32 of the same shape."""
    if not kind.quantized:
        return widen(stored(widen(block), kind))
    quantized = np.empty(block.shape[0] * kind.row_bytes(block.shape[1]), np.uint8)
    kernel.quantize(kind, block, quantized, importance)
    if thorough is not None:
        thorough.improve(kind, block, quantized)
    out: FloatArray = np.empty(block.shape, np.float32)
    ggml_rows().restore(kind.name, address(quantized), address(out), out.size)
    return out


def stored(values: FloatArray, kind: TensorType) -> Block:
    """float32 values in F32, F16 or BF16, the nearest that there is."""
    if kind.name == "F16":
        return values.astype(np.float16)
    if kind.name == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return values


@dataclass(frozen=True, eq=False)
class Stretch:
    """Rows of a tensor from its row `start` on, as `stored` gives them."""

    start: int
    values: Block


def restored_tensor(
    name: str,
    rows: Rows,
    kind: TensorType,
    as_type: TensorType,
    kernel: Kernel,
    importance: Importance | None,
    thorough: Thorough | None = None,
) -> Iterator[Stretch]:
    """A whole tensor as it comes back from `kind`, in stretches, stored as `as_type` (F32, F16 or BF16)."""
    arena = Arena()
    for piece in _pieces(name, rows, 1 << 62):
        arena.reset()
        weights = importance.weights_for(name, piece.expert) if importance else None
        block = np.ascontiguousarray(rows.read(piece.start, piece.stop, arena))
        back = restored(block, kind, kernel, weights, _about(name, thorough))
        yield Stretch(piece.start, stored(back, as_type))

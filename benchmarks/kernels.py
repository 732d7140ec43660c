"""Million weights a second and thread, ours against ggml's, in one process and on the same rows.

    python benchmarks/kernels.py [--types Q4_K,Q6_K] [--rounds 5] [--rows 256] [--checkpoint FOLDER]
        [--page docs/quantizing.md] [--plot docs/quantizing-throughput.svg]

Time is processor time of the thread, so that a busy machine disturbs little; the ratio is the median over rounds, each
of which runs both kernels. Errors are ours over ggml's: `rmse` counts all weights alike, `weighted` as ggml's own search
counts them, `worst` is that of the worst matrix; below 1 is better than ggml. `same` is the share of blocks with equal
bytes. Weights are drawn from Student's t distribution with 6 degrees of freedom, or taken from a checkpoint's matrices.
With --page the table replaces the one between that page's marks `throughput` (drawn weights) or `errors` (a checkpoint).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from bars import Bars, bars_svg, put
from numpy.typing import NDArray

from llamacli.formats.tensor_types import BY_NAME, TensorType
from llamacli.quantize.fast.kernel import FastKernel
from llamacli.quantize.fast.methods import METHODS
from llamacli.quantize.kernels import Kernel, ggml_kernel

Weights = NDArray[np.float32]
HEAD = """| type | search | ours, M/s | ggml, M/s | ratio | rmse | weighted | worst | same |
|---|---|---|---|---|---|---|---|---|"""
STORED = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}


@dataclass
class Row:
    """One line of the table."""

    name: str
    weighted: bool
    ours: float
    ggmls: float
    ratio: float
    rmse: float
    error: float
    worst: float
    same: float

    @property
    def label(self) -> str:
        """The type, and whether it was weighted."""
        return f"{self.name} weighted" if self.weighted else self.name

    def __str__(self) -> str:
        kind = "weighted" if self.weighted else "plain"
        return (
            f"| {self.name} | {kind} | {self.ours:.3g} | {self.ggmls:.3g} | {self.ratio:.3g} "
            f"| {self.rmse:.3f} | {self.error:.3f} | {self.worst:.3f} | {100 * self.same:.1f} % |"
        )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(METHODS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    print(HEAD)
    rows = []
    for row in table(options):
        rows.append(row)
        print(row, flush=True)
    if options.page:
        put(options.page, "errors" if options.checkpoint else "throughput", "\n".join([HEAD, *map(str, rows)]))
    if options.plot:
        lines = [Bars(row.label, (row.ours, row.ggmls)) for row in rows]
        title = "Quantizing with one thread"
        options.plot.write_text(
            bars_svg(lines, ("llamacli", "ggml"), title, "million weights a second (logarithmic)"), encoding="utf-8"
        )


def table(options: argparse.Namespace) -> Iterator[Row]:
    """Every type without and with importance, where both kernels know it."""
    for name in options.types.split(","):
        kind = BY_NAME[name]
        if options.checkpoint:
            matrices = [bits for bits in stored_matrices(options.checkpoint) if bits.shape[1] % kind.block_size == 0]
        else:
            matrices = [bf16(np.random.default_rng(0).standard_t(6, size=(options.rows, 2048)) * 0.02)]
        for weighted in (False, True):
            if ggml_kernel().supports(kind, weighted=weighted) and FastKernel().supports(kind, weighted=weighted):
                yield measured(kind, matrices, weighted, options.rounds)


def measured(kind: TensorType, matrices: list[NDArray[Any]], weighted: bool, rounds: int) -> Row:
    """Both kernels on all matrices, `rounds` times in turn. Ours reads what is stored, ggml's float32."""
    floats = [from_bf16(x) if x.dtype == np.uint16 else x.astype(np.float32) for x in matrices]
    importance = [drawn_importance(x.shape[1]) if weighted else None for x in floats]
    fast, ggml = FastKernel(), ggml_kernel()
    fast.prepare([kind])
    ggml.quantize(kind, floats[0][:1], np.zeros(kind.row_bytes(floats[0].shape[1]), np.uint8), importance[0])  # tables
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds):
        our_bytes, our_time = timed(fast, kind, matrices, importance)
        ggml_bytes, ggml_time = timed(ggml, kind, floats, importance)
        seconds.append((our_time, ggml_time))
    count = sum(x.size for x in floats)
    ours = errors(kind, floats, our_bytes, importance)
    ggmls = errors(kind, floats, ggml_bytes, importance)
    equal = [
        (a.reshape(-1, kind.block_bytes) == b.reshape(-1, kind.block_bytes)).all(1)
        for a, b in zip(our_bytes, ggml_bytes, strict=True)
    ]
    return Row(
        name=kind.name,
        weighted=weighted,
        ours=count / statistics.median(a for a, _ in seconds) / 1e6,
        ggmls=count / statistics.median(b for _, b in seconds) / 1e6,
        ratio=statistics.median(b / a for a, b in seconds),
        rmse=float(np.sqrt(ours[:, 0].sum() / ggmls[:, 0].sum())),
        error=float(ours[:, 1].sum() / ggmls[:, 1].sum()),
        worst=max((float(a / b) for a, b in zip(ours[:, 1], ggmls[:, 1], strict=True) if b), default=1.0),
        same=float(np.concatenate(equal).mean()),
    )


def timed(kernel: Kernel, kind: TensorType, rows: list[Any], importance: list[Any]) -> tuple[list[Any], float]:
    """The bytes of every matrix, and the processor time for all."""
    results = [np.zeros(x.shape[0] * kind.row_bytes(x.shape[1]), np.uint8) for x in rows]
    start = time.thread_time()
    for x, weights, out in zip(rows, importance, results, strict=True):
        kernel.quantize(kind, x, out, weights)
    return results, time.thread_time() - start


def errors(kind: TensorType, matrices: list[Weights], results: list[Any], importance: list[Any]) -> NDArray[np.float64]:
    """(matrices, 2): sums of squared errors, and of squared errors as ggml counts them."""
    found = []
    for x, blocks, weights in zip(matrices, results, importance, strict=True):
        restored = gguf.dequantize(blocks.reshape(x.shape[0], -1), gguf.GGMLQuantizationType[kind.name])
        square = (restored.astype(np.float64) - x) ** 2
        found.append((square.sum(), (ggml_weights(kind.name, x, weights) * square).sum()))
    return np.array(found)


def ggml_weights(name: str, x: Weights, importance: Weights | None) -> NDArray[np.float64]:
    """How much ggml's search counts the error of each weight; equal for the types that it does not search."""
    squares = x.astype(np.float64) ** 2

    def mean(count: int) -> NDArray[np.float64]:
        return np.repeat(squares.reshape(-1, count).mean(1), count).reshape(x.shape)

    if importance is None:
        if name in ("Q4_K", "Q5_K"):
            return np.sqrt(mean(32)) + np.abs(x)
        if name == "IQ2_S":
            return squares + mean(256) / 2
        return np.ones_like(squares) if name in ("Q2_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0") else squares
    if name == "Q6_K":
        return np.broadcast_to(importance, x.shape).astype(np.float64)
    if name == "IQ4_NL":
        return importance * np.sqrt(2 * mean(32) + squares)
    if BY_NAME[name].block_size == 32:
        return importance * np.sqrt(mean(x.shape[1]) + squares)
    share = 1 if name in ("Q2_K", "IQ2_XS", "IQ2_XXS") else 2
    return importance * np.sqrt(share * mean(256) + squares)


def drawn_importance(columns: int) -> Weights:
    """Activations whose sizes differ by orders of magnitude between channels."""
    return (np.random.default_rng(1).gamma(0.5, size=columns) + 0.01).astype(np.float32)


def stored_matrices(folder: Path) -> Iterator[NDArray[Any]]:
    """All matrices of a checkpoint, as stored."""
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name != "__metadata__" and entry["dtype"] in STORED and len(entry["shape"]) == 2:
                start, stop = entry["data_offsets"]
                stored = np.frombuffer(data[8 + size + start : 8 + size + stop], STORED[entry["dtype"]])
                yield stored.reshape(entry["shape"])


def bf16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The bit patterns of values cut to bf16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> Weights:
    """The float32 values of bf16 bit patterns."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


if __name__ == "__main__":
    main()

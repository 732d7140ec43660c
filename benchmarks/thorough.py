"""The thorough search's speed and error beside the usual one's and ggml's, on a checkpoint's matrices and its activations.

    python benchmarks/thorough.py CHECKPOINT TEXT [--types Q4_K,Q3_K] [--windows 32] [--rounds 3] [--every 1]
        [--page docs/quantizing.md]

Million weights a second of processor time of one thread, all three with the importance of TEXT; a ratio is the median
over rounds, each of which runs all three. `error` is e'Ce, errors counted with the activations' second moments within
512 columns, over ggml's; C is of windows of TEXT that the search has not seen: every second window is kept from it. What
is prepared once for an input (some milliseconds for 512 columns) is not counted: models have thousands of rows to share
it. With --page the table replaces the one between that page's marks `thorough`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from bars import put
from numpy.typing import NDArray

from llamacli.evaluate.activations import gather
from llamacli.evaluate.covariance import Products
from llamacli.evaluate.windows import CutText, cut_text
from llamacli.formats.dtypes import widen
from llamacli.formats.rows import Arena
from llamacli.formats.tensor_types import BY_NAME, TensorType
from llamacli.quantize import thorough
from llamacli.quantize.covariance import Covariance
from llamacli.quantize.fast.kernel import FastKernel
from llamacli.quantize.grids import GRIDS
from llamacli.quantize.kernels import ggml_kernel
from llamacli.quantize.model import open_model
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine

HEAD = """| type | usual, M/s | thorough, M/s | ggml, M/s | thorough over ggml | error, usual | error, thorough | worst |
|---|---|---|---|---|---|---|---|"""
PIECE = 1 << 20
"""Weights at a time, as `quantize` takes them."""


@dataclass
class Matrix:
    """Rows as they are stored, and what is known of their input."""

    name: str
    rows: NDArray[Any]
    importance: NDArray[np.float32]
    unseen: list[NDArray[np.float64]]
    """Second moments of other text, window by window."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--types", default=",".join(GRIDS))
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="only every so manieth matrix")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        matrices, covariance = learned(options, Path(folder))
        print(HEAD)
        lines = []
        for name in options.types.split(","):
            lines.append(line(BY_NAME[name], matrices, covariance, options.rounds))
            print(lines[-1], flush=True)
    if options.page:
        put(options.page, "thorough", "\n".join([HEAD, *lines]))


def learned(options: argparse.Namespace, place: Path) -> tuple[list[Matrix], Covariance]:
    """The matrices with what half of the text says of them, and the same of the other half."""
    source = place / "source.gguf"
    command = [
        sys.executable,
        "-m",
        "llamacli",
        "quantize",
        str(options.checkpoint),
        str(source),
        "-q",
        "BF16",
        "--quiet",
    ]
    subprocess.run(command, check=True, capture_output=True)
    with open_engine(source, EngineSettings(ctx_size=512, threads=1)) as engine:
        text = cut_text(engine, options.text.read_text(encoding="utf-8"), 512, 2 * options.windows)
        halves = [half(engine, text, which, place / str(which)) for which in (0, 1)]
    matrices = []
    for name, rows in list(open_model(options.checkpoint).tensors.items()):
        if name in halves[0].places:
            seen, unseen = (moments(found, name) for found in halves)
            importance = np.concatenate([np.diagonal(window) for window in seen]).astype(np.float32)
            whole = np.ascontiguousarray(rows.read(0, rows.shape[0], Arena()))
            matrices.append(Matrix(name, whole, np.ascontiguousarray(importance), unseen))
    return matrices[:: options.every], halves[0]


def half(engine: LlamaEngine, text: CutText, which: int, path: Path) -> Covariance:
    """What every second window says."""
    windows = range(which, len(text), 2)
    tokens = tuple(token for n in windows for token in text.tokens[n * text.size : (n + 1) * text.size])
    products = Products(path)
    gather(engine, CutText(tokens, text.size, text.bos), products=products)
    return Covariance(path, products.places)


def moments(covariance: Covariance, name: str) -> list[NDArray[np.float64]]:
    place = covariance.places[name]
    return [covariance.moments(window, place.tokens) for window in place.windows()]


def line(kind: TensorType, matrices: list[Matrix], covariance: Covariance, rounds: int) -> str:
    """One row of the table."""
    fast, ggml, search = FastKernel(), ggml_kernel(), thorough.Thorough(covariance, keep=len(matrices))
    fast.prepare([kind])
    thorough.prepare()
    for one in matrices:  # what is prepared once
        search.improve(one.name, kind, one.rows[:1], np.zeros(kind.row_bytes(one.rows.shape[1]), np.uint8))

    def usual(one: Matrix, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        fast.quantize(kind, rows, out, one.importance)

    def both(one: Matrix, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        usual(one, rows, out)
        search.improve(one.name, kind, rows, out)

    def theirs(one: Matrix, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        ggml.quantize(kind, widen(rows), out, one.importance)

    ways = (usual, both, theirs)
    first, *others = [[made(kind, matrices, way) for way in ways] for _ in range(rounds)]
    seconds = np.array([[time_taken for _, time_taken in one] for one in (first, *others)])
    speeds = sum(one.rows.size for one in matrices) / np.median(seconds, axis=0) / 1e6
    errors = np.array(
        [[error(kind, one, blocks) for one, blocks in zip(matrices, found, strict=True)] for found, _ in first]
    )
    ratio = statistics.median(seconds[:, 2] / seconds[:, 1])
    usual_error, thorough_error, _ = errors.sum(1) / errors[2].sum()
    worst = (errors[1] / errors[2]).max()
    return (
        f"| {kind.name} | {speeds[0]:.3g} | {speeds[1]:.3g} | {speeds[2]:.3g} | {ratio:.3g} "
        f"| {usual_error:.3f} | {thorough_error:.3f} | {worst:.3f} |"
    )


def made(kind: TensorType, matrices: list[Matrix], way: Callable[..., None]) -> tuple[list[NDArray[np.uint8]], float]:
    """The blocks of every matrix, and the processor time for all."""
    results = [np.zeros((len(one.rows), kind.row_bytes(one.rows.shape[1])), np.uint8) for one in matrices]
    start = time.thread_time()
    for one, out in zip(matrices, results, strict=True):
        for rows in pieces(one):
            way(one, one.rows[rows], out[rows].reshape(-1))
    return results, time.thread_time() - start


def pieces(one: Matrix) -> Iterator[slice]:
    step = max(1, PIECE // one.rows.shape[1])
    for first in range(0, len(one.rows), step):
        yield slice(first, first + step)


def error(kind: TensorType, one: Matrix, blocks: NDArray[np.uint8]) -> float:
    """What the errors make of text that the search has not seen."""
    errors = widen(one.rows).astype(np.float64) - gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind.name])
    total, first = 0.0, 0
    for window in one.unseen:
        part = errors[:, first : first + len(window)]
        total += float(np.vdot(part @ window, part))
        first += len(window)
    return total


if __name__ == "__main__":
    main()

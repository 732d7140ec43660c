"""Gathering an importance matrix: activations from the engine become what the kernels ask for."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.cli.context import Context
from llamacli.cli.quantize_options import QualityOptions
from llamacli.cli.reference import Reference
from llamacli.cli.texts import read_text

if TYPE_CHECKING:
    from llamacli.evaluate.activations import Activations
    from llamacli.evaluate.covariance import Products
    from llamacli.evaluate.windows import CutText
    from llamacli.quantize.importance import ImportanceMatrix
    from llamacli.quantize.plan import PlanOptions
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.llama import LlamaEngine

SAVE_EVERY = 30.0
"""Seconds between partial results on disk."""


@dataclass(frozen=True)
class GatherOptions:
    """What is read and what is gathered. `dataset`: how files will call the text. `chunks` 0: all windows."""

    dataset: str
    ctx_size: int = 512
    chunks: int = 0
    head: bool = False
    parse_special: bool = False


def gather_matrix(
    here: Context,
    path: Path,
    settings: EngineSettings,
    text: str,
    options: GatherOptions,
    *,
    partial: Path | None = None,
    resume: bool = False,
    products: Products | None = None,
) -> ImportanceMatrix:
    """Read `text` with the model at `path` and return its importance matrix; `products` are summed beside it.

    What has been gathered is kept in `partial` meanwhile; with `resume`, what an interrupted run left there counts.
    """
    from llamacli.evaluate.activations import Activations, gather
    from llamacli.evaluate.windows import cut_text
    from llamacli.runtime.llama import open_engine

    with open_engine(path, replace(settings, ctx_size=options.ctx_size)) as engine:
        cut = cut_text(engine, text, options.ctx_size, options.chunks, parse_special=options.parse_special)
        kept = _Kept(here, partial, engine, cut, options)
        begun = kept.read() if resume else Activations()
        try:
            with here.console.progress("gathering", len(cut), unit="windows") as progress:
                gather(
                    engine,
                    cut,
                    begun=begun,
                    head=options.head,
                    products=products,
                    progress=progress,
                    each=kept.now_and_then,
                )
        except BaseException:
            kept.at_last(begun)
            raise
    return _matrix(begun, (options.dataset,), options.ctx_size)


def calibrated(
    here: Context, reference: Reference, options: PlanOptions, quality: QualityOptions, threads: int
) -> PlanOptions:
    """`options` with what `--calibrate` and `--search` ask for: an importance matrix, and how columns go together."""
    from llamacli.evaluate.covariance import Products
    from llamacli.quantize.covariance import Covariance
    from llamacli.runtime.engine import EngineSettings

    if not quality.calibrate:
        return options
    text = read_text(here, quality.calibrate, "calibration")
    settings = EngineSettings(threads=threads or None)
    thorough = quality.search == "thorough"
    products = Products(reference.temporary("products")) if thorough else None
    how = GatherOptions(quality.calibrate, head=thorough)
    matrix = gather_matrix(here, reference.path, settings, text, how, products=products)
    options = replace(options, importance=matrix)
    if products is None:
        return options
    return replace(options, covariance=Covariance(products.path, products.places))


def _matrix(found: Activations, datasets: tuple[str, ...], window: int) -> ImportanceMatrix:
    from llamacli.quantize.importance import Entry, ImportanceMatrix

    entries = {name: Entry(sums.squares.reshape(-1), sums.tokens) for name, sums in found.sums.items()}
    return ImportanceMatrix(entries, datasets, found.windows, window)


class _Kept:
    """What has been gathered so far, in an importance matrix on disk; with no `path` nothing is kept.

    A second name of a text in it tells which model and windows it is of.
    """

    def __init__(
        self, here: Context, path: Path | None, engine: LlamaEngine, cut: CutText, options: GatherOptions
    ) -> None:
        self._here, self._path, self._engine, self._cut, self._options = here, path, engine, cut, options
        self._written = time.monotonic()

    def now_and_then(self, found: Activations) -> None:
        """Write if the last time is long ago."""
        if time.monotonic() - self._written > SAVE_EVERY:
            self.write(found)

    def write(self, found: Activations) -> None:
        """Replace what is on disk."""
        from llamacli.quantize.importance_file import write_importance

        self._written = time.monotonic()
        if self._path is not None and found.windows:
            matrix = _matrix(found, (self._options.dataset, self._key(found.windows)), self._options.ctx_size)
            write_importance(matrix, self._path, force=True)

    def at_last(self, found: Activations) -> None:
        """Write because the run ends before its time, and say so."""
        self.write(found)
        if self._path is not None and found.windows:
            self._here.console.status(
                f"stopped after {found.windows} of {len(self._cut)} windows; the same command with --resume goes on "
                "from there"
            )

    def read(self) -> Activations:
        """What an interrupted run left, if it was the same work."""
        from llamacli.evaluate.activations import Activations, restored
        from llamacli.quantize.importance_file import read_importance

        if self._path is None or not self._path.is_file():
            self._here.console.status("nothing to resume: starting with the first window")
            return Activations()
        matrix = read_importance(self._path)
        if matrix.chunks > len(self._cut) or matrix.datasets[-1:] != (self._key(matrix.chunks),):
            self._here.console.warn(f"{self._path.name} is of another model or text: starting with the first window")
            return Activations()
        self._here.console.status(f"going on after {matrix.chunks} windows")
        sums = {name: (entry.sums, entry.counts) for name, entry in matrix.entries.items()}
        return restored(self._engine, sums, matrix.chunks)

    def _key(self, windows: int) -> str:
        model, cut = self._engine.gguf, self._cut
        facts = (model.path.name, model.size_bytes, len(model.tensors), cut.size, cut.bos, self._options.head)
        tokens = cut.tokens[: windows * cut.size]
        return "resume:" + hashlib.sha256(repr((facts, tokens)).encode()).hexdigest()

"""`llamacli evaluate MODEL...`: perplexity, and how far a model is from what it was made of."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context, located
from llamacli.cli.engine_options import add_loading_options, engine_settings, show_engine_log
from llamacli.cli.reference import runnable
from llamacli.cli.screen.quality import Measured, quality_picture, quality_table
from llamacli.cli.texts import BUILTIN, read_text
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.evaluate.figures import Quality
    from llamacli.evaluate.partial import Partial
    from llamacli.evaluate.windows import CutText
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.llama import LlamaEngine

EXTRA_OPTIONS = (add_loading_options,)


def evaluate_command(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="MODEL... [TEXT]", help="Models, and a text (default: builtin).", autocompletion=complete_model
    ),
    against: str = typer.Option(
        "", "--against", metavar="SOURCE", help="What they were made of: a GGUF or a folder with safetensors."
    ),
    file: str = typer.Option("", "-f", "--file", metavar="TEXT", help="The text: a file, - for stdin, or builtin."),
    ctx_size: int = typer.Option(512, "-c", "--ctx-size", min=1, metavar="N", help="Tokens of a window."),
    chunks: int = typer.Option(0, "--chunks", min=0, metavar="N", help="Most windows to read; 0: all."),
    plot: str = typer.Option("", "--plot", metavar="FILE.svg", help="Draw quality against size."),
    force: bool = typer.Option(False, "--force", help="Overwrite the picture."),
) -> None:
    """Measure perplexity on a text and, with --against, how far each model is from its source.

    \b
    llamacli evaluate model-Q4_K_M.gguf text.txt
    llamacli evaluate *-Q*.gguf --against model-BF16.gguf --plot quality.svg
    llamacli evaluate model-Q4_K_M.gguf --against ./checkpoint --chunks 8 --json

    What has been measured is kept when a run is interrupted; the same command goes on from there.
    """
    from llamacli.formats.atomic import check_target

    here: Context = context.obj
    models, text_name = _models_and_text(here.cwd, names, file)
    settings = engine_settings(context, here.env)
    show_engine_log(here)
    picture = located(here.cwd, plot) if plot else None
    if picture is not None:
        check_target(picture, force=force)
    text = read_text(here, text_name, "heldout")
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(runnable(here, against)) if against else None
        paths = {name: stack.enter_context(runnable(here, name)) for name in models}
        found = _Evaluation(here, settings, text, ctx_size, chunks).run(paths, source)
    quality_table(here.console, found)
    if picture is not None:
        quality_picture(found, picture, force=force)
        here.console.status(f"picture   {picture}")


def _models_and_text(cwd: Path, names: Sequence[str], file: str) -> tuple[list[str], str]:
    """The last argument is the text where it is a file that is no model."""
    models, text = list(dict.fromkeys(names)), file
    last = located(cwd, models[-1])
    if not file and (models[-1] in (BUILTIN, "-") or (last.is_file() and not _is_gguf(last))):
        text = models.pop()
    if not models:
        raise UsageError("evaluate which model?", "llamacli evaluate MODEL... [TEXT]")
    return models, text or BUILTIN


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


class _Evaluation:
    """One text and how it is read."""

    def __init__(self, here: Context, settings: EngineSettings, text: str, ctx_size: int, chunks: int) -> None:
        self._here, self._text, self._ctx_size, self._chunks = here, text, ctx_size, chunks
        self._settings = replace(settings, ctx_size=ctx_size)

    def run(self, paths: dict[str, Path], source: Path | None) -> list[Measured]:
        """All models: beside their source as many at once as memory holds, without one each alone."""
        from llamacli.evaluate.measure import fitting_groups
        from llamacli.runtime.memory import memory

        sizes = {name: path.stat().st_size for name, path in paths.items()}
        if source is None:
            groups = [[name] for name in paths]
        else:
            groups = list(fitting_groups(sizes, source.stat().st_size, int(0.8 * memory().available)))
        found: list[Measured] = []
        partials: list[Partial] = []
        for group in groups:
            found += self._group({name: paths[name] for name in group}, source, partials)
        for partial in partials:
            partial.discard()
        return found

    def _group(self, paths: dict[str, Path], source: Path | None, partials: list[Partial]) -> list[Measured]:
        """These models at once; what is kept of them is added to `partials`, to be removed when all are measured."""
        from llamacli.evaluate.measure import measure
        from llamacli.evaluate.partial import Partial, sweep
        from llamacli.runtime.llama import open_engine

        with contextlib.ExitStack() as stack:
            base = stack.enter_context(open_engine(source, self._settings)) if source else None
            engines = {name: stack.enter_context(open_engine(path, self._settings)) for name, path in paths.items()}
            cut = self._cut(base, list(engines.values()))
            key = self._key(base, engines, cut)
            folder = self._here.cache_dir / "evaluate"
            sweep(folder, self._here.now())
            partial = Partial(folder / f"{key[:32]}.npz", key)
            partials.append(partial)
            if 0 < partial.windows < len(cut):
                self._here.console.status(f"going on after {partial.windows} windows")
            title = f"evaluating {' '.join(Path(name).stem for name in engines)[:40]}"
            try:
                with self._here.console.progress(title, len(cut), unit="windows") as progress:
                    found = measure(engines, cut, base, progress=progress, partial=partial)
            except (KeyboardInterrupt, SystemExit):
                if partial.windows:
                    self._here.console.status(
                        f"stopped after {partial.windows} of {len(cut)} windows; the same command goes on from there"
                    )
                raise
            return [_measured(name, engine, found[name]) for name, engine in engines.items()]

    def _cut(self, base: LlamaEngine | None, engines: Sequence[LlamaEngine]) -> CutText:
        from llamacli.evaluate.windows import cut_text

        first, *others = [base, *engines] if base else engines
        cut = cut_text(first, self._text, self._ctx_size, self._chunks)
        for engine in others:
            if cut_text(engine, self._text, self._ctx_size, self._chunks) != cut:
                raise UsageError(
                    f"{engine.path.name} cuts the text into other tokens than {first.path.name}",
                    "a model can only be compared with the one that it was made of",
                )
        if self._ctx_size > first.train_context:
            self._here.console.warn(f"the model was trained for windows of {first.train_context:,} tokens")
        return cut

    def _key(self, base: LlamaEngine | None, engines: dict[str, LlamaEngine], cut: CutText) -> str:
        """Names everything that the figures depend on."""
        from llamacli.runtime.backends import engine_info

        files = [engine.path.stat() for engine in ([base] if base else []) + list(engines.values())]
        facts = (list(engines), [(file.st_size, file.st_mtime_ns) for file in files], bool(base), cut)
        return hashlib.sha256(repr((facts, self._settings, engine_info().identity)).encode()).hexdigest()


def _measured(name: str, engine: LlamaEngine, quality: Quality) -> Measured:
    stored = sum(tensor.size_bytes for tensor in engine.gguf.tensors)
    return Measured(name, engine.gguf.size_bytes, 8 * stored / engine.gguf.weights, quality)

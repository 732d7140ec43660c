"""A model that the engine can run: a GGUF as it is, a checkpoint through a temporary file in 16 bits."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from llamacli.cli.context import Context, located
from llamacli.cli.models import obtain
from llamacli.cli.sizes import human_size

if TYPE_CHECKING:
    from llamacli.quantize.model import Model


@contextlib.contextmanager
def runnable(here: Context, name: str | None) -> Iterator[Path]:
    """The GGUF of the model that `name` means; a folder with a checkpoint becomes one for as long as it is needed.

    Raises as `model_path` and `quantize`.
    """
    path = located(here.cwd, name) if name else None
    if path is None or not path.is_dir():
        yield obtain(here, name, pull=here.console.pull)
        return
    from llamacli.quantize.model import open_model

    with Reference(here, open_model(path)) as reference:
        yield reference.path


class Reference:
    """A model about to be quantized, as the engine can run it.

    A GGUF is its own reference. Anything else is written to a temporary 16-bit GGUF in `folder` (default: the system's
    place for such files) when it is first asked for, and removed at the end.
    """

    def __init__(self, here: Context, model: Model, folder: Path | None = None) -> None:
        self._here, self._model, self._folder = here, model, folder
        self._stack = contextlib.ExitStack()
        self._written: Path | None = None
        self._temporary: Path | None = None

    @property
    def path(self) -> Path:
        """The file. The first call may take as long as copying the model."""
        inputs = self._model.inputs
        if inputs and all(path.suffix == ".gguf" for path in inputs):
            return inputs[0]
        if self._written is None:
            self._written = self._write(self._place())
        return self._written

    def temporary(self, name: str) -> Path:
        """A path for a file that is removed at the end."""
        return self._place() / name

    def _place(self) -> Path:
        if self._temporary is None:
            made = tempfile.TemporaryDirectory(prefix=".llamacli-", dir=self._folder)
            self._temporary = Path(self._stack.enter_context(made))
        return self._temporary

    def model(self) -> Model:
        """The model to quantize from; what came over the network is not fetched twice if a faithful copy is here."""
        if self._model.stream is None or self._written is None or self._model.dtype not in ("BF16", "F16"):
            return self._model
        from llamacli.quantize.model import open_model

        return replace(self._model, tensors=open_model(self._written).tensors, stream=None)

    def _write(self, folder: Path) -> Path:
        from llamacli.quantize.kernels import kernel_named
        from llamacli.quantize.plan import PlanOptions, make_plan
        from llamacli.quantize.recipes import recipe_named
        from llamacli.quantize.run import Output, quantize

        model = self._model
        kind = "F16" if model.dtype == "F16" else "BF16"
        plan = make_plan(model, recipe_named(kind), PlanOptions())
        target = folder / f"{model.name}-{kind}.gguf"
        self._here.console.status(f"temporary {kind} GGUF of {human_size(plan.size_bytes)} in {folder.parent}")
        with self._here.console.progress("converting", sum(tensor.source_bytes for tensor in plan.tensors)) as progress:
            quantize(model, [Output(plan, target)], kernel_named("ggml"), progress=progress)
        return target

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

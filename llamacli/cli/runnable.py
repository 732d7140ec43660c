"""A model that the engine can run: a GGUF as it is, a checkpoint through a temporary file in 16 bits."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llamacli.cli.context import Context
from llamacli.cli.models import model_path
from llamacli.cli.sizes import human_size


@contextlib.contextmanager
def runnable(here: Context, name: str | None, *, folder: Path | None = None) -> Iterator[Path]:
    """The GGUF of the model that `name` means.

    A folder with a checkpoint is written to a temporary GGUF in `folder` (default: the system's place for such files),
    which is removed at the end. Raises as `model_path` and `quantize`.
    """
    path = here.cwd / Path(name).expanduser() if name else None
    if path is None or not path.is_dir():
        yield model_path(here, name)
        return
    with tempfile.TemporaryDirectory(prefix=".llamacli-", dir=folder) as place:
        yield _in_16_bits(here, path, Path(place))


def _in_16_bits(here: Context, path: Path, folder: Path) -> Path:
    from llamacli.quantize.kernels import kernel_named
    from llamacli.quantize.model import open_model
    from llamacli.quantize.plan import PlanOptions, make_plan
    from llamacli.quantize.recipes import recipe_named
    from llamacli.quantize.run import Output, quantize

    model = open_model(path)
    kind = "F16" if model.dtype == "F16" else "BF16"
    plan = make_plan(model, recipe_named(kind), PlanOptions())
    target = folder / f"{path.resolve().name}-{kind}.gguf"
    here.console.status(f"temporary {kind} GGUF of {human_size(plan.size_bytes)} in {folder}")
    with here.console.progress("converting", sum(tensor.source_bytes for tensor in plan.tensors)) as progress:
        quantize(model, [Output(plan, target)], kernel_named("ggml"), progress=progress)
    return target

"""What `quantize` does: find the model, plan its outputs, carry them out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

import typer

from llamacli.cli.context import Context, located
from llamacli.cli.quantize_report import describe, peak_memory, report_of, summary
from llamacli.cli.sizes import human_size
from llamacli.errors import CannotWrite, UsageError

if TYPE_CHECKING:
    from llamacli.cli.fitting import Mode
    from llamacli.quantize.kernels import Kernel
    from llamacli.quantize.model import Model
    from llamacli.quantize.plan import PlanOptions
    from llamacli.quantize.run import Output


KernelName = Literal["auto", "fast", "ggml"]


@dataclass(frozen=True)
class Asked:
    """What is to be quantized: a model with adapters merged into it, or an adapter of a base."""

    source: str
    lora: tuple[str, ...] = ()
    base: str = ""

    def path(self, cwd: Path) -> Path:
        """The source, if it is a file or folder here."""
        return located(cwd, self.source)

    def is_adapter(self, cwd: Path) -> bool:
        """Whether the source is an adapter's folder."""
        from llamacli.quantize.model import is_adapter

        return is_adapter(self.path(cwd))


def open_asked(here: Context, asked: Asked, as_llama_cpp: bool = False) -> Model:
    """The model: of a folder, a snapshot in the Hub cache, a repository on the Hub, or a GGUF file."""
    from llamacli.quantize.model import through_bf16

    model, is_checkpoint = _found(here, asked)
    return through_bf16(model) if as_llama_cpp and is_checkpoint else model


def _found(here: Context, asked: Asked) -> tuple[Model, bool]:
    """The model as it is, and whether it is a checkpoint."""
    from llamacli.checkpoint.checkpoint import Checkpoint
    from llamacli.cli.adapters import adapter_model, open_adapters
    from llamacli.quantize.model import model_of_checkpoint, open_model

    path = asked.path(here.cwd)
    if asked.is_adapter(here.cwd):
        return adapter_model(here, path, asked.base), False
    adapters = open_adapters(here, asked.lora)
    if not path.exists():
        from llamacli.cli.remote import checkpoint_source

        if (found := checkpoint_source(here, asked.source)) is not None:
            return model_of_checkpoint(Checkpoint.open(found), adapters), True
    return open_model(path, adapters), path.is_dir()


def planned(
    here: Context, asked: Asked, target: str, names: Sequence[str], options: PlanOptions, *, as_llama_cpp: bool
) -> tuple[Model, list[Output]]:
    """The model and one planned output per type. Types are looked up before anything is read."""
    from llamacli.quantize.plan import make_plan
    from llamacli.quantize.recipes import recipe_named
    from llamacli.quantize.run import Output

    recipes = [recipe_named(name) for name in names]
    model = open_asked(here, asked, as_llama_cpp)
    outputs = []
    for recipe in recipes:
        file = target_file(here.cwd, target, model.name, recipe.name, len(recipes))
        outputs.append(Output(make_plan(model, recipe, options), file))
    announce(here, model, outputs)
    return model, outputs


def fitted(
    here: Context, asked: Asked, target: str, options: PlanOptions, context: int, mode: Mode, *, as_llama_cpp: bool
) -> tuple[Model, list[Output]]:
    """The model and the best plan for this machine."""
    from llamacli.cli.quantizations import best_plan
    from llamacli.quantize.run import Output

    model = open_asked(here, asked, as_llama_cpp)
    plan, fit = best_plan(model, options, context, mode)
    outputs = [Output(plan, target_file(here.cwd, target, model.name, plan.recipe.name, 1))]
    announce(here, model, outputs)
    here.console.status(
        f"fit       {plan.recipe.name}: the best that fits; {human_size(plan.size_bytes + fit.beside)} with "
        f"{fit.context} tokens of context, {fit.room.text}"
    )
    return model, outputs


def announce(here: Context, model: Model, outputs: Sequence[Output]) -> None:
    """Say what is read, and what the plans warn of."""
    here.console.status(f"reading   {describe(model)}")
    warn(here, outputs)


def warn(here: Context, outputs: Sequence[Output]) -> None:
    """What the plans warn of, each once."""
    for warning in dict.fromkeys(text for output in outputs for text in output.plan.warnings):
        here.console.warn(warning)


def folder_of_target(cwd: Path, target: str) -> Path:
    """Where the output goes, and with it what is needed on the way."""
    path = located(cwd, target) if target else cwd
    return path if path.is_dir() else path.parent


def target_file(cwd: Path, target: str, name: str, kind: str, count: int) -> Path:
    """The file that a type goes to. Raises UsageError where one file is named for several types."""
    if target == "-":
        raise UsageError("a GGUF file is written at many places, not to a pipe", "name a file or a folder")
    path = located(cwd, target) if target else cwd
    if path.is_dir():
        return path / f"{name}-{kind}.gguf"
    if target.endswith(("/", os.sep)):
        raise UsageError(f"no such folder: {path}", "create it first")
    if count > 1:
        raise UsageError(f"{count} types need a folder as the output, not a file", f"no such folder: {path}")
    return path


def quantize_from_hub(here: Context, text: str, *, yes: bool) -> Path:
    """The repository `text`, which has only safetensors, as the best GGUF for this machine, after a yes.

    It goes to the folder of models made here, where the same name leads to it the next time. Raises DoesNotFit, Abort.
    """
    from llamacli.cli.made import folder_of
    from llamacli.quantize.plan import PlanOptions

    folder = folder_of(here, text)
    folder.mkdir(parents=True, exist_ok=True)
    model, outputs = fitted(here, Asked(text), str(folder), PlanOptions(), 0, "auto", as_llama_cpp=False)
    read, plan = sum(tensor.source_bytes for tensor in outputs[0].plan.tensors), outputs[0].plan
    if not yes:
        question = f"{text} has no GGUF; read {human_size(read)} from the Hub and quantize to {plan.recipe.name}, "
        typer.confirm(f"{question}{human_size(plan.size_bytes)}?", default=True, abort=True, err=True)
    return carry_out(here, model, outputs, "auto", 0, False, report=False)[0]


def kernel_for(name: str) -> Kernel:
    """The kernel called `name`. Raises UsageError."""
    from llamacli.quantize.kernels import kernel_named

    if name not in ("auto", "fast", "ggml"):
        raise UsageError(f"there is no kernel {name!r}", "kernels are auto, fast and ggml")
    return kernel_named(cast("KernelName", name))


def carry_out(
    here: Context,
    model: Model,
    outputs: Sequence[Output],
    kernel: str,
    threads: int,
    force: bool,
    *,
    report: bool = True,
) -> list[Path]:
    """Write the outputs with progress, and say how it went; their paths."""
    from llamacli.quantize.run import check_outputs, quantize

    chosen = kernel_for(kernel)
    check_outputs(model, outputs, force=force)
    for output in outputs:
        here.console.status(f"plan      {summary(output.plan)}")
    types = {tensor.type for output in outputs for tensor in output.plan.tensors}
    search = _search(outputs)
    if chosen.needs_compile(types) or (search and search.needs_compile()):
        here.console.status("compiling the kernels for this processor, once (about ten seconds)")
    chosen.prepare(types)
    if search:
        search.prepare()
    started = time.perf_counter()
    total = sum(tensor.source_bytes for tensor in outputs[0].plan.tensors)
    with _alone(here, model, outputs), here.console.progress("quantize", total) as progress:
        paths = quantize(
            model,
            outputs,
            chosen,
            threads=threads or cores(),
            progress=progress,
            force=force,
        )
    seconds = time.perf_counter() - started
    here.console.status(
        f"done      {seconds:.1f} s · {total / seconds / 1e9:.2f} GB/s read · peak memory {peak_memory()}"
    )
    if here.console.json_output and report:
        here.console.result("", {"outputs": [report_of(output) for output in outputs], "seconds": round(seconds, 3)})
    for path in paths if report and not here.console.json_output else ():
        here.console.result(path)
    return paths


def _search(outputs: Sequence[Output]) -> ModuleType | None:
    """The thorough search, if it is asked for."""
    if all(output.plan.covariance is None for output in outputs):
        return None
    from llamacli.quantize import thorough

    return thorough


@contextlib.contextmanager
def _alone(here: Context, model: Model, outputs: Sequence[Output]) -> Iterator[None]:
    """No other process works on the same output, where what it has left unfinished would be gone on with."""
    if model.stream is None:
        yield
        return
    from llamacli.library.lock import only_one

    path = outputs[0].paths[0].resolve()

    def taken() -> None:
        raise CannotWrite(f"another process is quantizing to {path}", "wait for it, or name another output")

    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    with only_one(here.cache_dir / "locks" / f"{name}.lock", taken):
        yield


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

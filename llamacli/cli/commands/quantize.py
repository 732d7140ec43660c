"""`llamacli quantize`: from a checkpoint to a GGUF file in one pass."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from llamacli.cli.context import Context
from llamacli.cli.fitting import parse_mode
from llamacli.cli.quantize_options import QualityOptions, add_quality_options, quality_options
from llamacli.cli.reference import Reference
from llamacli.cli.sizes import human_size
from llamacli.errors import CannotWrite, NotFound, UsageError

if TYPE_CHECKING:
    from llamacli.cli.fitting import Mode
    from llamacli.quantize.importance import ImportanceMatrix
    from llamacli.quantize.kernels import Kernel
    from llamacli.quantize.model import Model
    from llamacli.quantize.overrides import Overrides
    from llamacli.quantize.plan import Plan, PlanOptions
    from llamacli.quantize.run import Output

DEFAULT_TYPE = "Q4_K_M"
KernelName = Literal["auto", "fast", "ggml"]
EXTRA_OPTIONS = (add_quality_options,)


def quantize_command(
    context: typer.Context,
    source: str = typer.Argument(
        "", metavar="SRC", help="A folder with safetensors, user/repo on the Hub, or a GGUF in F32, F16 or BF16."
    ),
    target: str = typer.Argument(
        "", metavar="[DST]", help="A file, or a folder to put it in. Default: NAME-TYPE.gguf here."
    ),
    third: str = typer.Argument("", metavar="[TYPE]", help="The type, in llama-quantize's place."),
    types: list[str] = typer.Option(
        [], "-q", "--type", metavar="TYPE", help="Q4_K_M, Q8_0, ...; several with commas or repeated."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the plan with exact sizes; read and write no weights."),
    force: bool = typer.Option(False, "--force", help="Overwrite the output (never the input)."),
    threads: int = typer.Option(0, "-t", "--threads", min=0, max=1024, help="Default: all cores."),
    kernel: str = typer.Option(
        "auto", "--kernel", metavar="auto|fast|ggml", help="ggml: byte for byte what llama-quantize writes."
    ),
    tensor_type: list[str] = typer.Option(
        [], "--tensor-type", metavar="REGEX=TYPE", help="The type of tensors by name."
    ),
    output_tensor_type: str = typer.Option(
        "", "--output-tensor-type", metavar="TYPE", help="The type of output.weight."
    ),
    token_embedding_type: str = typer.Option(
        "", "--token-embedding-type", metavar="TYPE", help="The type of token_embd.weight."
    ),
    tensor_type_file: str = typer.Option(
        "", "--tensor-type-file", metavar="FILE", help="REGEX=TYPE entries, one a line."
    ),
    imatrix: str = typer.Option(
        "", "--imatrix", metavar="FILE", help="An importance matrix, GGUF or the older format."
    ),
    include_weights: list[str] = typer.Option(
        [], "--include-weights", metavar="NAME", help="Use the matrix for these tensors only."
    ),
    exclude_weights: list[str] = typer.Option(
        [], "--exclude-weights", metavar="NAME", help="Do not use the matrix for these tensors."
    ),
    leave_output_tensor: bool = typer.Option(False, "--leave-output-tensor", help="Do not quantize output.weight."),
    pure: bool = typer.Option(False, "--pure", help="One type for all tensors, no mixture."),
    override_kv: list[str] = typer.Option([], "--override-kv", metavar="KEY=TYPE:VALUE", help="Set a metadata key."),
    prune: str = typer.Option("", "--prune-layers", metavar="N,N,...", help="Leave these blocks out."),
    keep_split: bool = typer.Option(False, "--keep-split", help="As many files as the source has."),
    split_max_size: str = typer.Option(
        "", "--split-max-size", metavar="N(M|G)", help="Split into files up to this size."
    ),
    fit: str = typer.Option(
        "", "--fit", metavar="[auto|gpu|ram]", help="The best type that fits this machine with room to spare."
    ),
    ctx_size: int = typer.Option(0, "--ctx", min=0, metavar="N", help="Tokens of context for --fit [8192]."),
    lora: list[str] = typer.Option(
        [], "--lora", metavar="ADAPTER[:SCALE]", help="Merge a LoRA adapter, in float32; may be repeated."
    ),
    base: str = typer.Option("", "--base", metavar="MODEL", help="The base of an adapter that is to become a GGUF."),
    list_families: bool = typer.Option(False, "--list-families", help="Print the model families and stop."),
) -> None:
    """Turn a checkpoint into one GGUF file that fits your machine: one pass, no torch, no copy in between.

    \b
    llamacli quantize ./my-finetune                       to my-finetune-Q4_K_M.gguf
    llamacli quantize ./my-finetune -q Q4_K_M,Q8_0        both in one reading
    llamacli quantize ./my-finetune -q Q6_K --dry-run     types and exact bytes, nothing written
    llamacli quantize meta-llama/Llama-3.2-1B             from the Hub; its 16-bit weights never touch the disk
    llamacli quantize ./base --lora ./adapter:0.8         with an adapter merged into it
    llamacli quantize ./adapter --base ./base             the adapter alone, for run --lora
    """
    here: Context = context.obj
    if list_families:
        _show_families(here)
        return
    if not source:
        raise UsageError("quantize what?", "llamacli quantize FOLDER [-q TYPE]")
    asked = _Asked(source, tuple(lora), base)
    quality = quality_options(context)
    if quality.targets and (types or third or fit):
        raise UsageError("a promise takes the place of a type", "leave the type and --fit out, or the promise")
    names = _type_names(types, third) if not asked.is_adapter(here.cwd) else _adapter_type(types, third)
    if keep_split and split_max_size:
        raise UsageError("--keep-split and --split-max-size contradict each other", "give one of them")
    patterns = [*tensor_type, *_entries(here.cwd, tensor_type_file)]
    overrides = _overrides(patterns, output_tensor_type, token_embedding_type, leave_output_tensor, pure)
    matrix = _matrix(here.cwd, imatrix, include_weights, exclude_weights)
    options = _options(overrides, override_kv, prune, keep_split, split_max_size, matrix)
    if quality.needs_engine:
        if imatrix and quality.calibrate:
            raise UsageError("--imatrix and --calibrate are two matrices", "give one of them")
        _with_engine(here, asked, target, names, options, quality, kernel, threads, dry_run=dry_run, force=force)
        return
    if fit:
        if types or third:
            raise UsageError("--fit chooses the type, and so does -q", "give one of them")
        mode = parse_mode(fit)
        model, outputs = _fitted(here, asked, target, options, ctx_size, mode, as_llama_cpp=kernel == "ggml")
    else:
        model, outputs = _planned(here, asked, target, names, options, as_llama_cpp=kernel == "ggml")
    if dry_run:
        _show_plans(here, model, outputs)
        return
    _carry_out(here, model, outputs, kernel, threads, force)


def _type_names(types: Sequence[str], third: str) -> list[str]:
    """The types asked for, each once, in order."""
    asked = [name for text in (*types, third) for name in text.split(",") if name]
    return list(dict.fromkeys(name.upper() for name in asked)) or [DEFAULT_TYPE]


def _entries(cwd: Path, file: str) -> list[str]:
    """The REGEX=TYPE entries of a --tensor-type-file."""
    if not file:
        return []
    path = cwd / Path(file).expanduser()
    if not path.is_file():
        raise NotFound(f"no such file: {path}")
    return path.read_text(encoding="utf-8").split()


def _overrides(patterns: Sequence[str], output: str, embedding: str, leave_output: bool, pure: bool) -> Overrides:
    from llamacli.quantize.overrides import Overrides, parse_tensor_type, type_named

    return Overrides(
        tensor_types=tuple(parse_tensor_type(text) for text in patterns),
        output=type_named(output) if output else None,
        token_embedding=type_named(embedding) if embedding else None,
        pure=pure,
        leave_output=leave_output,
    )


def _matrix(cwd: Path, file: str, include: Sequence[str], exclude: Sequence[str]) -> ImportanceMatrix | None:
    from llamacli.quantize.importance_file import read_importance

    if not file:
        if include or exclude:
            raise UsageError(
                "--include-weights and --exclude-weights choose from a matrix", "give one with --imatrix FILE"
            )
        return None
    return read_importance(cwd / Path(file).expanduser()).only(include, exclude)


def _options(
    overrides: Overrides,
    override_kv: Sequence[str],
    prune: str,
    keep_split: bool,
    split_max_size: str,
    matrix: ImportanceMatrix | None,
) -> PlanOptions:
    from llamacli.quantize.plan import PlanOptions, parse_override_kv, parse_size
    from llamacli.quantize.prune import parse_layers

    return PlanOptions(
        overrides=overrides,
        override_kv=tuple(parse_override_kv(text) for text in override_kv),
        prune=parse_layers(prune) if prune else frozenset(),
        keep_split=keep_split,
        split_max_bytes=parse_size(split_max_size) if split_max_size else 0,
        importance=matrix,
    )


def _planned(
    here: Context, asked: _Asked, target: str, names: Sequence[str], options: PlanOptions, *, as_llama_cpp: bool
) -> tuple[Model, list[Output]]:
    """The model and one planned output per type. Types are looked up before anything is read."""
    from llamacli.quantize.plan import make_plan
    from llamacli.quantize.recipes import recipe_named
    from llamacli.quantize.run import Output

    recipes = [recipe_named(name) for name in names]
    model = _open(here, asked, as_llama_cpp)
    outputs = []
    for recipe in recipes:
        file = _target(here.cwd, target, model.name, recipe.name, len(recipes))
        outputs.append(Output(make_plan(model, recipe, options), file))
    _announce(here, model, outputs)
    return model, outputs


def _fitted(
    here: Context, asked: _Asked, target: str, options: PlanOptions, context: int, mode: Mode, *, as_llama_cpp: bool
) -> tuple[Model, list[Output]]:
    """The model and the best plan for this machine."""
    from llamacli.cli.quantizations import best_plan
    from llamacli.quantize.run import Output

    model = _open(here, asked, as_llama_cpp)
    plan, fit = best_plan(model, options, context, mode)
    outputs = [Output(plan, _target(here.cwd, target, model.name, plan.recipe.name, 1))]
    _announce(here, model, outputs)
    here.console.status(
        f"fit       {plan.recipe.name}: the best that fits; {human_size(plan.size_bytes + fit.beside)} with "
        f"{fit.context} tokens of context, {fit.room.text}"
    )
    return model, outputs


def _with_engine(
    here: Context,
    asked: _Asked,
    target: str,
    names: Sequence[str],
    options: PlanOptions,
    quality: QualityOptions,
    kernel: str,
    threads: int,
    *,
    dry_run: bool,
    force: bool,
) -> None:
    """Quantize with the help of the model itself at work: calibrated, to a promise, or checked afterwards."""
    from llamacli.cli.importance import calibrated
    from llamacli.cli.quality_receipt import Receipts
    from llamacli.cli.targeting import Targeting
    from llamacli.quantize.plan import make_plan
    from llamacli.quantize.recipes import recipe_named
    from llamacli.quantize.run import Output, check_outputs

    recipes = [recipe_named(name) for name in names]
    model = _open(here, asked, kernel == "ggml")
    here.console.status(f"reading   {_describe(model)}")
    chosen = _kernel(kernel)
    with Reference(here, model, _folder(here.cwd, target)) as reference:
        receipts = Receipts(here, model, reference, quality, chosen.name, threads or _cores())
        options = calibrated(here, reference, options, quality, threads)
        if quality.targets:
            targeting = Targeting(
                here, model, reference, options, quality, chosen, threads or _cores(), receipts, trials=not dry_run
            )
            plans = [targeting.plan().plan]
        else:
            plans = [make_plan(model, recipe, receipts.reserved(options, recipe.name)) for recipe in recipes]
        outputs = [Output(plan, _target(here.cwd, target, model.name, plan.recipe.name, len(plans))) for plan in plans]
        _warn(here, outputs)
        if dry_run:
            _show_plans(here, model, outputs)
            return
        check_outputs(model, outputs, force=force)
        paths = _carry_out(here, reference.model(), outputs, kernel, threads, force, report=False)
        checks = receipts.sign(outputs)
    reports = [{**_report(output), "check": check} for output, check in zip(outputs, checks, strict=True)]
    if here.console.json_output:
        here.console.result("", {"outputs": reports})
    for path in () if here.console.json_output else paths:
        here.console.result(path)


def _announce(here: Context, model: Model, outputs: Sequence[Output]) -> None:
    here.console.status(f"reading   {_describe(model)}")
    _warn(here, outputs)


def _warn(here: Context, outputs: Sequence[Output]) -> None:
    for warning in dict.fromkeys(text for output in outputs for text in output.plan.warnings):
        here.console.warn(warning)


@dataclass(frozen=True)
class _Asked:
    """What is to be quantized: a model with adapters merged into it, or an adapter of a base."""

    source: str
    lora: tuple[str, ...] = ()
    base: str = ""

    def path(self, cwd: Path) -> Path:
        """The source, if it is a file or folder here."""
        return cwd / Path(self.source).expanduser()

    def is_adapter(self, cwd: Path) -> bool:
        """Whether the source is an adapter's folder."""
        from llamacli.quantize.model import is_adapter

        return is_adapter(self.path(cwd))


def _adapter_type(types: Sequence[str], third: str) -> list[str]:
    """Adapters are small and stay as exact as they are."""
    if wrong := [name for name in (*types, third) if name and name.upper() != "F32"]:
        raise UsageError(f"an adapter is written in F32, not {wrong[0]}", "leave the type out")
    return ["F32"]


def _open(here: Context, asked: _Asked, as_llama_cpp: bool = False) -> Model:
    """The model: of a folder, a snapshot in the Hub cache, a repository on the Hub, or a GGUF file."""
    from llamacli.quantize.model import through_bf16

    model, is_checkpoint = _found(here, asked)
    return through_bf16(model) if as_llama_cpp and is_checkpoint else model


def _found(here: Context, asked: _Asked) -> tuple[Model, bool]:
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


def _folder(cwd: Path, target: str) -> Path:
    """Where the output goes, and with it what is needed on the way."""
    path = cwd / Path(target).expanduser() if target else cwd
    return path if path.is_dir() else path.parent


def _target(cwd: Path, target: str, name: str, kind: str, count: int) -> Path:
    path = cwd / Path(target).expanduser() if target else cwd
    if path.is_dir():
        return path / f"{name}-{kind}.gguf"
    if target.endswith(("/", os.sep)):
        raise UsageError(f"no such folder: {path}", "create it first")
    if count > 1:
        raise UsageError(f"{count} types need a folder as the output, not a file", f"no such folder: {path}")
    return path


def _describe(model: Model) -> str:
    files = len({path for path in model.inputs if path.suffix in (".safetensors", ".gguf")})
    files = files or len(set(model.shards.values()))
    plural = "s" if files != 1 else ""
    return f"{files} file{plural} · {model.dtype.lower()} · {model.architecture_class} · {count(model.weights)} weights"


def count(number: int) -> str:
    """A number of weights in a short form: 1.24 B."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def quantize_from_hub(here: Context, text: str, *, yes: bool) -> Path:
    """The repository `text`, which has only safetensors, as the best GGUF for this machine, after a yes.

    It goes to the folder of models made here, where the same name leads to it the next time. Raises DoesNotFit, Abort.
    """
    from llamacli.cli.made import folder_of
    from llamacli.quantize.plan import PlanOptions

    folder = folder_of(here, text)
    folder.mkdir(parents=True, exist_ok=True)
    model, outputs = _fitted(here, _Asked(text), str(folder), PlanOptions(), 0, "auto", as_llama_cpp=False)
    read, plan = sum(tensor.source_bytes for tensor in outputs[0].plan.tensors), outputs[0].plan
    if not yes:
        question = f"{text} has no GGUF; read {human_size(read)} from the Hub and quantize to {plan.recipe.name}, "
        typer.confirm(f"{question}{human_size(plan.size_bytes)}?", default=True, abort=True, err=True)
    return _carry_out(here, model, outputs, "auto", 0, False, report=False)[0]


def _kernel(name: str) -> Kernel:
    from llamacli.quantize.kernels import kernel_named

    if name not in ("auto", "fast", "ggml"):
        raise UsageError(f"there is no kernel {name!r}", "kernels are auto, fast and ggml")
    return kernel_named(cast("KernelName", name))


def _carry_out(
    here: Context,
    model: Model,
    outputs: Sequence[Output],
    kernel: str,
    threads: int,
    force: bool,
    *,
    report: bool = True,
) -> list[Path]:
    from llamacli.quantize.run import check_outputs, quantize

    chosen = _kernel(kernel)
    check_outputs(model, outputs, force=force)
    for output in outputs:
        here.console.status(f"plan      {_summary(output.plan)}")
    types = {tensor.type for output in outputs for tensor in output.plan.tensors}
    if chosen.needs_compile(types):
        here.console.status("compiling the kernels for this processor, once (about ten seconds)")
    chosen.prepare(types)
    started = time.perf_counter()
    total = sum(tensor.source_bytes for tensor in outputs[0].plan.tensors)
    with _alone(here, model, outputs), here.console.progress("quantize", total) as progress:
        paths = quantize(
            model,
            outputs,
            chosen,
            threads=threads or _cores(),
            progress=progress,
            force=force,
        )
    seconds = time.perf_counter() - started
    here.console.status(
        f"done      {seconds:.1f} s · {total / seconds / 1e9:.2f} GB/s read · peak memory {_peak_memory()}"
    )
    if here.console.json_output and report:
        here.console.result("", {"outputs": [_report(output) for output in outputs], "seconds": round(seconds, 3)})
    for path in paths if report and not here.console.json_output else ():
        here.console.result(path)
    return paths


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


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _peak_memory() -> str:
    """The most memory that this process has had, as the system counts it."""
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return "not measured"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{peak / 1e6:.0f} MB"


# -- what is shown ---------------------------------------------------------------------------------------------------


def _summary(plan: Plan) -> str:
    files = f" in {len(plan.parts)} files" if len(plan.parts) > 1 else ""
    fallbacks = sum(tensor.choice.fallback for tensor in plan.tensors)
    note = f" · {fallbacks} tensors of odd width in another type" if fallbacks else ""
    return f"{plan.recipe.name} · {plan.size_bytes:,} bytes{files} · {plan.bits_per_weight:.2f} bits per weight{note}"


def _show_plans(here: Context, model: Model, outputs: Sequence[Output]) -> None:
    if here.console.json_output:
        here.console.result(
            "", {"model": model.label, "outputs": [_report(output, tensors=True) for output in outputs]}
        )
        return
    for output in outputs:
        rows = [
            (tensor.name, "×".join(map(str, tensor.shape)), tensor.type, f"{tensor.size_bytes:,}", tensor.choice.reason)
            for tensor in output.plan.tensors
        ]
        here.console.table(("tensor", "shape", "type", "bytes", "why"), rows)
        for path, layout in zip(output.paths, output.plan.layouts, strict=True):
            here.console.result(f"{path}: {layout.size_bytes:,} bytes")
        here.console.result(_summary(output.plan))


def _report(output: Output, *, tensors: bool = False) -> dict[str, Any]:
    plan = output.plan
    report: dict[str, Any] = {
        "type": plan.recipe.name,
        "paths": [str(path) for path in output.paths],
        "bytes": plan.size_bytes,
        "weights": plan.weights,
        "bits_per_weight": round(plan.bits_per_weight, 4),
    }
    if tensors:
        report["tensors"] = [
            {"name": t.name, "shape": list(t.shape), "type": t.type.name, "bytes": t.size_bytes, "why": t.choice.reason}
            for t in plan.tensors
        ]
    return report


def _show_families(here: Context) -> None:
    from llamacli.families.registry import FAMILIES

    rows = [(family.name, ", ".join(family.classes), family.example) for family in FAMILIES]
    here.console.table(("family", "architectures", "example"), rows)

"""`llamacli quantize`: from a checkpoint to a GGUF file in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llamacli.cli.completion import complete_model, complete_type
from llamacli.cli.context import Context, located
from llamacli.cli.fitting import parse_mode
from llamacli.cli.quantize_options import QualityOptions, add_quality_options, quality_options, settled_search
from llamacli.cli.quantize_report import describe, report_of, show_families, show_plans
from llamacli.cli.quantizing import (
    Asked,
    carry_out,
    cores,
    fitted,
    folder_of_target,
    kernel_for,
    open_asked,
    planned,
    target_file,
    warn,
)
from llamacli.cli.reference import Reference
from llamacli.errors import NotFound, UsageError

if TYPE_CHECKING:
    from llamacli.quantize.importance import ImportanceMatrix
    from llamacli.quantize.model import Model
    from llamacli.quantize.overrides import Overrides
    from llamacli.quantize.plan import PlanOptions

DEFAULT_TYPE = "Q4_K_M"
EXTRA_OPTIONS = (add_quality_options,)


def quantize_command(
    context: typer.Context,
    source: str = typer.Argument(
        "",
        metavar="SRC",
        help="A folder with safetensors, user/repo on the Hub, or a GGUF in F32, F16 or BF16.",
        autocompletion=complete_model,
    ),
    target: str = typer.Argument(
        "", metavar="[DST]", help="A file, or a folder to put it in. Default: NAME-TYPE.gguf here."
    ),
    third: str = typer.Argument("", metavar="[TYPE]", help="The type, in llama-quantize's place."),
    types: list[str] = typer.Option(
        [],
        "-q",
        "--type",
        metavar="TYPE",
        help="Q4_K_M, Q8_0, ...; several with commas or repeated.",
        autocompletion=complete_type,
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
    llamacli quantize ./my-finetune --calibrate notes.txt --search thorough   slower, nearer to the original
    llamacli quantize meta-llama/Llama-3.2-1B             from the Hub; its 16-bit weights never touch the disk
    llamacli quantize ./base --lora ./adapter:0.8         with an adapter merged into it
    llamacli quantize ./adapter --base ./base             the adapter alone, for run --lora
    """
    here: Context = context.obj
    if list_families:
        show_families(here)
        return
    if not source:
        raise UsageError("quantize what?", "llamacli quantize FOLDER [-q TYPE]")
    asked = Asked(source, tuple(lora), base)
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
        quality = replace(quality, search=settled_search(quality, kernel))
        _with_engine(here, asked, target, names, options, quality, kernel, threads, dry_run=dry_run, force=force)
        return
    if fit:
        if types or third:
            raise UsageError("--fit chooses the type, and so does -q", "give one of them")
        mode = parse_mode(fit)
        model, outputs = fitted(here, asked, target, options, ctx_size, mode, as_llama_cpp=kernel == "ggml")
    else:
        model, outputs = planned(here, asked, target, names, options, as_llama_cpp=kernel == "ggml")
    if dry_run:
        show_plans(here, model, outputs)
        return
    carry_out(here, model, outputs, kernel, threads, force)


def _type_names(types: Sequence[str], third: str) -> list[str]:
    """The types asked for, each once, in order."""
    asked = [name.strip().upper() for text in (*types, third) for name in text.split(",") if name.strip()]
    if types and not asked:
        raise UsageError("-q names no type", f"for example -q {DEFAULT_TYPE}")
    return list(dict.fromkeys(asked)) or [DEFAULT_TYPE]


def _entries(cwd: Path, file: str) -> list[str]:
    """The REGEX=TYPE entries of a --tensor-type-file."""
    if not file:
        return []
    from llamacli.cli.screen.attach import text_of

    path = located(cwd, file)
    if not path.is_file():
        raise NotFound(f"no such file: {path}")
    return text_of(path).split()


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
    return read_importance(located(cwd, file)).only(include, exclude)


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


def _adapter_type(types: Sequence[str], third: str) -> list[str]:
    """Adapters are small and stay as exact as they are."""
    if wrong := [name for name in (*types, third) if name and name.upper() != "F32"]:
        raise UsageError(f"an adapter is written in F32, not {wrong[0]}", "leave the type out")
    return ["F32"]


def _before_long_work(here: Context, model: Model, target: str, names: Sequence[str], force: bool) -> None:
    """Raises CannotWrite for an output that would be refused in the end. `names`: none where it is not known yet."""
    from llamacli.formats.atomic import check_target

    named = bool(target) and not located(here.cwd, target).is_dir()
    for name in names or ([""] if named else []):
        check_target(target_file(here.cwd, target, model.name, name, len(names)), force=force, inputs=model.inputs)


def _with_engine(
    here: Context,
    asked: Asked,
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
    model = open_asked(here, asked, kernel == "ggml")
    here.console.status(f"reading   {describe(model)}")
    if not dry_run:
        _before_long_work(here, model, target, () if quality.targets else names, force)
    chosen = kernel_for(kernel)
    with Reference(here, model, folder_of_target(here.cwd, target)) as reference:
        receipts = Receipts(here, model, reference, quality, chosen.name, threads or cores())
        options = calibrated(here, reference, options, quality, threads)
        if quality.targets:
            targeting = Targeting(
                here, model, reference, options, quality, chosen, threads or cores(), receipts, trials=not dry_run
            )
            plans = [targeting.plan().plan]
        else:
            plans = [make_plan(model, recipe, receipts.reserved(options, recipe.name)) for recipe in recipes]
        outputs = [
            Output(plan, target_file(here.cwd, target, model.name, plan.recipe.name, len(plans))) for plan in plans
        ]
        warn(here, outputs)
        if dry_run:
            show_plans(here, model, outputs)
            return
        check_outputs(model, outputs, force=force)
        paths = carry_out(here, reference.model(), outputs, kernel, threads, force, report=False)
        checks = receipts.sign(outputs)
    reports = [{**report_of(output), "check": check} for output, check in zip(outputs, checks, strict=True)]
    if here.console.json_output:
        here.console.result("", {"outputs": reports})
    for path in () if here.console.json_output else paths:
        here.console.result(path)

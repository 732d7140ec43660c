"""`llamacli imatrix MODEL TEXT`: which weights matter, learned from what flows through the model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context, located
from llamacli.cli.engine_options import add_loading_options, engine_settings, show_engine_log
from llamacli.cli.reference import runnable
from llamacli.cli.texts import BUILTIN, read_text
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.quantize.importance_file import Format

EXTRA_OPTIONS = (add_loading_options,)


def imatrix_command(
    context: typer.Context,
    model: str = typer.Argument(
        ...,
        metavar="MODEL",
        help="A GGUF, best in 16 bits, or a folder with safetensors.",
        autocompletion=complete_model,
    ),
    text: str = typer.Argument(BUILTIN, metavar="[TEXT]", help="A text file, - for stdin, or builtin."),
    out: str = typer.Option("", "-o", "--output", metavar="FILE", help="Default: NAME.imatrix.gguf here."),
    ctx_size: int = typer.Option(512, "-c", "--ctx-size", min=1, metavar="N", help="Tokens of a window."),
    chunks: int = typer.Option(0, "--chunks", min=0, metavar="N", help="Most windows to read; 0: all."),
    form: str = typer.Option("gguf", "--form", metavar="gguf|dat", help="dat: llama.cpp's older format."),
    resume: bool = typer.Option(False, "--resume", help="Go on from what an interrupted run has gathered."),
    process_output: bool = typer.Option(False, "--process-output", help="Gather for output.weight too."),
    parse_special: bool = typer.Option(False, "--parse-special", help="Let the text's control tokens be such."),
    force: bool = typer.Option(False, "--force", help="Overwrite the output."),
) -> None:
    """Measure how much each weight matters, for `quantize --imatrix`: the squares of what it is multiplied with.

    \b
    llamacli imatrix model-BF16.gguf text.txt          to model-BF16.imatrix.gguf
    llamacli imatrix ./checkpoint builtin -o m.gguf    with the text that ships with the program
    llamacli quantize ./checkpoint -q IQ3_XXS --imatrix m.gguf
    """
    from llamacli.cli.importance import GatherOptions, gather_matrix
    from llamacli.formats.atomic import check_target
    from llamacli.quantize.importance_file import write_importance

    here: Context = context.obj
    settings = engine_settings(context, here.env)
    show_engine_log(here)
    target = located(here.cwd, out or f"{Path(model).resolve().name.removesuffix('.gguf')}.imatrix.{form}")
    check_target(target, force=force)
    words = read_text(here, text, "calibration")
    started = time.perf_counter()
    options = GatherOptions(text, ctx_size, chunks, process_output, parse_special)
    partial = target.with_name(f"{target.name}.partial")
    with runnable(here, model) as path:
        matrix = gather_matrix(here, path, settings, words, options, partial=partial, resume=resume)
    write_importance(matrix, target, _format(form), force=force)
    partial.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    here.console.status(f"{matrix.chunks} windows of {ctx_size} tokens, {len(matrix.entries)} tensors, {seconds:.1f} s")
    here.console.result(
        target,
        {
            "path": str(target),
            "windows": matrix.chunks,
            "window_tokens": ctx_size,
            "tensors": len(matrix.entries),
            "seconds": round(seconds, 3),
        },
    )


def _format(form: str) -> Format:
    if form not in ("gguf", "dat"):
        raise UsageError(f"--form {form}: gguf or dat")
    return cast("Format", form)

"""`llamacli merge FIRST_PART [OUT]`: a split GGUF becomes one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llamacli.cli.console import clean
from llamacli.cli.context import Context
from llamacli.cli.models import model_path
from llamacli.formats.gguf_merge import merge, merged_name
from llamacli.formats.gguf_split import part_paths


def merge_command(
    context: typer.Context,
    first_part: Annotated[str, typer.Argument(metavar="FIRST_PART", help="Any part of the split model.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="The one file; default: the parts' name without numbers.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite OUT.")] = False,
) -> None:
    """Join the parts of a split GGUF into one file. The parts stay.

    \b
    llamacli merge model-00001-of-00003.gguf            writes model.gguf
    llamacli merge model-00001-of-00003.gguf all.gguf
    """
    here: Context = context.obj
    path = model_path(here, first_part)
    target = here.cwd / out if out else merged_name(path)
    total = sum(part.stat().st_size for part in part_paths(path) if part.is_file())
    with here.console.progress("Merging", total) as progress:
        merged = merge(path, target, force=force, progress=progress)
    report = {"path": str(target), "size_bytes": merged.size_bytes, "tensors": len(merged.tensors)}
    here.console.result(clean(str(target)), report)

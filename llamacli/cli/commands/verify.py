"""`llamacli verify MODEL`: is a model file whole and safe?"""

from __future__ import annotations

from typing import Annotated

import typer

from llamacli.cli.console import clean
from llamacli.cli.context import Context
from llamacli.cli.models import model_path
from llamacli.cli.options import ModelArg
from llamacli.cli.quality_receipt import check_receipt, check_source
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_data import check_weights
from llamacli.formats.gguf_reader import read_gguf


def verify_command(
    context: typer.Context,
    model: ModelArg = None,
    header: Annotated[bool, typer.Option("--header", help="Only the header; do not read the weights.")] = False,
    source: Annotated[
        str, typer.Option("--source", metavar="SRC", help="Is this what the receipt says that it was made from?")
    ] = "",
) -> None:
    """Read a model strictly: structure, metadata and vocabulary that the engine can take, and every weight a number.

    \b
    llamacli verify model.gguf              exit code 9 and one line if anything is wrong
    llamacli verify model.gguf --header     in a moment, whatever the size
    llamacli verify model.gguf --source ./checkpoint
    """
    here: Context = context.obj
    gguf = read_gguf(model_path(here, model))
    check_safe(gguf)
    weight_bytes = sum(tensor.size_bytes for tensor in gguf.tensors)
    if not header:
        with here.console.progress("Verifying", weight_bytes) as progress:
            check_weights(gguf, progress)
    proven = [] if header else check_receipt(here, gguf)
    proven += check_source(here, gguf, source) if source else []
    report = {
        "ok": True,
        "files": [str(path) for path in gguf.paths],
        "architecture": gguf.architecture,
        "file_type": gguf.file_type_name,
        "tensors": len(gguf.tensors),
        "parameters": gguf.weights,
        "size_bytes": gguf.size_bytes,
        "weights_read": not header,
        "proven": proven,
    }
    parts = f" in {len(gguf.paths)} files" if len(gguf.paths) > 1 else ""
    line = (
        f"ok: {gguf.path.name}: {gguf.architecture} {gguf.file_type_name}, {len(gguf.tensors)} tensors, "
        f"{gguf.size_bytes:,} bytes{parts}{''.join(f'; {fact}' for fact in proven)}"
    )
    here.console.result(clean(line), report)

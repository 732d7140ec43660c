"""`llamacli verify MODEL`: is a model file whole and safe?"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from llamacli.cli.console import clean
from llamacli.cli.context import Context
from llamacli.cli.models import model_path
from llamacli.cli.options import ModelArg
from llamacli.cli.quality_receipt import check_receipt, check_source
from llamacli.errors import CorruptFile
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_data import check_weights
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.library.digest import file_matches
from llamacli.library.store import bytes_of


def verify_command(
    context: typer.Context,
    model: ModelArg = None,
    header: Annotated[bool, typer.Option("--header", help="Only the header; do not read the weights.")] = False,
    source: Annotated[
        str, typer.Option("--source", metavar="SRC", help="Is this what the receipt says that it was made from?")
    ] = "",
) -> None:
    """Read a model strictly: structure, metadata and vocabulary that the engine can take, and every weight a number.

    A downloaded file is hashed as well: the cache calls it by the SHA-256 that the Hub promised.

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
    proven = [] if header else [*_check_names(here, gguf), *check_receipt(here, gguf)]
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


_HASH = re.compile(r"(?:sha256-)?([0-9a-f]{64})")
"""How the Hub's cache and Ollama call the files that hold the bytes."""


def _check_names(here: Context, gguf: GGUF) -> list[str]:
    """What the names of the files promise of their bytes. Raises CorruptFile."""
    promised = [(path, found[1]) for path in gguf.paths if (found := _HASH.fullmatch(bytes_of(path).name))]
    if not promised:
        return []
    with here.console.progress("Hashing", sum(path.stat().st_size for path, _ in promised)) as progress:
        for path, digest in promised:
            if not file_matches(path, digest, progress):
                raise CorruptFile(
                    f"{path} is damaged: its hash is not the one that was promised", "remove it and download it again"
                )
    return ["SHA-256 as promised"]

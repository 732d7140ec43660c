"""`llamacli embed`: texts to vectors."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context
from llamacli.cli.engine_options import add_loading_options, engine_settings
from llamacli.cli.models import obtain
from llamacli.cli.text_rows import text_rows
from llamacli.errors import UsageError

EXTRA_OPTIONS = (add_loading_options,)

_POOLINGS = ("mean", "cls", "last")


def embed_command(
    context: typer.Context,
    model: str = typer.Argument(None, metavar="[MODEL]", help="An embedding model.", autocompletion=complete_model),
    texts: list[str] = typer.Argument(None, metavar="[TEXT]...", help="Instead of lines of the input."),
    named: str = typer.Option(
        "", "-m", "--model", metavar="MODEL", help="The model; all words are texts.", autocompletion=complete_model
    ),
    file: str = typer.Option("", "-f", "--file", metavar="FILE", help="Lines of this file, each a text."),
    npy: bool = typer.Option(False, "--npy", help="One array of float32 in NumPy's format, for a file."),
    raw: bool = typer.Option(False, "--no-normalize", help="Leave the vectors' lengths as they come."),
    pooling: str = typer.Option("", "--pooling", metavar="mean|cls|last", help="Instead of the model's own."),
) -> None:
    """A vector for every line: JSON arrays, one a line, of length 1.

    \b
    llamacli embed MODEL "a text" "another"
    llamacli embed MODEL < lines.txt > vectors.jsonl
    llamacli embed MODEL -f lines.txt --npy > vectors.npy
    """
    from llamacli.runtime.embedder import open_embedder

    here: Context = context.obj
    if pooling and pooling not in _POOLINGS:
        raise UsageError(f"--pooling {pooling}: one of {', '.join(_POOLINGS)}")
    words = [*([model] if named and model else []), *(texts or [])]
    if npy and here.console.out_is_terminal:
        raise UsageError("--npy writes bytes, and this is a terminal", "redirect it: > vectors.npy")
    path = obtain(here, named or model)
    with contextlib.ExitStack() as stack:
        rows = list(text_rows(here, words, file, stack))
        embedder = stack.enter_context(open_embedder(path, engine_settings(context, here.env), pooling=pooling))
        vectors = embedder.embed([embedder.tokens(row) for row in rows], normalize=not raw)
        if npy:
            _write_npy(here, vectors, len(rows), embedder.size)
            return
        for number, (row, vector) in enumerate(zip(rows, vectors, strict=True), 1):
            rounded = [float(f"{value:.7g}") for value in vector]
            data: Any = {"row": number, "text": row, "embedding": rounded} if here.console.json_output else rounded
            here.console.write(json.dumps(data, ensure_ascii=False) + "\n")


def _write_npy(here: Context, vectors: Iterator[Sequence[float]], count: int, size: int) -> None:
    """NumPy's .npy format, version 1.0: magic, length of the heading, heading padded to 64 bytes, numbers."""
    out = getattr(here.console.out, "buffer", None)
    if out is None:
        raise UsageError("--npy writes bytes; standard output here takes text only")
    heading = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {size}), }}"
    heading += " " * (-(len(heading) + 11) % 64) + "\n"
    out.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(heading)) + heading.encode("latin-1"))
    for vector in vectors:
        out.write(struct.pack(f"<{size}f", *vector))
    out.flush()

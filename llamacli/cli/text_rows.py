"""Texts that a command works on: words of the command line, else the lines of a file or of standard input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llamacli.cli.context import Context
from llamacli.errors import NotFound, UsageError


def text_rows(here: Context, words: Sequence[str], file: str, stack: contextlib.ExitStack) -> Iterator[str]:
    """Every text; empty lines are none. Raises NotFound, and UsageError where nobody says anything."""
    if words:
        yield from words
        return
    for line in source(here, file, stack):
        if text := line.rstrip("\r\n"):
            yield text


def source(here: Context, file: str, stack: contextlib.ExitStack) -> Any:
    """The open file, or standard input. Raises NotFound, UsageError."""
    if file in ("", "-"):
        if here.stdin.isatty():
            raise UsageError("nothing to work on", "pipe it in, or name a file: -f FILE")
        if hasattr(here.stdin, "reconfigure"):
            here.stdin.reconfigure(encoding="utf-8", errors="replace", newline="")
        return here.stdin
    path = here.cwd / Path(file).expanduser()
    if not path.is_file():
        raise NotFound(f"no such file: {file}")
    return stack.enter_context(path.open(encoding="utf-8-sig", errors="replace", newline=""))

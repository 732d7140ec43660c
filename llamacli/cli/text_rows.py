"""Texts that a command works on: words of the command line, else the lines of a file or of standard input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TextIO

from llamacli.cli.context import Context, located
from llamacli.cli.plain_text import lines_of
from llamacli.cli.streams import is_terminal
from llamacli.errors import NotFound, UsageError


def text_rows(here: Context, words: Sequence[str], file: str, stack: contextlib.ExitStack) -> Iterator[str]:
    """Every text; empty lines are none. Raises NotFound, and UsageError where nobody says anything."""
    lines = words or (line.rstrip("\r\n") for line in source(here, file, stack))
    for number, text in enumerate(lines, 1):
        if text:
            yield checked(text, f"text {number}")


def source(here: Context, file: str, stack: contextlib.ExitStack, nothing: str = "nothing to work on") -> TextIO:
    """The open file, or standard input. Raises NotFound, and UsageError where a person would have to type it."""
    if file in ("", "-"):
        if is_terminal(here.stdin):
            raise UsageError(nothing, "pipe it in, or name a file: -f FILE")
        return lines_of(here.stdin)
    path = located(here.cwd, file)
    if not path.is_file():
        raise NotFound(f"no such file: {file}")
    return lines_of(stack.enter_context(path.open(encoding="utf-8")))


def is_text(text: str) -> bool:
    """Whether `text` was UTF-8 in a file: Python hides all other bytes in surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def checked(text: str, what: str) -> str:
    """`text` of the command line or a file, as UTF-8 whatever the locale says. Raises UsageError if it is none."""
    if is_text(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise UsageError(
            f"{what} is not UTF-8 text", "convert it first, for example: iconv -f latin1 -t utf-8"
        ) from None

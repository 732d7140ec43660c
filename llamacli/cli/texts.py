"""A text that a command works on: a file, stdin, or one that ships with the program."""

from __future__ import annotations

from pathlib import Path

from llamacli.cli.context import Context, located
from llamacli.cli.plain_text import decoded
from llamacli.errors import CorruptFile, NotFound, UsageError
from llamacli.evaluate.texts import Name, builtin_text

BUILTIN = "builtin"


def read_text(here: Context, name: str, builtin: Name) -> str:
    """The text that `name` means: a file, `-` for stdin, `builtin` for the one that ships with the program.

    Raises NotFound, CorruptFile for what is no UTF-8, UsageError for an empty text.
    """
    if name == BUILTIN:
        return builtin_text(builtin)
    text = _text(_stdin(here), "standard input") if name == "-" else _read_file(located(here.cwd, name))
    if not text.strip():
        raise UsageError(f"the text {name} is empty")
    return text


def _read_file(path: Path) -> str:
    if not path.is_file():
        raise NotFound(f"no such file: {path}", f"name a text file, - for stdin, or {BUILTIN}")
    return _text(path.read_bytes(), str(path))


def _stdin(here: Context) -> bytes:
    """Its bytes: what Python would make of them depends on the locale."""
    raw = getattr(here.stdin, "buffer", None)
    data: bytes = raw.read() if raw is not None else here.stdin.read().encode()
    return data


def _text(data: bytes, name: str) -> str:
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{name} is no UTF-8 text (byte {error.start:,})", "convert it first") from None

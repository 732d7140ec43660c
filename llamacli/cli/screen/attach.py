"""What is attached to a message: files as blocks of text, and pictures."""

from __future__ import annotations

import glob
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamacli.cli.context import located
from llamacli.cli.plain_text import decoded, is_binary
from llamacli.errors import NotFound, UsageError
from llamacli.library.chats import PictureFile, with_pictures

LARGEST_FILE = 16 << 20
"""Bytes; more text than any context holds, and little enough to read at once."""


@dataclass
class Attached:
    """What goes with the next message: blocks of text behind it, pictures before it."""

    texts: list[str] = field(default_factory=list)
    pictures: list[PictureFile] = field(default_factory=list)

    def message(self, text: str) -> dict[str, Any]:
        """The user's message as it is saved."""
        return with_pictures({"role": "user", "content": "\n".join([text, *self.texts])}, self.pictures)

    def __bool__(self) -> bool:
        return bool(self.texts or self.pictures)

    def __str__(self) -> str:
        parts = ((len(self.texts), "text"), (len(self.pictures), "picture"))
        return " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, what in parts if count)


def block(name: str, text: str) -> str:
    """One file in a message: a line with its name, and its text."""
    return f"--- {name} ---\n{text.rstrip()}\n"


def as_typed(folder: Path, text: str) -> str:
    """The path that `text` means: as it stands, or without the quotes and backslashes of a file dropped on a terminal."""
    if sys.platform == "win32":  # whose terminals quote names with blanks, and whose separator is no mark
        return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text
    try:
        words = shlex.split(text)
        plain = located(folder, text).exists()
    except (OSError, ValueError):  # an odd quote, or too long for a path
        return text
    return words[0] if len(words) == 1 and not plain else text


def blocks_of(folder: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Name and text of each file that a path or a pattern means. Raises NotFound, UsageError for what is no text."""
    plain = located(folder, pattern)
    if plain.is_file():
        yield pattern, text_of(plain)
        return
    names = glob.glob(str(located(Path(), pattern)), root_dir=folder, recursive=True)  # noqa: PTH207
    found = sorted(path for path in (folder / name for name in names) if path.is_file())
    if plain.is_dir():
        raise UsageError(f"{pattern} is a folder", f"its files: {pattern.rstrip('/')}/*")
    if not found:
        raise NotFound(f"no file {pattern}", "a path, or a pattern such as src/*.py")
    for path in found:
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        yield name, text_of(path)


def text_of(path: Path) -> str:
    """The text of a file. Raises NotFound if it cannot be read, UsageError if it is too large or no UTF-8."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= LARGEST_FILE else b""
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    if size > LARGEST_FILE:
        raise UsageError(f"{path} is {size:,} bytes; at most {LARGEST_FILE:,} go into a message")
    if is_binary(data):
        raise UsageError(f"{path} is not text: it has a NUL byte at offset {data.index(0)}")
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: byte {error.start}") from error

"""Files as blocks of a message."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from llamacli.errors import NotFound, UsageError

LARGEST_FILE = 16 << 20
"""Bytes; more text than any context holds, and little enough to read at once."""


def block(name: str, text: str) -> str:
    """One file in a message: a line with its name, and its text."""
    return f"--- {name} ---\n{text.rstrip()}\n"


def blocks_of(folder: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Name and text of each file that a path or a pattern means. Raises NotFound, UsageError for what is no text."""
    plain = folder / Path(pattern).expanduser()
    if plain.is_file():
        yield pattern, text_of(plain)
        return
    found = sorted(path for path in map(Path, glob.glob(str(plain), recursive=True)) if path.is_file())  # noqa: PTH207
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
    if b"\0" in data:
        raise UsageError(f"{path} is not text: it has a NUL byte at offset {data.index(0)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: byte {error.start}") from error

"""What this terminal can show, decided once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from llamacli.cli.console import Console

_DEFAULT_WIDTH = 80


@dataclass(frozen=True)
class Look:
    """How the chat may draw.

    `live`: a person reads the answers on a terminal (else they go out as the bytes they are); `styled`: in colour;
    `wrapped`: lines are broken between words; `redraw`: a line of talk may be erased again; `unicode`: our own marks
    need not be ASCII.
    """

    live: bool
    styled: bool
    wrapped: bool
    redraw: bool
    unicode: bool
    width: Callable[[], int]

    def pick(self, mark: str, plain: str) -> str:
        """The mark, or its ASCII substitute."""
        return mark if self.unicode else plain

    def dim(self, text: str) -> str:
        """Talk that stands back behind the answers."""
        return f"\x1b[2m{text}\x1b[0m" if self.styled else text


def look_of(console: Console, *, plain: bool = False) -> Look:
    """The look of a chat on these streams; `plain` forbids colour and redrawing (screen readers, logs)."""
    redraw = console.err_is_terminal and not plain
    return Look(
        live=console.out_is_terminal,
        styled=console.colored(console.out) and console.out_is_terminal and not plain,
        wrapped=console.out_is_terminal and redraw,
        redraw=redraw,
        unicode=speaks_utf8(console.env),
        width=lambda: width_of(console.err, console.env),
    )


def speaks_utf8(env: Mapping[str, str]) -> bool:
    """Whether the locale says that the terminal understands UTF-8 (Windows and macOS always do)."""
    if sys.platform in ("win32", "darwin"):
        return True
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or ""
    return "utf8" in locale.lower().replace("-", "")


def width_of(stream: TextIO, env: Mapping[str, str]) -> int:
    """Columns of the terminal now: COLUMNS, else what the terminal says, else 80."""
    if (columns := env.get("COLUMNS", "")).isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_WIDTH
    except (OSError, ValueError):
        return _DEFAULT_WIDTH

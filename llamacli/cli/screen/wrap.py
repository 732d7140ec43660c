"""Lines broken between words while they stream, without ever going back."""

from __future__ import annotations

import re
from collections.abc import Callable

_PART = re.compile("(\x1b\\[[0-9;]*m|.)", re.DOTALL)
_BULLET = re.compile(r"[-*+•]|\d{1,3}[.)]")
_SGR = re.compile("\x1b\\[[0-9;]*m")


class Wrap:
    """Breaks a stream of text (which may hold SGR sequences) before words that no longer fit the line.

    Only the word being written is held back. Lines of a list are continued under their text. A word wider than the
    line is left to the terminal.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._word, self._cells = "", 0
        self._spaces = 0
        self._column = 0
        self._indent = 0
        self._overlong = False  # the word being written is already wider than a line

    def feed(self, text: str) -> str:
        """The text that is certain now."""
        return "".join(map(self._next, _PART.findall(text)))

    def flush(self) -> str:
        """The word that was held back."""
        return self._place()

    def verbatim(self, text: str) -> str:
        """Text whose lines are its own, such as code: shown at once as it is."""
        out = self._place() + " " * self._spaces + text
        last = text.rpartition("\n")
        start = 0 if last[1] else self._column + self._spaces
        self._spaces, self._indent = 0, 0
        self._column = start + sum(map(cells_of, _SGR.sub("", last[2])))
        return out

    def _next(self, part: str) -> str:
        if part == "\n":
            out = self._place() + "\n"
            self._column = self._indent = self._spaces = 0
            self._overlong = False
            return out
        if part == " ":
            out = self._place()
            self._spaces += 1
            return out
        if part == "\t":
            out = self._place() + " " * self._spaces + part
            self._column, self._spaces = ((self._column + self._spaces) // 8 + 1) * 8, 0
            return out
        cells = 0 if len(part) > 1 else cells_of(part)
        out = self._place() if cells == 2 else ""  # scripts of wide characters may be broken anywhere
        self._word += part
        self._cells += cells
        if self._cells >= self._width():
            out += self._place()
            self._overlong = True
        return out

    def _place(self) -> str:
        """Show the word held, on this line or the next."""
        if not self._word:
            return ""
        first = self._column == 0
        out = " " * self._spaces
        joined = self._overlong and not self._spaces
        self._overlong = False
        if not first and not joined and self._column + self._spaces + self._cells > self._width():
            out, self._column = "\n" + " " * self._indent, self._indent
        else:
            self._column += self._spaces
        if first:
            bullet = bool(_BULLET.fullmatch(_SGR.sub("", self._word)))
            self._indent = min(self._spaces + (self._cells + 1 if bullet else 0), self._width() // 3)
        self._column += self._cells
        out += self._word
        self._word, self._cells, self._spaces = "", 0, 0
        return out


def cells_of(char: str) -> int:
    """Columns that a character takes: 0, 1 or 2."""
    if char < "\u0300":
        return 1
    from rich.cells import get_character_cell_size

    return get_character_cell_size(char)

"""Markdown as it streams: headings, emphasis, code and tables in colour, never redrawing what was shown.

Text is held back only while its meaning is open: an emphasis until it closes, the first characters of a line, a table
until its end (its columns must line up), during which one line that is erased again says so. The input must already
be free of control sequences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from llamacli.cli.screen.tables import is_table, render_table
from llamacli.cli.screen.wrap import Wrap

Block = Literal["text", "heading", "code", "fence", "table"]

LONGEST_HELD = 240
"""Characters after which an emphasis that does not close is shown as it was written."""

BOLD, DIM, ITALIC, CYAN, RESET = "1", "2", "3", "36", "\x1b[0m"
ERASE_LINE = "\r\x1b[2K"

_MARK = re.compile(r"[*`\\]")
_FENCE = re.compile(r" *(`{3,}|~{3,})([^`]*)$")
_OPENING = re.compile(r" *(#{0,6} *|`{0,2}|~{0,2})$")
_HEADING = re.compile(r" {0,3}#{1,6} +(?=\S)")


def styled(text: str, code: str, around: str = "") -> str:
    """`text` in the style `code` (SGR parameters), returning to the style `around`."""
    return f"\x1b[{code}m{text}{RESET}" + (f"\x1b[{around}m" if around else "")


class Markdown:
    """Turns a stream of Markdown into a stream of text for a terminal that understands colour (SGR).

    `width` tells how many columns there are now: text is broken between words, tables that would be wider are written
    out row by row, code is left as it is.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._wrap = Wrap(width)
        self._held = ""  # of the current line: what has not been shown yet
        self._block: Block | None = None  # of the current line; None while open
        self._fence = ""  # the characters that opened the code block we are in
        self._table: list[str] = []
        self._before = "\n"  # the character last shown, for what may open an emphasis

    def feed(self, text: str) -> str:
        """What may be shown now."""
        out = []
        *lines, last = text.split("\n")
        for line in lines:
            self._held += line
            out.append(self._end_line())
        self._held += last
        out.append(self._advance())
        return "".join(out)

    def flush(self) -> str:
        """The end of the stream, also of one that was stopped: everything still held is shown."""
        out = self._end_line(newline="") if self._held or self._block else ""
        return out + self._end_table() + self._wrap.flush()

    def _end_line(self, newline: str = "\n") -> str:
        """The rest of a line that is now whole."""
        line, block = self._held, self._block or self._decide(whole=True)
        out = ""
        if block == "table":
            self._table.append(line)
            out = ERASE_LINE + styled(f"table, {len(self._table)} rows", DIM)
        else:
            show = self._wrap.verbatim if block in ("code", "fence") else self._wrap.feed
            out = self._end_table() + show(self._whole(line, block) + newline)
        self._held, self._block, self._before = "", None, "\n"
        return out

    def _whole(self, line: str, block: Block | None) -> str:
        if block == "fence":
            self._fence = "" if self._fence else _fence_of(line)
            return styled(line, DIM)
        if block == "code":
            return line
        if block == "heading":
            start = f"\x1b[{BOLD}m" if self._before == "\n" else ""
            return start + self._inline(self._heading_mark(line), whole=True, around=BOLD)[0] + RESET
        return self._inline(line, whole=True)[0]

    def _advance(self) -> str:
        """Show what is certain of an unfinished line."""
        if self._block is None and self._held:
            self._block = self._decide(whole=False)
        if self._block in (None, "table"):
            return ""
        before = self._end_table()
        if self._block == "code":
            out, self._held = self._held, ""
            return before + self._wrap.verbatim(out)
        around = BOLD if self._block == "heading" else ""
        start = ""
        if around and self._before == "\n":
            self._held, start = self._heading_mark(self._held), f"\x1b[{BOLD}m"
            self._before = " "
        out, self._held = self._inline(self._held, whole=False, around=around)
        return before + self._wrap.feed(start + out)

    def _heading_mark(self, line: str) -> str:
        """A heading without its marks, if they are still there."""
        return _HEADING.sub("", line, count=1) if self._before == "\n" else line

    def _decide(self, *, whole: bool) -> Block | None:
        """What kind of line this is, or None if its beginning does not tell yet."""
        line = self._held
        if self._fence:
            mark = line.strip()
            if not whole and set(mark) <= {self._fence[0]} and len(mark) <= len(self._fence):
                return None
            closes = len(mark) >= len(self._fence) and set(mark) == {self._fence[0]}
            return "fence" if whole and closes else "code"
        if _FENCE.match(line):
            return "fence" if whole else None
        if _HEADING.match(line):
            return "heading"
        if line.lstrip(" ").startswith("|"):
            return "table"
        if not whole and _OPENING.match(line) and len(line) < 32:
            return None
        return "text"

    def _end_table(self) -> str:
        lines, self._table = self._table, []
        if not lines:
            return ""
        if not is_table(lines):
            return ERASE_LINE + self._wrap.feed("".join(self._apart(line) + "\n" for line in lines))
        return ERASE_LINE + render_table(lines, self._width(), self._apart)

    def _apart(self, text: str) -> str:
        """A text of its own, such as a cell, styled."""
        self._before = "\n"
        return self._inline(text, whole=True)[0]

    def _inline(self, text: str, *, whole: bool, around: str = "") -> tuple[str, str]:
        """The styled part of `text`, and the rest that must wait for more (nothing if `whole`)."""
        out, at = [], 0
        while mark := _MARK.search(text, at):
            out.append(text[at : mark.start()])
            if mark.start() > at:
                self._before = text[mark.start() - 1]
            step = self._mark(text, mark.start(), whole, around)
            if step is None:
                return "".join(out), text[mark.start() :]
            shown, at = step
            out.append(shown)
            self._before = text[at - 1]
        out.append(text[at:])
        if text[at:]:
            self._before = text[-1]
        return "".join(out), ""

    def _mark(self, text: str, at: int, whole: bool, around: str) -> tuple[str, int] | None:
        """What is shown for the mark at `at` and where to go on, or None to wait."""
        whole = whole or len(text) - at > LONGEST_HELD + 8  # what closes within LONGEST_HELD has been seen whole
        if text[at] == "\\":
            if at + 1 == len(text):
                return ("\\", at + 1) if whole else None
            escaped = text[at + 1] in "*`_#|~"
            return (text[at + 1] if escaped else "\\" + text[at + 1], at + 2)
        run = _run(text, at)
        if at + len(run) == len(text):
            return (run, len(text)) if whole else None
        if text[at] == "`":
            return self._code(text, at, run, whole, around)
        return self._emphasis(text, at, run, whole, around)

    def _code(self, text: str, at: int, run: str, whole: bool, around: str) -> tuple[str, int] | None:
        start = at + len(run)
        stop = _closing(text, start, run, at + LONGEST_HELD)
        if stop < 0 or (not whole and stop + len(run) == len(text)):
            return (run, start) if whole else None
        inner = text[start:stop]
        if inner[:1] == inner[-1:] == " " and inner.strip():
            inner = inner[1:-1]
        return styled(inner, f"{around};{CYAN}" if around else CYAN, around), stop + len(run)

    def _emphasis(self, text: str, at: int, run: str, whole: bool, around: str) -> tuple[str, int] | None:
        start = at + len(run)
        if text[start].isspace() or len(run) > 3 or (_is_word(self._before) and _is_word(text[start])):
            return run, start
        stop = _closing(text, start + 1, run, at + LONGEST_HELD)
        while stop >= 0 and text[stop - 1].isspace():
            stop = _closing(text, stop + len(run), run, at + LONGEST_HELD)
        if stop < 0 or (not whole and stop + len(run) == len(text)):
            return (run, start) if whole else None
        code = {1: ITALIC, 2: BOLD, 3: f"{BOLD};{ITALIC}"}[len(run)]
        code = f"{around};{code}" if around else code
        self._before = run[0]
        return styled(self._inline(text[start:stop], whole=True, around=code)[0], code, around), stop + len(run)


def _run(text: str, at: int) -> str:
    """The run of one character that begins at `at`."""
    stop = at
    while stop < len(text) and text[stop] == text[at]:
        stop += 1
    return text[at:stop]


def _is_word(char: str) -> bool:
    """Between such characters an asterisk multiplies; scripts written without spaces are not meant."""
    return char.isascii() and char.isalnum()


def _closing(text: str, start: int, run: str, limit: int) -> int:
    """Where a run exactly like `run` begins, from `start` to `limit`; -1 if there is none."""
    at = text.find(run[0], start)
    while 0 <= at <= limit:
        found = _run(text, at)
        if found == run:
            return at
        at = text.find(run[0], at + len(found))
    return -1


def _fence_of(line: str) -> str:
    found = _FENCE.match(line)
    return found.group(1) if found else ""

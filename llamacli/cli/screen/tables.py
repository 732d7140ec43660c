"""Markdown tables as aligned columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

Align = Literal["<", ">", "^"]

_RULE = re.compile(r" *\|?(?: *:?-+:? *\|)* *:?-+:? *\|? *$")
_PIPE = re.compile(r"(?<!\\)\|")
_SGR = re.compile("\x1b\\[[0-9;]*m")
_GAP = "  "


def is_table(lines: Sequence[str]) -> bool:
    """Whether the second line is the rule that makes a table of these lines."""
    return len(lines) >= 2 and bool(_RULE.match(lines[1]))


def cells_of(line: str) -> list[str]:
    r"""The cells of a row; `\|` is a bar within a cell."""
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _PIPE.split(inner)]


def render_table(lines: Sequence[str], width: int, inline: Callable[[str], str]) -> str:
    """The table with its columns aligned, or one `heading: cell` line per cell where it is wider than `width`.

    `inline` styles a cell; what it adds must be SGR sequences, which take no room.
    """
    head = cells_of(lines[0])
    count = len(head)
    aligns = _filled([_align(cell) for cell in cells_of(lines[1])], count, "<")
    plain = [head, *[_filled(cells_of(line), count, "") for line in lines[2:]]]
    rows = [[inline(cell) for cell in row] for row in plain]
    widths = [max(_columns(row[i]) for row in rows) for i in range(count)]
    if sum(widths) + len(_GAP) * (count - 1) > width:
        return _as_records(rows)
    out = [_row([f"\x1b[1m{cell}\x1b[0m" for cell in rows[0]], widths, aligns)]
    out.append("\x1b[2m" + _GAP.join("─" * size for size in widths) + "\x1b[0m")
    out.extend(_row(row, widths, aligns) for row in rows[1:])
    return "".join(line.rstrip() + "\n" for line in out)


def _align(rule: str) -> Align:
    if rule.endswith(":"):
        return "^" if rule.startswith(":") else ">"
    return "<"


def _filled(cells: list[str], count: int, value: str) -> list[str]:
    return (cells + [value] * count)[:count]


def _row(cells: Sequence[str], widths: Sequence[int], aligns: Sequence[str]) -> str:
    return _GAP.join(_padded(cell, size, align) for cell, size, align in zip(cells, widths, aligns, strict=True))


def _padded(cell: str, width: int, align: str) -> str:
    room = width - _columns(cell)
    left = {"<": 0, ">": room, "^": room // 2}[align]
    return " " * left + cell + " " * (room - left)


def _columns(text: str) -> int:
    """Columns that `text` takes on a terminal; East Asian characters take two."""
    from rich.cells import cell_len

    return cell_len(_SGR.sub("", text))


def _as_records(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    records = ("".join(f"{name}: {cell}\n" for name, cell in zip(head, row, strict=True)) for row in body)
    return "\n".join(records)

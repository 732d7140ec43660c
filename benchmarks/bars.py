"""A bar chart as an SVG, and tables put into a page between their marks; what the benchmarks' reports share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760, 150, 70, 64, 44
THICK, GAP = 11, 9
COLOURS = ("#1f6feb", "#d1571f")


@dataclass(frozen=True)
class Bars:
    """One line of the chart: a name and one value for each series; a value of 0 is not drawn."""

    name: str
    values: tuple[float, ...]


def bars_svg(lines: Sequence[Bars], series: Sequence[str], title: str, label: str) -> str:
    """Horizontal bars on a logarithmic axis, in the order given."""
    positive = [value for line in lines for value in line.values if value > 0]
    low, high = 10 ** math.floor(math.log10(min(positive))), max(positive) * 1.1
    step = len(series) * THICK + GAP
    height = TOP + step * len(lines) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(WIDTH / 2, 22, title, "middle", 'font-size="15"'),
        text((LEFT + WIDTH - RIGHT) / 2, height - 10, label, "middle"),
    ]

    def place(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / low) / math.log(high / low)

    for exponent in range(round(math.log10(low)), math.floor(math.log10(high)) + 1):
        at = place(10.0**exponent)
        parts.append(f'<path d="M{at:.1f} {TOP - 6}V{height - BOTTOM + 4}" stroke="#e6e8eb"/>')
        parts.append(text(at, height - BOTTOM + 18, f"{10.0**exponent:g}", "middle"))
    for number, name in enumerate(series):
        at = LEFT + 190 * number
        parts.append(f'<rect x="{at}" y="34" width="11" height="11" fill="{COLOURS[number]}"/>')
        parts.append(text(at + 17, 44, name, "start"))
    for row, line in enumerate(lines):
        top = TOP + row * step
        parts.append(text(LEFT - 8, top + len(series) * THICK / 2 + 4, line.name, "end"))
        for number, value in enumerate(line.values):
            if value <= 0:
                continue
            end, y = place(value), top + number * THICK
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{THICK - 1}" fill="{COLOURS[number]}"/>'
            )
            parts.append(text(end + 4, y + THICK - 2, f"{value:.3g}", "start", 'font-size="10"'))
    return "\n".join([*parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'


def put(page: Path, mark: str, content: str) -> None:
    """Replace what stands in `page` between `<!-- mark -->` and `<!-- /mark -->`."""
    old = page.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if not block.search(old):
        raise SystemExit(f"{page} has no place marked {mark}")
    page.write_text(block.sub(lambda found: found[1] + content.rstrip() + "\n" + found[2], old), encoding="utf-8")

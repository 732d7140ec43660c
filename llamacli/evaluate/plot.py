"""A picture of quality against size: one dot a model, as an SVG that needs nothing to be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from llamacli.evaluate.labels import LETTER, LINE, Box, place_labels

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 44, 56
_COLOURS = ("#1f6feb", "#d1571f", "#2a8f4f", "#8250df", "#b08800", "#57606a")


@dataclass(frozen=True)
class Dot:
    """One model: `x` and `y` with the standard error of `y`; dots of one `series` share colour and line."""

    label: str
    x: float
    y: float
    error: float = 0.0
    series: str = ""


def plot_svg(dots: Sequence[Dot], title: str, x_label: str, y_label: str) -> str:
    """The picture. The y axis is logarithmic where values span more than a factor of four."""
    drawn = [dot for dot in dots if math.isfinite(dot.x) and math.isfinite(dot.y)]
    x = _Axis.over([dot.x for dot in drawn], LEFT, WIDTH - RIGHT, logarithmic=False)
    y = _Axis.over([dot.y for dot in drawn], HEIGHT - BOTTOM, TOP, logarithmic=_spans(drawn))
    names = list(dict.fromkeys(dot.series for dot in drawn))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(WIDTH / 2, 22, title, "middle", 'font-size="15"'),
        *_grid(x, y),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label, "middle"),
        _text(18, (TOP + HEIGHT - BOTTOM) / 2, y_label, "middle", f'transform="rotate(-90 18 {HEIGHT / 2 - 6:.0f})"'),
    ]
    for number, name in enumerate(names):
        colour = _COLOURS[number % len(_COLOURS)]
        series = sorted((dot for dot in drawn if dot.series == name), key=lambda dot: dot.x)
        parts += _series(series, x.place, y.place, colour)
        if name:
            parts.append(_text(WIDTH - RIGHT - 6, TOP + 16 + 16 * number, name, "end", f'fill="{colour}"'))
    parts += _labels(drawn, x.place, y.place, names)
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, logarithmic: bool) -> _Axis:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if logarithmic:
            return cls(low / 1.25, high * 1.25, start, end, True)
        margin = 0.08 * (high - low) or max(abs(high), 1.0) / 10
        return cls(low - margin, high + margin, start, end, False)

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values on the axis."""
        if self.logarithmic:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
        else:
            rough = (self.high - self.low) / 6
            unit = 10.0 ** math.floor(math.log10(rough))
            step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
            first = math.ceil(self.low / step)
            found = [number * step for number in range(first, first + 12)]
        return [value for value in found if self.low <= value <= self.high]


def _spans(dots: Sequence[Dot]) -> bool:
    values = [dot.y for dot in dots]
    return bool(values) and min(values) > 0 and max(values) > 4 * min(values)


def _grid(x: _Axis, y: _Axis) -> list[str]:
    out = []
    for value in x.ticks():
        at = x.place(value)
        out.append(_line(at, TOP, at, HEIGHT - BOTTOM, "#e6e8eb"))
        out.append(_text(at, HEIGHT - BOTTOM + 18, f"{value:g}", "middle"))
    for value in y.ticks():
        at = y.place(value)
        out.append(_line(LEFT, at, WIDTH - RIGHT, at, "#e6e8eb"))
        out.append(_text(LEFT - 8, at + 4, f"{value:g}", "end"))
    out.append(
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="none" '
        'stroke="#8c959f"/>'
    )
    return out


def _series(
    dots: Sequence[Dot], place_x: Callable[[float], float], place_y: Callable[[float], float], colour: str
) -> list[str]:
    out = []
    if dots[0].series and len(dots) > 1:
        points = " ".join(f"{place_x(dot.x):.1f},{place_y(dot.y):.1f}" for dot in dots)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-opacity="0.45"/>')
    for dot in dots:
        at, height = place_x(dot.x), place_y(dot.y)
        if dot.error:
            out.append(_line(at, place_y(dot.y - dot.error), at, place_y(dot.y + dot.error), colour))
        out.append(f'<circle cx="{at:.1f}" cy="{height:.1f}" r="4" fill="{colour}"/>')
    return out


def _labels(
    dots: Sequence[Dot], place_x: Callable[[float], float], place_y: Callable[[float], float], names: Sequence[str]
) -> list[str]:
    """Every label where it hides nothing; one that had to go far is tied to its dot by a line."""
    frame = Box(LEFT + 2, TOP + 2, WIDTH - RIGHT - 2, HEIGHT - BOTTOM - 2)
    longest = max((len(name) for name in names), default=0)
    legend = Box(frame.right - longest * LETTER - 8, TOP, frame.right, TOP + 8 + 16 * len(names))
    labelled = [(dot.label, place_x(dot.x), place_y(dot.y)) for dot in dots if dot.label]
    places = [(place_x(dot.x), place_y(dot.y)) for dot in dots]
    out = []
    for (text, x, y), box in zip(labelled, place_labels(labelled, places, frame, [legend]), strict=True):
        middle = (box.left + box.right) / 2
        end, anchor = (
            (box.left, "start") if box.left > x else (box.right, "end") if box.right < x else (middle, "middle")
        )
        near_x, near_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
        if math.hypot(near_x - x, near_y - y) > LINE:
            out.append(_line(x, y, near_x, near_y, "#8c959f"))
        out.append(_text(end, box.bottom - 3, text, anchor))
    return out


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    plain = "".join(character if character.isprintable() else " " for character in text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(plain)}</text>'

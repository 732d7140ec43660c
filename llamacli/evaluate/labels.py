"""Where the labels of a picture's dots go: near their dots, over no other dot, label or edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LETTER, LINE = 7.0, 13.0
"""About how wide a letter and how high a line is at 12 pixels; what is a little too much does no harm."""
RADIUS = 5.0
"""Half of what a dot takes."""
FARTHEST = 7
"""How many rings around a dot are tried."""


@dataclass(frozen=True)
class Box:
    """A rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        """Whether all of this lies in the other."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.top <= self.top
            and self.bottom <= other.bottom
        )


def place_labels(
    labels: Sequence[tuple[str, float, float]], dots: Sequence[tuple[float, float]], frame: Box, taken: Sequence[Box]
) -> list[Box]:
    """A box for each (text, x, y), the dot's middle; `taken` is where nothing may stand.

    Every label takes the nearest free place around its dot; where there is none, the first one over others.
    """
    occupied = [*taken, *(Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in dots)]
    found = []
    for text, x, y in labels:
        places = [box for box in _around(len(text) * LETTER, x, y) if box.within(frame)]
        free = (box for box in places if not any(box.meets(other) for other in occupied))
        box = next(free, places[0] if places else Box(x, y - LINE, x + len(text) * LETTER, y))
        occupied.append(box)
        found.append(box)
    return found


def _around(width: float, x: float, y: float) -> Iterator[Box]:
    """Places beside, above and below the dot, farther and farther away."""
    for ring in range(FARTHEST):
        gap = RADIUS + 2 + ring * 9
        for top in (y - LINE - gap + 4, y + gap - 4, y - LINE / 2):
            yield Box(x + gap, top, x + gap + width, top + LINE)
            yield Box(x - gap - width, top, x - gap, top + LINE)
        for top in (y - LINE - gap, y + gap):
            yield Box(x - width / 2, top, x + width / 2, top + LINE)

"""How activations go together: the sums of products of what a matrix is multiplied with, within windows of columns.

Beside the squares of `activations`, which are the diagonal. Matrices with the same input (queries, keys and values; gate
and up) share what is gathered. The sums lie in a file, 1 KiB for every column of an input, and one window of them in
memory at a time: the model may be as large as the disk holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.atomic import translated

WIDTH = 256
"""Columns of a window: a super-block. The last of a row may be narrower; zeros fill it up."""
WINDOW_BYTES = WIDTH * WIDTH * 4


@dataclass
class Place:
    """Where the sums of one input are: from window `first` of the file on, over `tokens` tokens."""

    first: int
    columns: int
    tokens: int = 0

    @property
    def windows(self) -> int:
        """How many windows it has."""
        return -(-self.columns // WIDTH)


@dataclass(eq=False)
class Products:
    """Sums of products in the file at `path`, which is new: float32, windows of (WIDTH, WIDTH) one after the other."""

    path: Path
    places: dict[str, Place] = field(default_factory=dict)
    """By the names of the matrices; those with the same input have the same place."""
    _leaders: dict[int, str] = field(default_factory=dict)
    """Which matrix was the first with an input, by the input's address in the graph of this evaluation."""
    _followers: set[str] = field(default_factory=set)

    def add(self, name: str, source: int, rows: NDArray[np.float32]) -> None:
        """Count `rows` (tokens, columns), with which matrix `name` was multiplied; `source` tells inputs apart.

        Raises CannotWrite.
        """
        if name in self._followers:
            return
        if name not in self.places and self._shares(name, source, rows.shape[1]):
            return
        self._leaders.setdefault(source, name)
        place = self.places.setdefault(name, Place(self._end(), rows.shape[1]))
        with translated(self.path), self.path.open("r+b" if self.path.exists() else "w+b") as file:
            for window in range(place.windows):
                part = np.ascontiguousarray(rows[:, window * WIDTH : (window + 1) * WIDTH])
                total = np.zeros((WIDTH, WIDTH), np.float32)
                at = (place.first + window) * WINDOW_BYTES
                if place.tokens:
                    file.seek(at)
                    file.readinto(total.data.cast("B"))
                total[: part.shape[1], : part.shape[1]] += part.T @ part
                file.seek(at)
                file.write(total.data)
        place.tokens += len(rows)

    def next_evaluation(self) -> None:
        """The graph is made anew: addresses mean something else."""
        self._leaders.clear()

    def _shares(self, name: str, source: int, columns: int) -> bool:
        """Whether another matrix has counted this input; `name` shares its place then."""
        leader = self._leaders.get(source)
        if leader is None or self.places[leader].columns != columns:
            return False
        self.places[name] = self.places[leader]
        self._followers.add(name)
        return True

    def _end(self) -> int:
        return max((place.first + place.windows for place in self.places.values()), default=0)

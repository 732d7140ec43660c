"""How activations go together: the sums of products of what a matrix is multiplied with, within windows of columns.

Beside the squares of `activations`, which are the diagonal. Matrices with the same input (queries, keys and values; gate
and up) share what is gathered. The sums lie in a file, at most 2 KiB for every column of an input, and one window of
them in memory at a time: the model may be as large as the disk holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.atomic import translated
from llamacli.formats.products import Place


@dataclass(eq=False)
class Products:
    """Sums of products in the file at `path`, which is new."""

    path: Path
    _inputs: dict[str, Place] = field(default_factory=dict)
    """By the name of the first matrix with an input."""
    _leaders: dict[str, str] = field(default_factory=dict)
    """Which matrix was the first with the input of each."""
    _sources: dict[int, str] = field(default_factory=dict)
    """The same by the input's address in the graph of this evaluation."""

    @property
    def places(self) -> dict[str, Place]:
        """By the names of the matrices; those with the same input have the same place."""
        return {name: self._inputs[leader] for name, leader in self._leaders.items()}

    def add(self, name: str, source: int, rows: NDArray[np.float32]) -> None:
        """Count `rows` (tokens, columns), with which matrix `name` was multiplied; `source` tells inputs apart.

        Raises CannotWrite.
        """
        if name not in self._leaders:
            self._leaders[name] = self._leader(name, source, rows.shape[1])
        if self._leaders[name] != name:
            return
        place = self._inputs.get(name) or Place(self._end(), rows.shape[1])
        with translated(self.path), self.path.open("r+b" if self.path.exists() else "w+b") as file:
            for window in place.windows():
                part = np.ascontiguousarray(rows[:, window.first : window.first + window.columns])
                total = part.T @ part
                if place.tokens:
                    before = np.empty_like(total)
                    file.seek(window.offset)
                    file.readinto(before.data.cast("B"))
                    total += before
                file.seek(window.offset)
                file.write(total.data)
        self._inputs[name] = replace(place, tokens=place.tokens + len(rows))

    def next_evaluation(self) -> None:
        """The graph is made anew: addresses mean something else."""
        self._sources.clear()

    def _leader(self, name: str, source: int, columns: int) -> str:
        """The matrix that counts this input."""
        leader = self._sources.setdefault(source, name)
        return leader if leader in self._inputs and self._inputs[leader].columns == columns else name

    def _end(self) -> int:
        return max((place.end for place in self._inputs.values()), default=0)

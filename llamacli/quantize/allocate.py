"""A size to stay under -> the best type for each tensor: the least total damage that the bytes can buy.

This is the multiple-choice knapsack problem, solved exactly. Choices are decided tensor by tensor; of all partial
solutions only those are carried on that no other beats in both bytes and damage (dynamic programming with dominance,
after Nemhauser and Ullmann, 1969) and whose linear relaxation still promises to beat the best complete solution found
(Sinha and Zoltners, 1979). The relaxation of what is left is a convex curve of damage over bytes; its corners are
complete solutions, so every partial solution also yields a good whole one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import UsageError
from llamacli.formats.tensor_types import TensorType

Candidate: TypeAlias = "tuple[TensorType, int, float]"
"""A type, the bytes that a tensor takes in it, and the damage that it does: finite, of any unit that adds up."""

_Ints: TypeAlias = "NDArray[np.int64]"
_Floats: TypeAlias = "NDArray[np.float64]"

PRECISION = 1e-9
"""Solutions whose damages differ by less than this part count as equal: damages are measured far more coarsely."""


MOST_STATES = 1 << 16
"""Partial solutions carried on at a time. Measured damages leave a few thousand; contrived ones could fill memory."""


@dataclass(frozen=True)
class Allocation:
    """What `allocate` found: the types by name, their bytes, and their damage.

    `optimal`: it is proven that no other choice does less damage. It is False only where more than `MOST_STATES`
    partial solutions were equally promising, as when damage is exactly proportional to bytes.
    """

    types: Mapping[str, TensorType]
    size_bytes: int
    damage: float
    optimal: bool = True


def allocate(candidates: Mapping[str, Sequence[Candidate]], budget_bytes: int) -> Allocation:
    """Choose one candidate for each name: the least sum of damages with at most `budget_bytes` bytes.

    Raises UsageError if even the smallest candidates need more; ValueError for a name without candidates, for sizes
    that are negative and damages that are not finite.
    """
    items = [_Item.of(name, options) for name, options in candidates.items()]
    smallest = sum(int(item.sizes[0]) for item in items)
    if smallest > budget_bytes:
        raise UsageError(
            f"no choice of types fits {budget_bytes:,} bytes: the smallest takes {smallest:,}",
            f"ask for at least {smallest:,} bytes, allow smaller types, or choose a smaller model",
        )
    # Tensors with much to decide first: the small ones left at the end fill gaps, and bounds are tight early.
    items.sort(key=lambda item: int(item.sizes[0] - item.sizes[-1]))
    picks, optimal = _solve(items, budget_bytes)
    chosen = {item.name: item.pick(pick) for item, pick in zip(items, picks, strict=True)}
    return Allocation(
        {name: chosen[name][0] for name in candidates},
        sum(size for _, size, _ in chosen.values()),
        math.fsum(damage for _, _, damage in chosen.values()),
        optimal,
    )


@dataclass(frozen=True, eq=False)
class _Item:
    """One tensor's candidates worth looking at: ever larger and ever better. `hull` are those on the convex hull."""

    name: str
    types: tuple[TensorType, ...]
    sizes: _Ints
    damages: _Floats
    hull: tuple[int, ...]

    @classmethod
    def of(cls, name: str, options: Sequence[Candidate]) -> _Item:
        if not options:
            raise ValueError(f"no candidates for {name}")
        if any(size < 0 or not np.isfinite(damage) for _, size, damage in options):
            raise ValueError(f"a candidate for {name} has a size or a damage that makes no sense")
        kept: list[Candidate] = []
        for option in sorted(options, key=lambda option: (option[1], option[2])):
            if not kept or option[2] < kept[-1][2]:
                kept.append(option)
        sizes = np.array([size for _, size, _ in kept], np.int64)
        damages = np.array([damage for _, _, damage in kept], np.float64)
        return cls(name, tuple(kind for kind, _, _ in kept), sizes, damages, _lower_hull(sizes, damages))

    def pick(self, index: int) -> Candidate:
        return self.types[index], int(self.sizes[index]), float(self.damages[index])


def _lower_hull(sizes: _Ints, damages: _Floats) -> tuple[int, ...]:
    """The candidates that a line from below can touch, by size."""
    hull: list[int] = []
    for index in range(len(sizes)):
        while len(hull) > 1 and _gain(sizes, damages, hull[-2], hull[-1]) <= _gain(sizes, damages, hull[-1], index):
            hull.pop()
        hull.append(index)
    return tuple(hull)


def _gain(sizes: _Ints, damages: _Floats, low: int, high: int) -> float:
    """Damage saved for each byte from one candidate to a larger one."""
    return float((damages[low] - damages[high]) / (sizes[high] - sizes[low]))


class _Steps:
    """All steps along the hulls of all items, the most rewarding first."""

    def __init__(self, items: Sequence[_Item]) -> None:
        self.items = items
        steps = [
            (_gain(item.sizes, item.damages, low, high), number, low, high)
            for number, item in enumerate(items)
            for low, high in zip(item.hull, item.hull[1:], strict=False)
        ]
        steps.sort(key=lambda step: -step[0])  # stable: an item's own steps stay in order
        self.number = np.array([number for _, number, _, _ in steps], np.int64)
        self.to = np.array([high for *_, high in steps], np.int64)
        self.bytes = np.array([items[n].sizes[high] - items[n].sizes[low] for _, n, low, high in steps], np.int64)
        self.saved = np.array([items[n].damages[low] - items[n].damages[high] for _, n, low, high in steps])
        self.smallest = _from_the_end([item.sizes[0] for item in items], np.int64)
        self.worst = _from_the_end([item.damages[0] for item in items], np.float64)

    def curve(self, first: int) -> tuple[_Ints, _Floats]:
        """Bytes and damage at the corners of the relaxation of the items from `first` on."""
        left = self.number >= first
        sizes = self.smallest[first] + np.concatenate(([0], np.cumsum(self.bytes[left])))
        damages = self.worst[first] - np.concatenate(([0.0], np.cumsum(self.saved[left])))
        return sizes, damages

    def picks(self, first: int, corner: int) -> list[int]:
        """What the items from `first` on have chosen at a corner of that curve."""
        picks = [0] * len(self.items)
        taken = np.flatnonzero(self.number >= first)[:corner]
        for number, to in zip(self.number[taken], self.to[taken], strict=True):
            picks[number] = int(to)
        return picks[first:]


def _from_the_end(values: Sequence[float], kind: type[np.int64] | type[np.float64]) -> NDArray[np.generic]:
    """Sums of `values` from each place to the end, and 0 after it."""
    return np.concatenate((np.cumsum(np.array(values, kind)[::-1])[::-1], np.zeros(1, kind)))


def _solve(items: Sequence[_Item], budget: int) -> tuple[list[int], bool]:
    """The candidate of each item in the best solution found, and whether it is proven to be the best of all."""
    steps = _Steps(items)
    states = _States(np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.int32), np.zeros(1, np.int8))
    history: list[_States] = []
    best, picks, optimal = np.inf, [0] * len(items), True
    for first in range(len(items) + 1):
        corner_sizes, corner_damages = steps.curve(first)
        left = budget - states.sizes
        corners = np.searchsorted(corner_sizes, left, side="right") - 1
        complete = states.damages + corner_damages[corners]
        leader = int(complete.argmin())
        if complete[leader] < best:
            best = float(complete[leader])
            picks = _traced([*history, states], leader) + steps.picks(first, int(corners[leader]))
        if first == len(items):
            break
        promised = states.damages + np.interp(left, corner_sizes, corner_damages)
        alive = np.flatnonzero(promised < best - abs(best) * PRECISION)
        if alive.size > MOST_STATES:
            alive = np.sort(alive[np.argpartition(promised[alive], MOST_STATES)[:MOST_STATES]])
            optimal = False
        if not alive.size:
            break
        history.append(states.only(alive))
        states = _continued(history[-1], items[first], budget - int(steps.smallest[first + 1]))
    return picks, optimal


@dataclass(frozen=True, eq=False)
class _States:
    """Partial solutions by size: each continues a `parent` of the step before with one more item's `pick`."""

    sizes: _Ints
    damages: _Floats
    parents: NDArray[np.int32]
    picks: NDArray[np.int8]

    def only(self, which: _Ints) -> _States:
        return _States(self.sizes[which], self.damages[which], self.parents[which], self.picks[which])


def _continued(states: _States, item: _Item, budget: int) -> _States:
    """Every partial solution with every candidate of one more item, without those that another beats."""
    sizes = (states.sizes[:, None] + item.sizes).ravel()
    damages = (states.damages[:, None] + item.damages).ravel()
    order = np.lexsort((damages, sizes))
    order = order[sizes[order] <= budget]
    lowest = np.minimum.accumulate(damages[order])
    order = order[np.concatenate(([True], damages[order[1:]] < lowest[:-1]))]
    parents, picks = np.divmod(order, item.sizes.size)
    return _States(sizes[order], damages[order], parents.astype(np.int32), picks.astype(np.int8))


def _traced(history: Sequence[_States], state: int) -> list[int]:
    """What the items so far have chosen in a partial solution of the last step; the first step has chosen nothing."""
    picks = []
    for states in reversed(history[1:]):
        picks.append(int(states.picks[state]))
        state = int(states.parents[state])
    return picks[::-1]

"""Levels chosen so that errors make up for one another: the least e'Ce, with C the second moments of the activations.

What a row of weights computes goes wrong by e'x, where e are the errors of its weights and x is what it is multiplied
with; on average over what the model reads, the square of that is e'Ce. A search that weighs each weight by itself sees
the diagonal of C alone. Here, with the scales given, the weights of a window are rounded one after the other, each to
make up for the errors of those before it (GPTQ, arXiv:2210.17323, in the form of LDLQ, arXiv:2307.13304): where
C = A D A' with A unit upper triangular,

    e'Ce = sum over i of D_i * (e_i + sum over k < i of A_ki * e_k)^2

so weight i is rounded as if it were larger by the second sum. Columns with the largest activations come first, for they
have most to be made up for. Then every weight is looked at again, now with those after it known, until few change
(coordinate descent). Sixteen rows lie in the lanes of a tile, as in the other kernels. Levels that are not better than
those before are not written.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llamacli.quantize.fast.compiled import entry, inner
from llamacli.quantize.fast.iq4 import VALUES, nearest
from llamacli.quantize.fast.lanes import (
    LANES,
    Floats,
    Mask,
    Memory,
    any_lane,
    floats,
    fma,
    load,
    maximum,
    minimum,
    rounded,
    store,
    table,
    to_floats,
    to_ints,
    transpose_in,
    where,
)
from llamacli.quantize.fast.tiles import BF16, F16, aligned, reciprocal

WIDTH = 512
"""Columns of a window at most."""
TOGETHER = 8
"""Columns whose sums are made at once."""

X, ERROR, LEVEL, SLOPE = (k * WIDTH * LANES for k in range(4))
"""Per weight: itself, its error, its level, and half of how fast the whole error grows with its own."""
SCALE, INVERSE, OFFSET = (4 * WIDTH * LANES + k * (WIDTH // 16) * LANES for k in range(3))
"""Per part: scale, its inverse, offset."""
FLOAT_COUNT = OFFSET + (WIDTH // 16) * LANES

Eight: TypeAlias = "tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats]"

_value_of = table(VALUES)


class Window(NamedTuple):
    """Columns of some rows. The address is a plain integer; the caller keeps the memory alive and checks its size."""

    source: int
    """Address of the weights: rows of `stride`, one after the other."""
    storage: int
    """F32, F16 or BF16."""
    stride: int
    rows: int
    first: int
    """The first column, a multiple of 32."""
    columns: int
    """A multiple of 32, at most WIDTH."""
    part: int
    """Columns that share a scale."""
    least: float
    """The integer that is level 0."""
    most: float
    """The integer that is the last level."""
    table: int
    """Whether levels are places in IQ4's table, not integers."""


class Moments(NamedTuple):
    """The second moments of a window's columns, in the order in which these are rounded."""

    order: NDArray[np.int64]
    """The columns: what is called i below is column order[i] of the window."""
    matrix: NDArray[np.float32]
    """C, a row after the other."""
    factor: NDArray[np.float32]
    """A above the diagonal, in the order in which it is used: A_ki is at `spot(k, i)`."""
    diagonal: NDArray[np.float32]
    """D."""


class Room(NamedTuple):
    """One thread's memory, made once."""

    tile: NDArray[np.float32]
    starts: NDArray[np.int64]


def new_room() -> Room:
    """Memory for one thread, about 140 KiB."""
    return Room(aligned(FLOAT_COUNT, np.float32), aligned(LANES, np.int64))


def factorized(square: NDArray[np.float64]) -> Moments:
    """What is made of the second moments of a window's columns: (columns, columns), positive definite."""
    columns = len(square)
    order = np.argsort(-np.diagonal(square), kind="stable").astype(np.int64)
    ordered = np.ascontiguousarray(square[np.ix_(order, order)])
    matrix, factor = aligned(columns * columns, np.float32), aligned(columns * (columns + TOGETHER) // 2, np.float32)
    matrix[:] = ordered.reshape(-1)
    moments = Moments(order, matrix, factor, aligned(columns, np.float32))
    factorize(ordered.reshape(-1), columns, moments)
    return moments


@inner
def spot(k: int, i: int) -> int:
    """Where A_ki is: columns i in groups of eight, and of each group eight numbers for every k."""
    group = i // TOGETHER
    return group * (group + 1) * (TOGETHER * TOGETHER // 2) + k * TOGETHER + i % TOGETHER


@entry
def factorize(square: Memory, columns: int, moments: Moments) -> None:
    """Factor `square`, float64, a row after the other, into D and A; it is overwritten.

    C = A D A': the last column first, each taken out of what is left.
    """
    for last in range(columns - 1, -1, -4):  # four columns at a time: what is left is walked through less often
        for k in range(last, last - 4, -1):
            row = square[k * columns : k * columns + k + 1]
            moments.diagonal[k] = row[k]
            for i in range(k):
                moments.factor[spot(i, k)] = row[i] / row[k]
            for i in range(last - 3, k):
                share, target = row[i] / row[k], square[i * columns : i * columns + i + 1]
                for j in range(i + 1):
                    target[j] -= share * row[j]
        a, b = square[last * columns :][: last + 1], square[(last - 1) * columns :][:last]
        c, d = square[(last - 2) * columns :][: last - 1], square[(last - 3) * columns :][: last - 2]
        for i in range(last - 3):
            of_a, of_b = a[i] / a[last], b[i] / b[last - 1]
            of_c, of_d = c[i] / c[last - 2], d[i] / d[last - 3]
            target = square[i * columns : i * columns + i + 1]
            for j in range(i + 1):
                target[j] -= of_a * a[j] + of_b * b[j] + of_c * c[j] + of_d * d[j]


@entry
def compensate(
    window: Window, levels: Memory, scales: Memory, offsets: Memory, moments: Moments, sweeps: int, room: Room
) -> None:
    """Choose the levels of a window anew. `levels`: bytes, as the weights lie; `scales`, `offsets`: of every part."""
    tile = room.tile
    for first in range(0, window.rows, LANES):
        read(window, first, levels, scales, offsets, moments.order, room)
        before = spread(window, tile, moments)
        feed_back(window, tile, moments)
        slopes(window, tile, moments)
        for _ in range(sweeps):
            if not sweep(window, tile, moments):
                break
        write(window, first, tile, moments.order, whole_error(window, tile) < before, levels)


@inner
def read(
    window: Window, first: int, levels: Memory, scales: Memory, offsets: Memory, order: Memory, room: Room
) -> None:
    """Rows first to first + 15: weights, scales, levels, and the errors that these make. Past the end, the last row."""
    tile, starts = room.tile, room.starts
    width = 2 if window.storage == BF16 or window.storage == F16 else 4
    parts = window.stride // window.part
    for lane in range(LANES):
        row = min(first + lane, window.rows - 1)
        starts[lane] = window.source + (row * window.stride + window.first) * width
        for j in range(window.columns // window.part):
            at = row * parts + window.first // window.part + j
            tile[SCALE + j * LANES + lane] = scales[at]
            tile[OFFSET + j * LANES + lane] = offsets[at]
        at = row * window.stride + window.first
        for i in range(window.columns):
            tile[LEVEL + i * LANES + lane] = levels[at + order[i]]
    for column in range(0, window.columns, LANES):
        if window.storage == BF16:
            transpose_in("bf16", starts, column, tile, SLOPE + column * LANES)
        elif window.storage == F16:
            transpose_in("f16", starts, column, tile, SLOPE + column * LANES)
        else:
            transpose_in("f32", starts, column, tile, SLOPE + column * LANES)
    for j in range(0, window.columns // window.part * LANES, LANES):
        store(tile, INVERSE + j, reciprocal(load(tile, SCALE + j)))
    for i in range(window.columns):
        x = load(tile, SLOPE + order[i] * LANES)
        store(tile, X + i * LANES, x)
        store(tile, ERROR + i * LANES, x - value(window, tile, order[i], load(tile, LEVEL + i * LANES)))


@inner
def value(window: Window, tile: Memory, column: int, level: Floats) -> Floats:
    """What a column is restored to."""
    part = column // window.part * LANES
    number = _value_of(to_ints(level)) if window.table else level + floats(window.least)
    return fma(number, load(tile, SCALE + part), load(tile, OFFSET + part))


@inner
def nearest_level(window: Window, tile: Memory, column: int, target: Floats) -> Floats:
    """The level of a column whose value is nearest to `target`."""
    part = column // window.part * LANES
    number = (target - load(tile, OFFSET + part)) * load(tile, INVERSE + part)
    if window.table:
        return to_floats(nearest(number))
    number = maximum(minimum(rounded(number), floats(window.most)), floats(window.least))
    return number - floats(window.least)


@inner
def before_eight(tile: Memory, factor: Memory, at: int) -> Eight:
    """For each of the columns from `at`: the sum of A_ki * e_k over the columns k before `at`."""
    none, start = floats(0), spot(0, at)
    a, b, c, d, e, f, g, h = none, none, none, none, none, none, none, none
    for k in range(at):
        error, i = load(tile, ERROR + k * LANES), start + k * TOGETHER
        a, b = fma(floats(factor[i]), error, a), fma(floats(factor[i + 1]), error, b)
        c, d = fma(floats(factor[i + 2]), error, c), fma(floats(factor[i + 3]), error, d)
        e, f = fma(floats(factor[i + 4]), error, e), fma(floats(factor[i + 5]), error, f)
        g, h = fma(floats(factor[i + 6]), error, g), fma(floats(factor[i + 7]), error, h)
    return a, b, c, d, e, f, g, h


@inner
def keep_eight(tile: Memory, place: int, eight: Eight) -> None:
    """Store eight vectors from `place` on."""
    a, b, c, d, e, f, g, h = eight
    store(tile, place, a)
    store(tile, place + LANES, b)
    store(tile, place + 2 * LANES, c)
    store(tile, place + 3 * LANES, d)
    store(tile, place + 4 * LANES, e)
    store(tile, place + 5 * LANES, f)
    store(tile, place + 6 * LANES, g)
    store(tile, place + 7 * LANES, h)


@inner
def owed(tile: Memory, factor: Memory, at: int, i: int) -> Floats:
    """The sum of A_ki * e_k over all k < i, after `before_eight` for the columns from `at` is in SLOPE."""
    total = load(tile, SLOPE + i * LANES)
    for k in range(at, i):
        total = fma(floats(factor[spot(k, i)]), load(tile, ERROR + k * LANES), total)
    return total


@inner
def spread(window: Window, tile: Memory, moments: Moments) -> Floats:
    """The whole error, e'Ce, of the levels as they are."""
    total = floats(0)
    for at in range(0, window.columns, TOGETHER):
        keep_eight(tile, SLOPE + at * LANES, before_eight(tile, moments.factor, at))
        for i in range(at, at + TOGETHER):
            whole = load(tile, ERROR + i * LANES) + owed(tile, moments.factor, at, i)
            total = fma(whole * whole, floats(moments.diagonal[i]), total)
    return total


@inner
def feed_back(window: Window, tile: Memory, moments: Moments) -> None:
    """Round the columns one after the other; D_i times what could not be made up for is left in SLOPE."""
    for at in range(0, window.columns, TOGETHER):
        keep_eight(tile, SLOPE + at * LANES, before_eight(tile, moments.factor, at))
        for i in range(at, at + TOGETHER):
            x, debt = load(tile, X + i * LANES), owed(tile, moments.factor, at, i)
            level = nearest_level(window, tile, moments.order[i], x + debt)
            error = x - value(window, tile, moments.order[i], level)
            store(tile, LEVEL + i * LANES, level)
            store(tile, ERROR + i * LANES, error)
            store(tile, SLOPE + i * LANES, (error + debt) * floats(moments.diagonal[i]))


@inner
def slopes(window: Window, tile: Memory, moments: Moments) -> None:
    """From what `feed_back` left in SLOPE to C e = A (D A' e)."""
    factor = moments.factor
    for at in range(0, window.columns, TOGETHER):
        for i in range(at, at + TOGETHER):
            total = load(tile, SLOPE + i * LANES)
            for k in range(i + 1, at + TOGETHER):
                total = fma(floats(factor[spot(i, k)]), load(tile, SLOPE + k * LANES), total)
            store(tile, SLOPE + i * LANES, total)
        keep_eight(tile, SLOPE + at * LANES, after_eight(window, tile, factor, at))


@inner
def after_eight(window: Window, tile: Memory, factor: Memory, at: int) -> Eight:
    """What is in SLOPE for the columns from `at`, plus the sum of A_ik * SLOPE_k over the columns k behind them."""
    place = SLOPE + at * LANES
    a, b = load(tile, place), load(tile, place + LANES)
    c, d = load(tile, place + 2 * LANES), load(tile, place + 3 * LANES)
    e, f = load(tile, place + 4 * LANES), load(tile, place + 5 * LANES)
    g, h = load(tile, place + 6 * LANES), load(tile, place + 7 * LANES)
    for group in range(at + TOGETHER, window.columns, TOGETHER):
        start = spot(at, group)
        for k in range(TOGETHER):
            part, i = load(tile, SLOPE + (group + k) * LANES), start + k
            a, b = fma(floats(factor[i]), part, a), fma(floats(factor[i + 8]), part, b)
            c, d = fma(floats(factor[i + 16]), part, c), fma(floats(factor[i + 24]), part, d)
            e, f = fma(floats(factor[i + 32]), part, e), fma(floats(factor[i + 40]), part, f)
            g, h = fma(floats(factor[i + 48]), part, g), fma(floats(factor[i + 56]), part, h)
    return a, b, c, d, e, f, g, h


@inner
def sweep(window: Window, tile: Memory, moments: Moments) -> bool:
    """Give every weight the best level beside all others as they are; whether any changed."""
    matrix, changed, none = moments.matrix, False, floats(0)
    for i in range(window.columns):
        row = i * window.columns
        column = moments.order[i]
        old = value(window, tile, column, load(tile, LEVEL + i * LANES))
        wanted = fma(load(tile, SLOPE + i * LANES), floats(1 / matrix[row + i]), old)
        level = nearest_level(window, tile, column, wanted)
        more = old - value(window, tile, column, level)
        moved = (more < none) | (more > none)
        if any_lane(moved):
            changed = True
            store(tile, LEVEL + i * LANES, where(moved, level, load(tile, LEVEL + i * LANES)))
            store(tile, ERROR + i * LANES, load(tile, ERROR + i * LANES) + more)
            for k in range(window.columns):
                slope = fma(floats(matrix[row + k]), more, load(tile, SLOPE + k * LANES))
                store(tile, SLOPE + k * LANES, slope)
    return changed


@inner
def whole_error(window: Window, tile: Memory) -> Floats:
    """The same where SLOPE is C e."""
    total = floats(0)
    for i in range(0, window.columns * LANES, LANES):
        total = fma(load(tile, ERROR + i), load(tile, SLOPE + i), total)
    return total


@inner
def write(window: Window, first: int, tile: Memory, order: Memory, better: Mask, levels: Memory) -> None:
    """The levels of the rows that are better than they were."""
    store(tile, X, where(better, floats(1), floats(0)))  # the weights have done their work
    for lane in range(min(LANES, window.rows - first)):
        if tile[X + lane]:
            at = (first + lane) * window.stride + window.first
            for i in range(window.columns):
                levels[at + order[i]] = np.uint8(tile[LEVEL + i * LANES + lane])

"""Pure functions from one description of a tensor to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from llamacli.errors import CorruptFile
from llamacli.families.base import Named, Transform
from llamacli.families.config import Config
from llamacli.formats.dtypes import Block
from llamacli.formats.rows import Columns, Grouped, Mapped, Reshaped, RowRange, RowRuns, Rows, Transposed, row_count

Split = Callable[[str, Rows, Config], Iterable[Named]]


def by_rows(change: Callable[[Rows], Rows], rows: Rows) -> Rows:
    """`change` for a matrix, and for a vector (a bias) as if each value were a row."""
    if len(rows.shape) > 1:
        return change(rows)
    changed = change(Reshaped(rows, (rows.shape[0], 1)))
    return Reshaped(changed, (row_count(changed.shape),))


def interleave_rope(heads: Callable[[Config], int], part: Callable[[Config], float] = lambda config: 1.0) -> Transform:
    """Queries or keys from "first halves, then second halves" to pairs, the order that ggml's rope of these families wants.

    Within each head, row i of the first half and row i of the second become rows 2i and 2i + 1. Biases too. `part` of each
    head is rotated; the rest stays as it is.
    """

    def transform(rows: Rows, config: Config) -> Rows:
        def change(block: Block) -> Block:
            rotated = int(block.shape[1] * part(config))
            whole = rotated == block.shape[1]
            return _pair_halves(block) if whole else _beside(_pair_halves(block[:, :rotated]), block[:, rotated:])

        return by_rows(lambda m: Grouped(m, row_count(m.shape) // heads(config), change), rows)

    return transform


def _beside(paired: Block, rest: Block) -> Block:
    groups, _, columns = rest.shape
    return np.concatenate((paired.reshape(groups, -1, columns), rest), axis=1)


def _pair_halves(block: Block) -> Block:
    groups, rows, columns = block.shape
    pairs: Block = block.reshape(groups, 2, rows // 2, columns).swapaxes(1, 2)
    return pairs


def add_one(rows: Rows, config: Config) -> Rows:
    """Norm weights that the checkpoint stores as their distance from one."""
    return Mapped(rows, lambda values: values + np.float32(1))


def scale(*factors: Callable[[Config], float]) -> Transform:
    """All values times each factor of the configuration, in this order, rounded to float32 each time."""

    def transform(rows: Rows, config: Config) -> Rows:
        for factor in factors:
            rows = _times(rows, np.float32(factor(config)))
        return rows

    return transform


def _times(rows: Rows, factor: np.float32) -> Rows:
    return rows if factor == 1 else Mapped(rows, lambda values: values * factor)


def squeeze(rows: Rows, config: Config) -> Rows:
    """Without dimensions of size one (convolutions stored as (channels, 1, width))."""
    return Reshaped(rows, tuple(n for n in rows.shape if n != 1) or (1,))


def transpose(rows: Rows, config: Config) -> Rows:
    """A matrix, or each of a stack, that the checkpoint stores as (in, out)."""
    return Transposed(rows)


def rows_of(rows: Rows, start: int, stop: int, step: int = 1) -> Rows:
    """Rows [start, stop) of a matrix, or of each of a stack; of a vector, its values."""
    if len(rows.shape) == 1:
        return by_rows(lambda m: RowRange(m, start, stop, step), rows)
    return RowRange(rows, start, stop, step, group=rows.shape[-2])


def split_rows(*parts: tuple[str, Callable[[Config], int]], old: str) -> Split:
    """A fused matrix, bias or stack into parts: each (what replaces `old` in the name, its rows)."""

    def split(name: str, rows: Rows, config: Config) -> Iterable[Named]:
        whole = rows.shape[0] if len(rows.shape) == 1 else rows.shape[-2]
        sizes = [size(config) for _, size in parts]
        if sum(sizes) != whole:
            raise CorruptFile(f"tensor {name!r} has {whole} rows, config.json says {' + '.join(map(str, sizes))}")
        start = 0
        for (new, _), size in zip(parts, sizes, strict=True):
            yield name.replace(old, new), rows_of(rows, start, start + size)
            start += size

    return split


def split_gate_up(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    """A stack (experts, gate rows then up rows, in) as two; the names become those of a stack of single experts."""
    stem = name.removesuffix(".weight").removesuffix("gate_up_proj")
    half = rows.shape[-2] // 2
    yield f"{stem}gate_proj.weight", rows_of(rows, 0, half)
    yield f"{stem}up_proj.weight", rows_of(rows, half, 2 * half)


def regroup(runs: Callable[[Config], Iterable[tuple[int, int]]]) -> Transform:
    """Rows (of a bias: values) in another order: `runs` gives each (first row, rows)."""

    def transform(rows: Rows, config: Config) -> Rows:
        return by_rows(lambda m: RowRuns(m, tuple(runs(config))), rows)

    return transform


def pick_columns(places: Callable[[Config], Iterable[int]]) -> Transform:
    """Columns in another order."""
    return lambda rows, config: Columns(rows, tuple(places(config)))


def chain(*transforms: Transform) -> Transform:
    """One transform after the other."""

    def transform(rows: Rows, config: Config) -> Rows:
        for one in transforms:
            rows = one(rows, config)
        return rows

    return transform

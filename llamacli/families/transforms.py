"""Pure functions from one description of a tensor to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llamacli.families.base import Transform
from llamacli.families.config import Config
from llamacli.formats.dtypes import Block
from llamacli.formats.rows import Grouped, Mapped, Reshaped, Rows, row_count


def interleave_rope(heads: Callable[[Config], int]) -> Transform:
    """Queries or keys from "first halves, then second halves" to pairs, the order that ggml's rope of these families wants.

    Within each head, row i of the first half and row i of the second become rows 2i and 2i + 1. Biases too.
    """

    def transform(rows: Rows, config: Config) -> Rows:
        shape = rows.shape
        matrix = rows if len(shape) > 1 else Reshaped(rows, (shape[0], 1))
        ordered = Grouped(matrix, row_count(matrix.shape) // heads(config), _pair_halves)
        return ordered if len(shape) > 1 else Reshaped(ordered, shape)

    return transform


def _pair_halves(block: Block) -> Block:
    groups, rows, columns = block.shape
    pairs: Block = block.reshape(groups, 2, rows // 2, columns).swapaxes(1, 2)
    return pairs


def add_one(rows: Rows, config: Config) -> Rows:
    """Norm weights that the checkpoint stores as their distance from one."""
    return Mapped(rows, lambda values: values + np.float32(1))


def squeeze(rows: Rows, config: Config) -> Rows:
    """Without dimensions of size one (convolutions stored as (channels, 1, width))."""
    return Reshaped(rows, tuple(n for n in rows.shape if n != 1) or (1,))

"""Blocks taken apart and put together, against gguf's own way to restore them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from llamacli.formats.tensor_types import BY_NAME
from llamacli.quantize.fast.iq4 import VALUES
from llamacli.quantize.grids import GRIDS

HALVES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
}
"""Where the binary16 numbers of a block lie; the others have one, at the beginning."""


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_blocks_come_apart_as_they_are_restored_and_together_as_they_were(name: str) -> None:
    draw, grid, kind = np.random.default_rng(0), GRIDS[name], BY_NAME[name]
    blocks = draw.integers(0, 256, (64, kind.block_bytes), dtype=np.uint8)
    for at in HALVES.get(name, (0,)):
        blocks[:, at : at + 2] = draw.normal(size=(64, 1)).astype(np.float16).view(np.uint8)
    (scales, offsets), levels = grid.scales(blocks), grid.levels(blocks)
    assert (levels.min(), levels.max()) == (0, grid.most - grid.least)
    numbers = np.array(VALUES if grid.table else range(grid.least, grid.most + 1), np.float32)
    restored = numbers[levels] * scales.repeat(grid.part, 1) + offsets.repeat(grid.part, 1)
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType[name])
    assert np.abs(restored - expected).max() <= 1e-5 * np.abs(expected).max()

    again = blocks.copy()
    grid.put(again, levels)
    assert np.array_equal(again, blocks)
    other = draw.integers(0, grid.most - grid.least + 1, levels.shape, dtype=np.uint8)
    grid.put(again, other)
    assert np.array_equal(grid.levels(again), other)
    assert all(np.array_equal(a, b) for a, b in zip(grid.scales(again), (scales, offsets), strict=True))

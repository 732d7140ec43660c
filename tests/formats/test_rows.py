"""Descriptions of tensors: whatever part is asked for equals the same part of the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.formats.rows import (
    Arena,
    Columns,
    Grouped,
    InMemory,
    Joined,
    Mapped,
    Reshaped,
    RowRange,
    RowRuns,
    Rows,
    Transposed,
    row_count,
)

RANDOM = np.random.default_rng(7)
MATRIX = RANDOM.standard_normal((12, 6), np.float32)
STACK = RANDOM.standard_normal((3, 4, 6), np.float32)

CASES: dict[str, tuple[Callable[[], Rows], np.ndarray]] = {
    "in memory": (lambda: InMemory(STACK), STACK),
    "grouped": (
        lambda: Grouped(InMemory(MATRIX), 4, lambda b: b[:, ::-1]),
        MATRIX.reshape(3, 4, 6)[:, ::-1].reshape(12, 6),
    ),
    "mapped": (lambda: Mapped(InMemory(MATRIX), lambda x: x + 1), MATRIX + 1),
    "reshaped to wider rows": (lambda: Reshaped(InMemory(MATRIX), (6, 12)), MATRIX.reshape(6, 12)),
    "reshaped to narrower rows": (lambda: Reshaped(InMemory(MATRIX), (4, 6, 3)), MATRIX.reshape(4, 6, 3)),
    "joined": (lambda: Joined((InMemory(MATRIX), InMemory(MATRIX * 2)), (2, 12, 6)), np.stack([MATRIX, MATRIX * 2])),
    "a range": (lambda: RowRange(InMemory(MATRIX), 3, 9), MATRIX[3:9]),
    "every second": (lambda: RowRange(InMemory(MATRIX), 1, 12, 2), MATRIX[1::2]),
    "a range of each in a stack": (lambda: RowRange(InMemory(STACK), 1, 3, group=4), STACK[:, 1:3]),
    "rows in runs": (
        lambda: RowRuns(InMemory(STACK), ((8, 2), (0, 1), (3, 4))),
        STACK.reshape(12, 6)[[8, 9, 0, 3, 4, 5, 6]],
    ),
    "some columns": (lambda: Columns(InMemory(STACK), (4, 0, 1)), STACK[..., [4, 0, 1]]),
    "every second column": (lambda: Columns(InMemory(STACK), range(1, 6, 2)), STACK[..., 1::2]),
    "transposed": (lambda: Transposed(InMemory(MATRIX)), MATRIX.T),
    "a stack transposed": (lambda: Transposed(InMemory(STACK)), STACK.swapaxes(1, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_any_part_equals_that_part_of_the_whole(case: str) -> None:
    make, whole = CASES[case]
    rows = make()
    assert rows.shape == whole.shape
    flat = whole.reshape(-1, whole.shape[-1])
    arena = Arena()
    for start in range(row_count(rows.shape)):
        for stop in range(start + 1, row_count(rows.shape) + 1):
            arena.reset()
            np.testing.assert_array_equal(rows.read(start, stop, arena), flat[start:stop])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=8))
def test_an_arena_never_hands_out_memory_twice(sizes: list[int]) -> None:
    arena = Arena()
    for _ in range(3):
        arena.reset()
        parts = [arena.empty((size,), np.uint8) for size in sizes]
        for number, part in enumerate(parts):
            part[:] = number
        assert all((part == number).all() for number, part in enumerate(parts))

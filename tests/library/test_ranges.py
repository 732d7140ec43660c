"""Sets of byte ranges against sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llamacli.library.ranges import Ranges

SIZE = 40


@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=20))
def test_ranges_are_sets_of_numbers(steps: list[tuple[int, int]]) -> None:
    ranges, numbers = Ranges(), set[int]()
    for start, stop in steps:
        ranges.add(start, stop)
        numbers |= set(range(start, stop))
        pairs = list(ranges)
        assert {n for a, b in pairs for n in range(a, b)} == numbers
        assert all(a < b for a, b in pairs)
        assert all(b < c for (_, b), (c, _) in pairwise(pairs))
        assert ranges.total == len(numbers)
        assert ranges.prefix == next(n for n in range(SIZE + 1) if n not in numbers)
        assert {n for a, b in ranges.gaps(SIZE) for n in range(a, b)} == set(range(SIZE)) - numbers
        assert Ranges(pairs) == ranges

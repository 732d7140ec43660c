"""The best types for a size, against trying everything and against a second way to solve the same problem."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacli.errors import UsageError
from llamacli.formats.tensor_types import BY_NAME, Q4_K, Q6_K, Q8_0, TensorType
from llamacli.quantize.allocate import Candidate, allocate

TYPES = [
    BY_NAME[name] for name in ("IQ1_M", "IQ2_XS", "Q2_K", "IQ3_S", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
]
LLAMA_8B = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096), "gate": (14336, 4096),
            "up": (14336, 4096), "down": (4096, 14336)}  # fmt: skip


def like_llama_8b(blocks: int, seed: int = 0) -> dict[str, list[Candidate]]:
    """Tensors of Llama 3.1 8B; the damage falls fourfold with each bit, more or less, and some tensors matter more."""
    rng = np.random.default_rng(seed)

    def damage(type_: TensorType, weights: int, matters: float) -> float:
        bits = 8 * type_.block_bytes / type_.block_size
        return matters * weights * 4.0**-bits * float(np.exp(0.3 * rng.normal()))

    return {
        f"blk.{block}.{name}": [
            (type_, rows * type_.row_bytes(columns), damage(type_, rows * columns, matters)) for type_ in TYPES
        ]
        for block in range(blocks)
        for name, (rows, columns) in LLAMA_8B.items()
        for matters in [float(np.exp(rng.normal()))]
    }


def least_damage_by_trying_everything(candidates: dict[str, list[Candidate]], budget: int) -> float:
    return min(
        math.fsum(damage for _, _, damage in choice)
        for choice in itertools.product(*candidates.values())
        if sum(size for _, size, _ in choice) <= budget
    )


def least_damage_by_filling_a_table(candidates: dict[str, list[Candidate]], budget: int) -> float:
    """Textbook dynamic programming over every possible size, in units that divide all sizes."""
    unit = math.gcd(*(size for options in candidates.values() for _, size, _ in options))
    table = np.zeros(budget // unit + 1)
    for options in candidates.values():
        rows = [np.concatenate((np.full(size // unit, np.inf), table))[: table.size] + d for _, size, d in options]
        table = np.min(rows, axis=0)
    return float(table.min())


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, list[Candidate]], int]:
    damages = st.one_of(st.integers(0, 9).map(float), st.floats(0, 1e6))
    options = st.lists(st.tuples(st.sampled_from(TYPES), st.integers(0, 40), damages), min_size=1, max_size=5)
    candidates = {str(number): draw(options) for number in range(draw(st.integers(1, 5)))}
    smallest = sum(min(size for _, size, _ in options) for options in candidates.values())
    return candidates, smallest + draw(st.integers(0, 80))


@given(problems())
def test_the_choice_is_as_good_as_the_best_of_all(problem: tuple[dict[str, list[Candidate]], int]) -> None:
    candidates, budget = problem
    found = allocate(candidates, budget)
    assert found.size_bytes <= budget
    assert found.optimal
    assert found.damage == pytest.approx(least_damage_by_trying_everything(candidates, budget), rel=2e-9)
    for name, options in candidates.items():
        assert found.types[name] in {type_ for type_, _, _ in options}


@pytest.mark.parametrize("bits", [2.2, 3.0, 3.7, 4.5, 6.0, 9.0])
def test_a_large_model_gets_what_the_textbook_method_finds(bits: float) -> None:
    candidates = like_llama_8b(blocks=6)
    budget = int(6 * sum(rows * columns for rows, columns in LLAMA_8B.values()) * bits / 8)
    found = allocate(candidates, budget)
    assert found.optimal
    assert found.damage == pytest.approx(least_damage_by_filling_a_table(candidates, budget), rel=2e-9)


def test_no_choice_of_the_same_size_does_less_damage() -> None:
    candidates = like_llama_8b(blocks=32)
    rng = np.random.default_rng(7)
    for _ in range(5):
        choice = [options[rng.integers(len(options))] for options in candidates.values()]
        found = allocate(candidates, sum(size for _, size, _ in choice))
        assert found.damage <= math.fsum(damage for *_, damage in choice)


def test_a_larger_budget_never_does_more_damage() -> None:
    candidates = like_llama_8b(blocks=4)
    smallest = sum(min(size for _, size, _ in options) for options in candidates.values())
    damages = [allocate(candidates, int(smallest * factor)).damage for factor in (1, 1.001, 1.3, 2, 3, 9)]
    assert damages == sorted(damages, reverse=True)


def test_damage_proportional_to_bytes_fills_neither_memory_nor_time() -> None:
    rng = np.random.default_rng(1)
    candidates = {
        str(i): [(Q8_0, size := int(rng.integers(10**6, 10**8)), -size / 1e6) for _ in range(8)] for i in range(60)
    }
    budget = int(sum(options[3][1] for options in candidates.values()))
    found = allocate(candidates, budget)
    assert 0 <= budget - found.size_bytes < 1e-6 * budget


def test_a_budget_that_nothing_fits_names_the_smallest_that_does() -> None:
    with pytest.raises(UsageError, match=r"99 bytes: the smallest takes 100") as caught:
        allocate({"a": [(Q4_K, 60, 1.0), (Q6_K, 80, 0.5)], "b": [(Q4_K, 40, 1.0)]}, 99)
    assert "at least 100 bytes" in caught.value.hint


@pytest.mark.parametrize("options", [[], [(Q4_K, -1, 1.0)], [(Q4_K, 1, math.nan)], [(Q4_K, 1, math.inf)]])
def test_candidates_that_make_no_sense_are_refused(options: list[Candidate]) -> None:
    with pytest.raises(ValueError, match="a"):
        allocate({"a": options}, 100)


def test_nothing_to_decide_is_decided() -> None:
    assert allocate({}, 0).types == {}

"""Lists of settings and their combinations."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacli.bench.cases import (
    Case,
    Grid,
    Workload,
    all_cases,
    cache_types,
    device_lists,
    flash_attention,
    layers,
    numbers,
    pair,
)
from llamacli.bench.trials import check_cases
from llamacli.errors import LlamacliError, UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [("512", (512,)), ("4,8", (4, 8)), ("1-4", (1, 2, 3, 4)), ("0-8+4", (0, 4, 8)), ("1-16*2,3", (1, 2, 4, 8, 16, 3))],
)
def test_lists_and_ranges_as_in_llama_bench(text: str, values: tuple[int, ...]) -> None:
    assert numbers("-p", text) == values


@pytest.mark.parametrize("text", ["", "x", "-1", "1-", "4,,8", "0-8*2", "1-8+0", "1-99999999", "1-4*1", "9999999999"])
def test_nonsense_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        numbers("-p", text)


@given(st.text("0123456789,-+*x ", max_size=12))
def test_a_list_is_numbers_or_a_usage_error(text: str) -> None:
    try:
        assert all(value >= 0 for value in numbers("-p", text))
    except LlamacliError as error:
        assert isinstance(error, UsageError)


def test_words_for_layers_flash_attention_and_devices() -> None:
    assert layers("all,0,4") == (-1, 0, 4)
    assert layers("-1") == (-1,)
    assert flash_attention("1,off,auto") == ("on", "off", "auto")
    assert device_lists("auto,CUDA0/CUDA1") == ((), ("CUDA0", "CUDA1"))
    assert cache_types("-ctk", "F16,q8_0") == ("f16", "q8_0")
    assert pair("512,128") == (512, 128)
    for wrong in (lambda: flash_attention("maybe"), lambda: cache_types("-ctk", "q4_k"), lambda: pair("512")):
        with pytest.raises(UsageError):
            wrong()


def test_names_are_those_of_llama_bench() -> None:
    assert Workload(512).name == "pp512"
    assert Workload(0, 128, 4096).name == "tg128 @ d4096"
    assert Workload(512, 128).name == "pp512+tg128"


def test_all_combinations_in_llama_bench_order() -> None:
    grid = Grid(prompts=(64, 0), generates=(16,), pairs=((8, 4),), depths=(0, 32), threads=(1, 2))
    cases = all_cases([Path("m")], grid)
    assert [(c.threads, c.test.name) for c in cases] == [
        (threads, name + depth)
        for threads in (1, 2)
        for depth in ("", " @ d32")
        for name in ("pp64", "tg16", "pp8+tg4")
    ]


def test_nothing_to_measure_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="length 0"):
        all_cases([Path("m")], Grid(prompts=(0,), generates=(0,)))


def test_absurd_thread_counts_never_reach_the_engine() -> None:
    with pytest.raises(UsageError, match="processors"):
        check_cases([Case(Path("m"), Workload(1), threads=100_000)], logical=2)

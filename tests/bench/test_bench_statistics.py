"""Medians and their intervals."""

from __future__ import annotations

import random
import statistics

from hypothesis import given
from hypothesis import strategies as st

from llamacli.bench.compare import verdict
from llamacli.bench.statistics import bootstrap_interval, overlap, summarize

RATES = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=8)


@given(RATES)
def test_the_interval_lies_within_the_samples_and_holds_the_median(samples: list[float]) -> None:
    low, high = bootstrap_interval(samples)
    assert min(samples) <= low <= statistics.median(samples) <= high <= max(samples)


@given(RATES, st.sampled_from([0.5, 2.0, 4.0]))
def test_the_interval_scales_with_the_unit(samples: list[float], factor: float) -> None:
    low, high = bootstrap_interval(samples)
    assert bootstrap_interval([factor * s for s in samples]) == (factor * low, factor * high)


def test_the_same_samples_give_the_same_interval() -> None:
    samples = [random.Random(1).gauss(100, 5) for _ in range(20)]
    assert bootstrap_interval(samples) == bootstrap_interval(samples)


def test_more_repetitions_narrow_the_interval() -> None:
    draw = random.Random(2)
    many = [draw.gauss(100, 5) for _ in range(200)]
    low, high = bootstrap_interval(many)
    wide = bootstrap_interval(many[:8])
    assert high - low < wide[1] - wide[0]


def test_the_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    draw = random.Random(3)
    hits = 0
    for _ in range(100):
        low, high = bootstrap_interval([draw.gauss(0, 1) for _ in range(15)])
        hits += low <= 0 <= high
    assert 88 <= hits <= 100


def test_one_sample_is_its_own_interval_and_has_no_deviation() -> None:
    summary = summarize([42.0])
    assert (summary.mean, summary.deviation, summary.median, summary.half_width) == (42.0, 0.0, 42.0, 0.0)


def test_mean_and_deviation_are_those_of_llama_bench() -> None:
    summary = summarize([1.0, 2.0, 4.0])
    assert summary.mean == statistics.mean([1, 2, 4])
    assert summary.deviation == statistics.stdev([1, 2, 4])


def test_verdicts() -> None:
    steady = [100.0, 101.0, 99.0, 100.5, 99.5]
    assert verdict(steady, [s + 0.3 for s in steady]) == "no difference"
    assert verdict(steady, [s * 1.2 for s in steady]) == "faster"
    assert verdict(steady, [s * 0.8 for s in steady]) == "slower"
    assert overlap(summarize(steady), summarize(steady))

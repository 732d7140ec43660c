"""What a few repetitions of a measurement say, and how far they can be trusted."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """Of tokens per second: the mean and sample deviation that llama-bench prints, the median and its interval."""

    mean: float
    deviation: float
    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval, for a plus-minus."""
        return (self.high - self.low) / 2


def summarize(samples: Sequence[float]) -> Summary:
    """Mean, deviation, median and the 95 % interval of the median of at least one sample."""
    low, high = bootstrap_interval(samples)
    deviation = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return Summary(statistics.fmean(samples), deviation, statistics.median(samples), low, high)


def bootstrap_interval(samples: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """The interval that holds `share` of the medians of samples drawn again from `samples` (percentile bootstrap).

    With fewer than six samples that is the whole range. The drawing is seeded: the same samples give the same interval.
    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    if len(samples) == 1:
        return samples[0], samples[0]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(samples, k=len(samples))) for _ in range(RESAMPLES))
    cut = int((1 - share) / 2 * RESAMPLES)
    return medians[cut], medians[-1 - cut]


def overlap(one: Summary, other: Summary) -> bool:
    """Whether two intervals have a point in common: then the measurements do not tell a difference."""
    return one.low <= other.high and other.low <= one.high

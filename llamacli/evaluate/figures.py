"""Figures of quality, each with its standard error, from what was measured on every token.

The definitions are llama-perplexity's, so that its figures and these can stand in one table. Errors are standard errors
of means over tokens, carried through logarithms and ratios to first order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacli.evaluate.divergence import Floats

Samples = Mapping[str, "NDArray[Any]"]
"""Arrays of equal length, one value a token: `loss`, and with a source `base_loss`, `divergence`, `same_top`."""


_LARGEST_LOSS = 700.0
"""What a float can still be raised to; a model that is worse is noise anyway."""


@dataclass(frozen=True)
class Figure:
    """A mean and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.6g} ± {self.error:.2g}"


@dataclass(frozen=True)
class Divergence:
    """How a model differs from its source, in nats and in shares of 1."""

    mean: Figure
    median: float
    percent_90: float
    percent_99: float
    percent_99_9: float
    largest: float
    same_top: Figure
    probability_rms: Figure
    """Root mean square of the change of the probability of the token that came."""
    source_perplexity: Figure
    perplexity_ratio: Figure


@dataclass(frozen=True)
class Quality:
    """What `evaluate` finds out about one model."""

    tokens: int
    perplexity: Figure
    divergence: Divergence | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def quality(samples: Samples) -> Quality:
    """Summarise the tokens measured so far."""
    loss = np.asarray(samples["loss"], np.float64)
    tokens = len(loss)
    if "divergence" not in samples:
        return Quality(tokens, _exp(_mean(loss)))
    return Quality(tokens, _exp(_mean(loss)), _divergence(loss, samples))


def _divergence(loss: Floats, samples: Samples) -> Divergence:
    base = np.asarray(samples["base_loss"], np.float64)
    divergence = np.asarray(samples["divergence"], np.float64)
    median, p90, p99, p999 = np.quantile(divergence, (0.5, 0.9, 0.99, 0.999))
    same = float(np.mean(samples["same_top"]))
    squares = _mean((np.exp(-loss) - np.exp(-base)) ** 2)
    rms = math.sqrt(squares.value)
    return Divergence(
        mean=_mean(divergence),
        median=float(median),
        percent_90=float(p90),
        percent_99=float(p99),
        percent_99_9=float(p999),
        largest=float(divergence.max()),
        same_top=Figure(same, math.sqrt(same * (1 - same) / max(len(loss) - 1, 1))),
        probability_rms=Figure(rms, 0.5 / rms * squares.error if rms else 0.0),
        source_perplexity=_exp(_mean(base)),
        perplexity_ratio=_exp(_mean(loss - base)),
    )


def _mean(values: Floats) -> Figure:
    count = len(values)
    return Figure(float(values.mean()), float(values.std()) / math.sqrt(count - 1) if count > 1 else 0.0)


def _exp(figure: Figure) -> Figure:
    value = math.exp(min(figure.value, _LARGEST_LOSS))
    return Figure(value, value * figure.error)

"""What each sampler does: the tokens it leaves, against the definition computed from the model's own logits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.sampler import Sampler

DRAWS = 400
OPEN = Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0.0)
"""Everything may come, as likely as the model says."""
GREEDY = Sampling(temp=0)
TALE = "The dog ran to the park. The dog ran to the park. The dog ran to the"
Array = np.ndarray


@pytest.fixture(scope="module")
def engine(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted("stories260K-hf", "F32"), EngineSettings(threads=1)) as opened:
        opened.logits_after(opened.tokens((Span(TALE, False),)))
        yield opened


@pytest.fixture(scope="module")
def told(engine: LlamaEngine) -> list[int]:
    return engine.tokens((Span(TALE, False),))


@pytest.fixture(scope="module")
def logits(engine: LlamaEngine, told: list[int]) -> Array:
    return np.array(engine.logits_after(told), np.float64)


@pytest.fixture(scope="module")
def shares(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def drawn(engine: LlamaEngine, sampling: Sampling, told: list[int], draws: int = DRAWS) -> Counter[int]:
    """How often each token comes next, over as many seeds; the model is not asked again."""
    found: Counter[int] = Counter()
    for seed in range(draws):
        sampler = Sampler(engine._lib, engine.vocab, replace(sampling, seed=seed), 512)
        sampler.see(told)
        found[engine._lib.llama_sampler_sample(sampler.chain, engine._compute.context, -1)] += 1
        sampler.free()
    return found


def nucleus(order: Array, weights: Array, share: float) -> set[int]:
    """The first of `order` whose weights together reach `share`."""
    count = int(np.searchsorted(np.cumsum(weights[order]), share)) + 1
    return set(order[:count].tolist())


def best(values: Array) -> Array:
    return np.argsort(-values, kind="stable")


def typical(shares: Array, share: float) -> set[int]:
    surprise = -np.log(shares)
    usual = float((shares * surprise).sum())
    return nucleus(np.argsort(np.abs(surprise - usual), kind="stable"), shares, share)


def not_the_top(shares: Array, threshold: float) -> set[int]:
    above = [int(token) for token in best(shares) if shares[token] >= threshold]
    return set(range(len(shares))) - set(above[:-1])


LEFT: dict[str, tuple[Sampling, Callable[[Array, Array], set[int]]]] = {
    "top-k": (replace(OPEN, top_k=3), lambda share, logit: set(best(share)[:3].tolist())),
    "top-p": (replace(OPEN, top_p=0.6), lambda share, logit: nucleus(best(share), share, 0.6)),
    "min-p": (replace(OPEN, min_p=0.1), lambda share, logit: set(np.flatnonzero(share >= 0.1 * share.max()).tolist())),
    "typical": (replace(OPEN, typical_p=0.5), lambda share, logit: typical(share, 0.5)),
    "top-n-sigma": (
        replace(OPEN, top_n_sigma=0.3),
        lambda share, logit: set(np.flatnonzero(logit >= logit.max() - 0.3 * logit.std()).tolist()),
    ),
    "xtc": (replace(OPEN, xtc_probability=1.0, xtc_threshold=0.05), lambda share, logit: not_the_top(share, 0.05)),
    "mirostat 2": (
        replace(OPEN, mirostat=2, mirostat_tau=1.5),
        lambda share, logit: set(np.flatnonzero(-np.log2(share) <= 2 * 1.5).tolist()),
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_a_sampler_leaves_the_tokens_of_its_definition(
    name: str, engine: LlamaEngine, told: list[int], logits: Array, shares: Array
) -> None:
    sampling, definition = LEFT[name]
    allowed = definition(shares, logits)
    found = drawn(engine, sampling, told)
    assert set(found) <= allowed
    rest = shares[list(allowed)].sum()
    assert {token for token in allowed if shares[token] / rest > 0.03} <= set(found)
    assert not set(drawn(engine, OPEN, told)) <= allowed, "without it others come too"


def test_temperature_sharpens_and_flattens(engine: LlamaEngine, told: list[int], logits: Array) -> None:
    first = int(logits.argmax())
    for temp in (0.5, 1.0, 2.0):
        powers = np.exp((logits - logits.max()) / temp)
        expected = float(powers[first] / powers.sum())
        spread = 4 * math.sqrt(expected * (1 - expected) / DRAWS)
        assert drawn(engine, replace(OPEN, temp=temp), told)[first] / DRAWS == pytest.approx(expected, abs=spread)


def test_mirostat_1_keeps_to_the_likely(engine: LlamaEngine, told: list[int], shares: Array) -> None:
    found = drawn(engine, replace(OPEN, mirostat=1, mirostat_tau=0.5), told)
    assert min(shares[token] for token in found) > 10 * min(shares[token] for token in drawn(engine, OPEN, told))


@pytest.mark.parametrize(
    ("change", "penalty"),
    [
        ({"repeat_penalty": 1.8}, lambda logit, count: logit / 1.8 if logit > 0 else logit * 1.8),
        ({"presence_penalty": 3.0}, lambda logit, count: logit - 3.0),
        ({"frequency_penalty": 1.5}, lambda logit, count: logit - 1.5 * count),
    ],
)
def test_what_was_said_is_penalized(
    engine: LlamaEngine, told: list[int], logits: Array, change: dict[str, float],
    penalty: Callable[[float, int], float],
) -> None:  # fmt: skip
    changed = logits.copy()
    for token, count in Counter(told).items():
        changed[token] = penalty(logits[token], count)
    sampling = replace(GREEDY, repeat_last_n=64, **change)  # type: ignore[arg-type]
    assert set(drawn(engine, sampling, told, 1)) == {int(changed.argmax())} != {int(logits.argmax())}
    assert set(drawn(engine, replace(sampling, repeat_last_n=0), told, 1)) == {int(logits.argmax())}


def test_dry_ends_a_repetition(engine: LlamaEngine, told: list[int], logits: Array) -> None:
    following = told[-1:]
    repeated = told[[n for n in range(len(told) - 1) if told[n : n + 1] == following][-1] + 1]
    assert repeated == int(logits.argmax()), "the model would go on repeating"
    said = set(drawn(engine, replace(GREEDY, dry_multiplier=5.0), told, 1))
    assert said != {repeated}
    assert set(drawn(engine, replace(GREEDY, dry_multiplier=5.0, dry_allowed_length=50), told, 1)) == {repeated}


def test_a_bias_is_added(engine: LlamaEngine, told: list[int], logits: Array) -> None:
    first, tenth = (int(best(logits)[place]) for place in (0, 9))
    gap = float(logits[first] - logits[tenth])
    for bias, winner in ((gap + 0.1, tenth), (gap - 0.1, first)):
        assert set(drawn(engine, replace(GREEDY, logit_bias=((tenth, bias),)), told, 1)) == {winner}
    assert first not in drawn(engine, replace(OPEN, logit_bias=((first, -math.inf),)), told)

"""--power: so much work, so much rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import Result

from llamacli.errors import UsageError
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.pace import Pace

ONE = EngineSettings(threads=1)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, without sleeping."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


@pytest.mark.parametrize(("power", "rest"), [(50, 2.0), (25, 6.0), (80, 0.5), (100, 0.0)])
def test_rest_is_as_long_as_the_share_asks(power: int, rest: float, naps: list[float]) -> None:
    Pace(power, lambda: False).worked(2.0)
    assert sum(naps) == pytest.approx(rest)
    Pace(power, lambda: True).worked(2.0)
    assert sum(naps) == pytest.approx(rest), "nobody waits for what was stopped"


def test_an_answer_is_the_same_and_rests_as_long_as_it_works(naps: list[float], converted: Callable[..., Path]) -> None:
    answers, rests = [], []
    for power in (100, 20):
        with open_engine(converted("stories260K-hf", "F32"), replace(ONE, power=power)) as engine:
            tokens = engine.tokens((Span("Lily and Tim went to the park. " * 20, False),))
            pieces = list(engine.generate(tokens, Sampling(temp=0, predict=20, ignore_eos=True)))
        answers.append([piece.token for piece in pieces])
        rests.append(sum(naps))
        usage = pieces[-1].usage
    assert answers[0] == answers[1]
    assert rests[0] == 0
    assert usage is not None
    # The rest is four times the work; the times of the usage hold both the work and what is around it.
    assert 0 < rests[1] <= 4.0 * (usage.prompt_seconds + usage.completion_seconds)


def test_the_flag_is_checked(invoke: Callable[..., Result], converted: Callable[..., Path]) -> None:
    model = converted("stories260K-hf", "F32")
    assert invoke("run", "-m", model, "x", "--power", "0").code == 2
    assert invoke("run", "-m", model, "x", "-n", "2", "--power", "90", "--allow-truncated").code == 0
    with pytest.raises(UsageError, match="--power"):
        open_engine(model, replace(ONE, power=0))

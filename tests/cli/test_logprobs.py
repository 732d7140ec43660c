"""How likely each token was: against the engine's own logits, in `run --json` and in chat's /heat."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import Result

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.context import Context
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine
from llamacli.runtime.messages import Sampling, Span


def test_likelihoods_are_the_softmax_of_the_logits(converted: Callable[..., Path]) -> None:
    with open_engine(converted("stories260K-hf", "F32"), EngineSettings(threads=1)) as engine:
        tokens = engine.tokens((Span("Once upon a time", False),))
        sampling = Sampling(temp=1.5, seed=3, predict=6, logprobs=4)
        pieces = [piece for piece in engine.generate(tokens, sampling) if piece.token is not None]
        plain = [p.token for p in engine.generate(tokens, replace(sampling, logprobs=None)) if p.token is not None]
        assert [piece.token for piece in pieces] == plain
        for place, piece in enumerate(pieces):
            engine.forget()
            logits = np.array(engine.logits_after([*tokens, *plain[:place]]), np.float64)
            logs = logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())
            assert piece.likelihood is not None and piece.token is not None and piece.probability is not None
            assert abs(piece.likelihood.log_probability - logs[piece.token]) < 1e-3
            assert abs(piece.probability - math.exp(logs[piece.token])) < 1e-3
            assert [token for token, _ in piece.likelihood.best] == np.argsort(-logs, kind="stable")[:4].tolist()


def test_run_tells_them_on_request(converted: Callable[..., Path], invoke: Callable[..., Result]) -> None:
    model = converted("tinystories-chat-2m", "Q8_0")
    flags = ("--temp", "0", "-n", "6", "-t", "1", "--allow-truncated", "--json")
    answer = invoke("run", model, "Tell me a story", *flags, "--logprobs", "2").json
    assert len(answer["logprobs"]) == answer["usage"]["completion"] == 6
    assert "".join(one["token"] for one in answer["logprobs"]).strip() == answer["text"].strip()
    for one in answer["logprobs"]:
        assert one["logprob"] == one["top_logprobs"][0]["logprob"] <= 0, "greedy takes the likeliest"
        assert len(one["top_logprobs"]) == 2
    assert "logprobs" not in invoke("run", model, "Tell me a story", *flags).json


@pytest.mark.parametrize("predict", [1, 8, 9, 17, -1])
def test_they_are_found_out_afterwards(converted: Callable[..., Path], predict: int) -> None:
    with open_engine(converted("tinystories-chat-2m", "F32"), EngineSettings(threads=1)) as engine:
        tokens = engine.tokens((Span("Once upon a time", False),))
        sampling = Sampling(temp=0.9, seed=4, predict=predict)
        pieces = [p for p in engine.generate(tokens, replace(sampling, logprobs=0)) if p.token is not None]
        told = [p for p in engine.generate(tokens, sampling) if p.token is not None]
        assert [p.token for p in told] == [p.token for p in pieces]
        shares = engine.shares_of_last()
        assert len(shares) == len(told) and engine.shares_of_last() == pytest.approx(shares, abs=1e-3)
        assert shares == pytest.approx([piece.probability for piece in pieces], abs=1e-3)
        usage = list(engine.generate([*tokens, *(p.token or 0 for p in told), 5], sampling))[-1].usage
        assert usage is not None and usage.cached >= len(tokens) + len(told) - 1, "what was read stays read"
        engine.forget()
        assert engine.shares_of_last() == []


def test_heat_shows_the_last_answer_at_once(converted: Callable[..., Path], context: Callable[..., Context]) -> None:
    here = replace(context(), stdin=io.StringIO("Hello\n/heat\nHello\n"))
    model = converted("tinystories-chat-2m", "Q8_0")
    assert invoke_app(["chat", str(model), "--temp", "0", "-t", "1", "-n", "8"], here) == 0
    err = here.console.err
    assert isinstance(err, io.StringIO)
    assert "least likely:" in err.getvalue() and "from now on" not in err.getvalue()

"""How likely each token was: against the engine's own logits, in `run --json` and in chat's /heat."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
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


def test_heat_counts_from_when_it_is_asked_for(converted: Callable[..., Path], context: Callable[..., Context]) -> None:
    here = replace(context(), stdin=io.StringIO("Hello\n/heat\n/regen\n/heat\n"))
    model = converted("tinystories-chat-2m", "Q8_0")
    assert invoke_app(["chat", str(model), "--temp", "0", "-t", "1", "-n", "8"], here) == 0
    err = here.console.err
    assert isinstance(err, io.StringIO)
    assert "from now on" in err.getvalue()
    assert "least likely:" in err.getvalue()

"""Choices are scored exactly: against the raw logits of a context of its own, evaluated in another way."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llamacli.errors import UsageError
from llamacli.runtime import bindings
from llamacli.runtime.choices import answer_tokens, choices_of, score
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine
from llamacli.runtime.messages import Prompt, Span

CHOICES = ("yes", "no", "a dog", "a dog and a cat", "a doll", "Lily", "yes sir")


def raw_logits(path: Path, tokens: Sequence[int]) -> list[list[float]]:
    """The logits after each of `tokens`, all in one batch, through the low-level bindings alone."""
    lib: Any = bindings.load()
    parameters = lib.llama_model_default_params()
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    settings = lib.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_threads, settings.n_threads_batch = 512, 512, 1, 1
    context = lib.llama_init_from_model(model, settings)
    size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    try:
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, index
            batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1
        batch.n_tokens = len(tokens)
        assert lib.llama_decode(context, batch) == 0
        rows = [lib.llama_get_logits_ith(context, index) for index in range(len(tokens))]
        return [list(ctypes.cast(row, ctypes.POINTER(ctypes.c_float))[:size]) for row in rows]
    finally:
        lib.llama_batch_free(batch)
        lib.llama_free(context)
        lib.llama_model_free(model)


def softmax(logits: Sequence[float]) -> list[float]:
    most = max(logits)
    powers = [math.exp(value - most) for value in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


@pytest.mark.parametrize("name", ["stories260K-hf", "tinystories-chat-2m"])
def test_probabilities_equal_those_from_raw_logits(converted: Callable[..., Path], name: str) -> None:
    path = converted(name, "F32")
    prompt = (Span("Once upon a time there was", False),)
    with open_engine(path, EngineSettings(threads=1, gpu_layers=0)) as engine:

        def tokens_of(spans: Prompt) -> list[int]:
            return engine.tokens(spans)

        start = tokens_of(prompt)
        answers = [(text, answer_tokens(tokens_of, prompt, text)) for text in CHOICES]
        ends = engine.vocab.end_tokens()
        found = {choice.text: choice for choice in score(engine.logits_after, start, answers, ends)}
    expected = {}
    for text, tokens in answers:
        rows = raw_logits(path, [*start, *tokens])[len(start) - 1 :]
        shares = [softmax(row) for row in rows]
        steps = [shares[place][token] for place, token in enumerate(tokens)]
        expected[text] = math.fsum(map(math.log, steps)) + math.log(math.fsum(shares[-1][end] for end in ends))
    total = math.fsum(math.exp(value) for value in expected.values())
    for text in CHOICES:
        assert found[text].log_probability == pytest.approx(expected[text], abs=2e-3)
        assert found[text].probability == pytest.approx(math.exp(expected[text]) / total, rel=5e-3, abs=1e-12)
    assert math.fsum(choice.probability for choice in found.values()) == pytest.approx(1)


def test_a_shared_beginning_is_evaluated_once() -> None:
    asked: list[tuple[int, ...]] = []

    def logits(tokens: Sequence[int]) -> list[float]:
        asked.append(tuple(tokens))
        return [0.0] * 10

    found = score(logits, [1, 2], [("a", [3, 4]), ("b", [5]), ("c", [3, 6]), ("d", [3])], [9])
    assert len(asked) == len(set(asked)) == 5
    assert found[0].text in ("b", "d") and found[0].log_probability == pytest.approx(2 * -math.log(10))


def test_choices_are_read_from_a_list() -> None:
    assert choices_of("yes, no") == ("yes", "no")
    assert choices_of(r"a\,b,c") == ("a,b", "c")
    assert choices_of("one, two\nthree") == ("one, two", "three")
    for wrong in ("", "yes", "a,a", ","):
        with pytest.raises(UsageError):
            choices_of(wrong)

"""`embed` against transformers' vectors, and `tokens` against the engine that generates."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import SHARED, Result

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.context import Context
from llamacli.errors import ContextOverflow
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize
from llamacli.runtime.embedder import open_embedder
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine
from llamacli.runtime.messages import Span

BERT = SHARED / "families" / "bert"
ONE = EngineSettings(threads=1)


@pytest.fixture
def piped(context: Callable[..., Context]) -> Callable[..., Result]:
    def run(text: str, *arguments: object) -> Result:
        here = replace(context(), stdin=io.StringIO(text))
        code = invoke_app([str(argument) for argument in arguments], here)
        out, err = here.console.out, here.console.err
        assert isinstance(out, io.StringIO) and isinstance(err, io.StringIO)
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    if not BERT.is_dir():
        pytest.skip("the BERT checkpoint is not here")
    path = tmp_path / "bert.gguf"
    model = open_model(BERT)
    quantize(
        model, [Output(make_plan(model, recipe_named("F32"), PlanOptions()), path)], kernel_named("ggml"), threads=1
    )
    return path


def test_vectors_are_those_of_the_reference_alone_and_together(bert: Path) -> None:
    expected = np.load(BERT / "expected.npz")
    texts = [ids[:length].tolist() for ids, length in zip(expected["tokens"], expected["lengths"], strict=True)]
    with open_embedder(bert, ONE) as embedder:
        assert embedder.pooling == "cls"
        together = np.array(list(embedder.embed(texts)))
        alone = np.array([next(embedder.embed([text])) for text in texts])
    wanted = expected["embeddings"] / np.linalg.norm(expected["embeddings"], axis=1, keepdims=True)
    assert np.min(np.sum(together * wanted, axis=1)) > 0.9999
    assert np.max(np.abs(together - alone)) < 1e-3
    with open_embedder(bert, ONE, pooling="mean") as embedder:
        mean = np.array(list(embedder.embed(texts)))
    wanted = expected["mean"] / np.linalg.norm(expected["mean"], axis=1, keepdims=True)
    assert np.min(np.sum(mean * wanted, axis=1)) > 0.9999


def test_lines_become_arrays_of_length_one(converted: Callable[..., Path], piped: Callable[..., Result]) -> None:
    model = converted("stories260K-hf", "F32")
    done = piped("a cat\n\nthe dog\n", "embed", model, "-t", "1")
    vectors = np.array([json.loads(line) for line in done.out.splitlines()])
    assert done.code == 0
    assert vectors.shape == (2, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    rows = [json.loads(line) for line in piped("a cat\n", "embed", model, "-t", "1", "--json").out.splitlines()]
    assert rows[0]["text"] == "a cat" and np.allclose(rows[0]["embedding"], vectors[0])


def test_npy_is_read_by_numpy(converted: Callable[..., Path], tmp_path: Path) -> None:
    model = converted("stories260K-hf", "F32")
    command = [sys.executable, "-m", "llamacli", "embed", str(model), "-t", "1", "--npy", "a cat", "the dog", "a ball"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    array = np.load(io.BytesIO(done.stdout))
    assert (array.shape, array.dtype) == ((3, 64), np.float32)


def test_a_text_that_is_too_long_is_refused(converted: Callable[..., Path]) -> None:
    with open_embedder(converted("stories260K-hf", "F32"), ONE) as embedder, pytest.raises(ContextOverflow):
        embedder.tokens("word " * 2000)


def test_tokens_are_counted_as_the_engine_reads_them(
    converted: Callable[..., Path], piped: Callable[..., Result]
) -> None:
    model, text = converted("tinystories-chat-2m", "F32"), "Hello there, Tom.\nOne <|user|> day"
    with open_engine(model, ONE) as engine:
        ids = engine.tokens((Span(text, False),))
    assert piped(text, "tokens", model).out == f"{len(ids)}\n"
    assert piped(text, "tokens", model, "--ids").out.split() == [str(token) for token in ids]
    shown = piped(text, "tokens", model, "--json").json
    assert shown["ids"] == ids
    assert "".join(shown["pieces"]).endswith(text)
    assert len(piped("", "tokens", model, "--show", text).out.splitlines()) == len(ids)

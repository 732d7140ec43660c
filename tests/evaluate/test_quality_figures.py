"""Perplexity and divergence against llama-perplexity's figures, and the ways in which an evaluation can go."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import MODELS, ROOT, Result

from llamacli.errors import UsageError
from llamacli.evaluate.divergence import differences, losses
from llamacli.evaluate.figures import quality
from llamacli.evaluate.measure import fitting_groups, measure
from llamacli.evaluate.partial import ABANDONED, Partial, sweep
from llamacli.evaluate.plot import Dot, plot_svg
from llamacli.evaluate.windows import cut_text
from llamacli.formats.gguf_reader import read_gguf
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine

DATA = ROOT / "tests" / "data" / "evaluate"
TEXT = DATA / "text.txt"
PEER: dict[str, Any] = json.loads((DATA / "perplexity.json").read_text())
ONE_THREAD = EngineSettings(threads=1, gpu_layers=0)
Converted = Callable[..., Path]
Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def found(converted: Converted) -> dict[str, Any]:
    source, model = converted("tinystories-chat-2m", "F32"), converted("tinystories-chat-2m", "Q4_K_M")
    with open_engine(source, ONE_THREAD) as base, open_engine(model, ONE_THREAD) as engine:
        cut = cut_text(base, TEXT.read_text(), 256)
        return measure({"source": base, "model": engine}, cut, base)


def test_perplexity_is_that_of_llama_perplexity_within_a_tenth_of_a_per_cent(found: dict[str, Any]) -> None:
    for name in ("source", "model"):
        value, error = PEER[name]["perplexity"]
        assert found[name].tokens == PEER["tokens"]
        assert found[name].perplexity.value == pytest.approx(value, rel=1e-3)
        assert found[name].perplexity.error == pytest.approx(error, rel=1e-2)


def test_divergence_is_that_of_llama_perplexity_within_one_per_cent(found: dict[str, Any]) -> None:
    far, peer = found["model"].divergence, PEER["model"]
    assert far.mean.value == pytest.approx(peer["kl_divergence"][0], rel=0.01)
    assert far.mean.error == pytest.approx(peer["kl_divergence"][1], rel=0.02)
    for name in ("median", "percent_90", "percent_99", "percent_99_9", "largest"):
        assert getattr(far, name) == pytest.approx(peer[name], rel=0.01), name
    assert far.same_top.value == pytest.approx(peer["same_top"][0], abs=0.002)
    assert far.same_top.error == pytest.approx(peer["same_top"][1], rel=0.02)
    assert far.probability_rms.value == pytest.approx(peer["probability_rms"][0], rel=0.01)
    assert far.source_perplexity.value == pytest.approx(PEER["source"]["perplexity"][0], rel=1e-3)


def test_a_model_does_not_differ_from_itself(found: dict[str, Any]) -> None:
    far = found["source"].divergence
    assert far.largest == 0 and far.same_top.value == 1 and far.perplexity_ratio.value == 1


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 30.0]))
def test_losses_and_divergences_are_those_of_plain_double_arithmetic(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    base = (scale * random.standard_normal((7, 50))).astype(np.float32)
    other = (base + 0.1 * scale * random.standard_normal((7, 50))).astype(np.float32)
    ids = random.integers(0, 50, 7)
    p = np.exp(base - base.max(1, keepdims=True).astype(np.float64))
    q = np.exp(other - other.max(1, keepdims=True).astype(np.float64))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    found = differences(base, other, ids)
    tiny = np.finfo(np.float64).tiny
    assert found.divergence == pytest.approx((p * np.log(p / np.maximum(q, tiny) + tiny)).sum(1), rel=1e-3, abs=1e-5)
    assert found.loss == pytest.approx(-np.log(q[np.arange(7), ids]), rel=1e-4, abs=1e-5)
    assert found.base_loss == pytest.approx(losses(base, ids))
    assert (found.same_top == (p.argmax(1) == q.argmax(1))).all()


def test_standard_errors_are_those_of_means() -> None:
    loss = np.random.default_rng(1).exponential(2.0, 1000)
    found = quality({"loss": loss})
    assert found.perplexity.value == pytest.approx(np.exp(loss.mean()))
    assert found.perplexity.error == pytest.approx(found.perplexity.value * loss.std(ddof=1) / np.sqrt(1000))
    assert found.divergence is None


def test_an_interrupted_measurement_goes_on_to_the_same_figures(converted: Converted, tmp_path: Path) -> None:
    class Interrupting:
        """A progress that Ctrl-C meets after some windows."""

        left = 3

        def advance(self, amount: int) -> None:
            self.left -= amount
            if self.left <= 0:
                raise KeyboardInterrupt

        def describe(self, text: str) -> None:
            """Say nothing."""

    settings = EngineSettings(threads=1, batch=256)  # one window at a time
    with open_engine(converted("tinystories-chat-2m", "F32"), settings) as engine:
        cut = cut_text(engine, TEXT.read_text(), 128, 6)
        whole = measure({"it": engine}, cut)
        kept = tmp_path / "kept.npz"
        with pytest.raises(KeyboardInterrupt):
            measure({"it": engine}, cut, progress=Interrupting(), partial=Partial(kept, "key"))
        partial = Partial(kept, "key")
        assert 0 < partial.windows < len(cut)
        assert measure({"it": engine}, cut, partial=partial) == whole
        assert Partial(kept, "another key").windows == 0
        kept.write_bytes(b"PK not a zip")
        assert Partial(kept, "key").windows == 0


def test_large_vocabularies_take_their_logits_in_stretches(converted: Converted) -> None:
    from llamacli.runtime.windows import Windows

    with open_engine(converted("tinystories-chat-2m", "F32"), ONE_THREAD) as engine:
        window = cut_text(engine, TEXT.read_text(), 256, 1).window(0)
        rows = []
        for size in (1 << 26, 20 * 4 * engine.vocab.size):
            with Windows(engine, 256, logits_bytes=size) as context:
                parts = [
                    np.ctypeslib.as_array(part.logits, (part.stop - part.start, engine.vocab.size)).copy()
                    for part in context.evaluate([window], 128)
                ]
                rows.append(np.concatenate(parts))
        assert rows[0].shape == rows[1].shape == (128, engine.vocab.size)
        assert np.abs(rows[0] - rows[1]).max() < 0.05


def test_windows_begin_with_the_token_that_the_vocabulary_wants(converted: Converted) -> None:
    with open_engine(converted("stories260K-hf"), ONE_THREAD) as engine:
        cut = cut_text(engine, TEXT.read_text(), 64, 3)
        assert len(cut) == 3 and cut.bos == 1
        assert all(cut.window(number)[0] == cut.bos for number in range(3))
        assert cut.window(1)[1:] == list(cut.tokens[65:128])
        with pytest.raises(UsageError, match="too few"):
            cut_text(engine, "Once upon a time", 64)


def test_models_share_memory_with_their_source_as_far_as_it_goes() -> None:
    sizes = {"a": 4, "b": 5, "c": 90, "d": 1}
    assert list(fitting_groups(sizes, 10, 20)) == [["a", "b"], ["c"], ["d"]]
    assert list(fitting_groups(sizes, 10, 1000)) == [["a", "b", "c", "d"]]


def test_the_command_compares_several_models_in_one_table_and_one_picture(
    invoke: Invoke, converted: Converted, tmp_path: Path
) -> None:
    source = converted("tinystories-chat-2m", "F32")
    models = [converted("tinystories-chat-2m", kind) for kind in ("Q8_0", "Q2_K")]
    result = invoke("evaluate", *models, TEXT, "--against", source, "-c", 128, "-t", 1, "--plot", "picture.svg")
    assert result.code == 0, result.err
    heading, first, second = result.out.splitlines()
    assert "perplexity" in heading and "same top token" in heading
    figures = [re.findall(r"[\d.]+", line.split("MB")[1]) for line in (first, second)]
    assert float(figures[0][4]) < float(figures[1][4])  # Q8_0 diverges less
    picture = ElementTree.fromstring((tmp_path / "picture.svg").read_text())
    assert len(picture.findall("{http://www.w3.org/2000/svg}circle")) == 2
    assert not list((tmp_path / "home").rglob("*.npz")), "a finished measurement leaves nothing behind"
    again = invoke("evaluate", *models, TEXT, "--plot", "picture.svg")
    assert again.code == 12, "the picture exists"


def test_a_checkpoint_serves_as_the_source_through_a_temporary_file(invoke: Invoke, converted: Converted) -> None:
    model = converted("tinystories-chat-2m", "Q4_K_M")
    arguments = ("evaluate", model, TEXT, "--against", MODELS["tinystories-chat-2m"], "-c", 128, "--chunks", 2)
    result = invoke(*arguments, "-t", 1, "--json")
    assert result.code == 0, result.err
    assert "temporary BF16 GGUF" in result.err
    (found,) = result.json
    assert found["tokens"] == 2 * 63
    assert 0 < found["divergence"]["mean"]["value"] < 1


def test_a_model_that_computes_nonsense_is_named_also_as_the_source(
    invoke: Invoke, converted: Converted, tmp_path: Path
) -> None:
    model, broken = converted("tinystories-656k-bf16"), tmp_path / "broken.gguf"
    shutil.copy(model, broken)
    gguf = read_gguf(broken)
    with broken.open("r+b") as file:
        file.seek(gguf.tensor_start(next(t for t in gguf.tensors if t.name == "output_norm.weight")))
        file.write(np.float32("nan").tobytes())
    for arguments in ((broken,), (model, "--against", broken), (broken, "--against", model)):
        result = invoke("evaluate", *arguments, "-f", TEXT, "-c", 64, "--chunks", 2, "-t", 1)
        assert result.code == 10 and "broken.gguf computes NaN" in result.err, result.err


def test_models_with_other_tokens_are_not_compared(invoke: Invoke, converted: Converted) -> None:
    one, other = converted("stories260K-hf"), converted("tinystories-chat-2m", "Q4_K_M")
    result = invoke("evaluate", other, TEXT, "--against", one, "-c", 64, "-t", 1)
    assert result.code == 2
    assert "other tokens" in result.err


def test_a_picture_survives_odd_names_and_single_points() -> None:
    for dots in (
        [],
        [Dot("<a & b>\x00", 4.5, 0.1)],
        [Dot("a", 1, 1e-4, 0.1), Dot("b", 2, 3.0), Dot("c", 3, float("inf"))],
    ):
        assert ElementTree.fromstring(plot_svg(dots, "t", "x", "y")).tag.endswith("svg")


def test_what_was_abandoned_long_ago_is_removed(tmp_path: Path) -> None:
    old, young = tmp_path / "old.npz", tmp_path / "young.npz"
    for path, age in ((old, ABANDONED + 10), (young, ABANDONED - 10)):
        path.write_bytes(b"x")
        os.utime(path, (1e9 - age, 1e9 - age))
    sweep(tmp_path, 1e9)
    assert not old.exists() and young.exists()
    sweep(tmp_path / "none", 1e9)

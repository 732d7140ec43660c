"""Drafts: the same answer with and without them, and only where they pay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import SHARED, Result

from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize
from llamacli.runtime import llama
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.speculate import SIZES, TRUSTED, Costs, Drafts, Lookup

EXACT = EngineSettings(threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
"""Without roundings to half precision a batch computes what single tokens compute, but for the last bits."""
TALE = "Lily had a red ball. Tim had a big dog. The dog saw the ball. " * 3
SAMPLINGS = {
    "greedy": Sampling(temp=0),
    "sampled": Sampling(seed=11),
    "warm": Sampling(seed=12, temp=1.5, top_k=0, top_p=0.9),
    "penalties": Sampling(seed=13, repeat_penalty=1.05, presence_penalty=0.1),
    "mirostat": Sampling(seed=14, mirostat=2),
    "xtc": Sampling(seed=15, xtc_probability=0.5),
    "grammar": Sampling(seed=16, grammar='root ::= ("the " | "dog " | "ball ")+ "."'),
    "stop": Sampling(temp=0, stop=("park",)),
}


@pytest.fixture(scope="module")
def engine(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted("stories260K-hf", "F32"), EXACT) as opened:
        yield opened


def always() -> Drafts:
    return Drafts(Costs(None), always=True)


def told(engine: LlamaEngine, tokens: list[int], sampling: Sampling) -> tuple[str, list[int | None], str | None, int]:
    engine.forget()
    pieces = list(engine.generate(tokens, sampling))
    usage = pieces[-1].usage
    assert usage is not None
    return "".join(p.text for p in pieces), [p.token for p in pieces[:-1]], pieces[-1].finish, usage.completion


@pytest.mark.parametrize("name", SAMPLINGS)
def test_an_answer_is_the_same_with_drafts(name: str, engine: LlamaEngine) -> None:
    sampling = replace(SAMPLINGS[name], predict=90)
    tokens = engine.tokens((Span(TALE, False),))
    engine.drafts = None
    plain = told(engine, tokens, sampling)
    engine.drafts = drafts = always()
    assert told(engine, tokens, sampling) == plain
    assert drafts.drafted > 0
    assert engine.cached_tokens <= len(tokens) + len(plain[1])


def test_drafts_are_right_where_a_text_repeats_itself(engine: LlamaEngine) -> None:
    engine.drafts = drafts = always()
    told(engine, engine.tokens((Span(TALE, False),)), Sampling(temp=0, predict=380, ignore_eos=True))
    assert drafts.accepted >= 0.4 * drafts.drafted


def test_after_a_draft_the_conversation_goes_on_as_it_would_have(engine: LlamaEngine) -> None:
    tokens = engine.tokens((Span(TALE, False),))
    answers = []
    for drafts in (None, always()):
        engine.drafts = drafts
        _, first, _, _ = told(engine, tokens, Sampling(temp=0, predict=30))
        following = [*tokens, *(token for token in first if token is not None), *tokens[1:40]]
        pieces = list(engine.generate(following, Sampling(temp=0, predict=30)))
        answers.append([piece.token for piece in pieces])
        usage = pieces[-1].usage
        assert usage is not None and usage.cached == len(tokens) + len(first) - 1
    assert answers[0] == answers[1]


def test_the_context_grows_under_drafts(monkeypatch: pytest.MonkeyPatch, converted: Callable[..., Path]) -> None:
    monkeypatch.setattr(llama, "EXPECTED_ANSWER", 10)
    sampling = Sampling(temp=0, ignore_eos=True)
    answers = []
    for drafts in (None, always()):
        with open_engine(converted("stories260K-hf", "F32"), replace(EXACT, ctx_size=512)) as engine:
            engine.drafts = drafts
            answers.append(told(engine, engine.tokens((Span(TALE, False),)), sampling))
    assert answers[0] == answers[1]
    assert answers[0][2] == "length" and answers[0][3] > 350


def test_an_answer_that_is_stopped_leaves_nothing_that_was_only_drafted(engine: LlamaEngine) -> None:
    tokens = engine.tokens((Span(TALE, False),))
    engine.drafts = always()
    engine.forget()
    pieces = engine.generate(tokens, Sampling(temp=0, predict=100))
    said = [next(pieces).token for _ in range(20)]
    pieces.close()  # type: ignore[attr-defined]
    assert engine._compute.cells == [*tokens, *said][: len(engine._compute.cells)]
    assert engine.cached_tokens <= len(tokens) + 20


def test_nothing_is_drafted_where_a_recurrent_state_could_not_go_back(tmp_path: Path) -> None:
    for family in ("lfm2", "gemma3_text"):
        source = SHARED / "families" / family
        if not source.is_dir():
            pytest.skip("the checkpoints are not here")
        path = tmp_path / f"{family}.gguf"
        plan = make_plan(model := open_model(source), recipe_named("F32"), PlanOptions())
        quantize(model, [Output(plan, path)], kernel_named("ggml"), threads=1)
        with open_engine(path, EXACT) as engine:
            tokens = [1, *(20 + place % 7 for place in range(200))]
            plain = told(engine, tokens, Sampling(temp=0, predict=40, ignore_eos=True))
            engine.drafts = drafts = always()
            assert told(engine, tokens, Sampling(temp=0, predict=40, ignore_eos=True)) == plain
            assert bool(drafts.drafted) == (family == "gemma3_text")


def test_the_last_time_counts() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 1, 2, 3, 6, 7, 1, 2])
    assert lookup.guess(3) == []
    lookup.add(3)
    assert lookup.guess(3) == [6, 7, 1]
    before = lookup.right
    lookup.add(6)
    assert lookup.right > before and lookup.guesses == 1
    lookup.add(9)
    assert lookup.guesses == 2 and lookup.guess(3) == []


@pytest.mark.parametrize(
    ("costs", "right", "size"),
    [
        ({2: 2.0, 4: 3.3, 8: 7.0}, 0.99, 4),
        ({2: 2.0, 4: 3.9}, 1.0, 1),
        ({2: 1.05, 4: 1.1, 8: 1.2}, 0.95, 8),
        ({2: 1.05, 4: 1.1, 8: 1.2}, 0.2, 2),
        ({2: 1.5, 4: 2.0, 8: 4.0}, 0.1, 1),
        ({}, 1.0, 1),
    ],
)
def test_a_batch_is_as_large_as_it_pays(costs: dict[int, float], right: float, size: int) -> None:
    known = Costs(None)
    known.of_batches = costs
    assert known.best_size(right) == size
    assert known.hopeless == (costs == {2: 2.0, 4: 3.9})


def test_a_machine_is_measured_once_and_after_the_answer(converted: Callable[..., Path], tmp_path: Path) -> None:
    path, model = tmp_path / "drafts.json", converted("stories260K-hf", "F32")
    for known in (False, True):
        with open_engine(model, EXACT) as engine:
            costs = Costs.of_model(path, engine.gguf, engine.settings, engine.threads)
            assert costs.known is known
            engine.drafts = Drafts(costs)
            tokens = engine.tokens((Span(TALE * 2, False),))
            told(engine, tokens, Sampling(temp=0, predict=120, ignore_eos=True))
            if not known:
                assert engine.drafts.drafted == 0 and not path.exists()
    (found,) = json.loads(path.read_bytes())["costs"].values()
    assert {int(size) for size in found} <= set(SIZES) and min(found.values()) > 0
    path.write_text("{damaged")
    assert not Costs(path, "x").known


def test_a_verdict_against_drafts_is_reached_anew_after_a_day(tmp_path: Path) -> None:
    path, now = tmp_path / "drafts.json", time.time()
    against, speaks_for = {"2": 2.0, "4": 3.9}, {"2": 1.05, "4": 1.1}

    def known(costs: dict[str, float], measured: float) -> bool:
        path.write_text(json.dumps({"version": 1, "costs": {"x": costs}, "measured": {"x": measured}}))
        return Costs(path, "x").known

    assert known(against, now - 60) and not known(against, now - TRUSTED - 60) and not known(against, now + 600)
    assert known(speaks_for, now - 60) and known(speaks_for, 0)
    path.write_text(json.dumps({"version": 1, "costs": {"x": against}}))
    assert not Costs(path, "x").known


def test_the_flag_reaches_the_engine(converted: Callable[..., Path], invoke: Callable[..., Result]) -> None:
    model = converted("tinystories-chat-2m", "F32")
    flags = ("-t", "1", "--temp", "0", "-n", "40", "-ctk", "f32", "-ctv", "f32", "--allow-truncated")
    said = [invoke("run", "-m", model, "Tell me a story", *flags, "--draft", how).out for how in ("on", "off", "auto")]
    assert said[0] == said[1] == said[2] != ""
    assert invoke("run", "-m", model, "x", "--draft", "maybe").code == 2
    assert invoke("run", "-m", model, "x", env={"LLAMACLI_DRAFT": "maybe"}).code == 2

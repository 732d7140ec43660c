"""The engine on real, tiny models: published text, the KV cache, limits, stops, and faults that must not kill us."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llamacli.errors import ContextOverflow, CorruptFile, EngineError, NotFound, SchemaError, UsageError
from llamacli.runtime import llama
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Piece, Sampling, Span

GREEDY = Sampling(temp=0, predict=40)
ONE = EngineSettings(threads=1)
STORIES = Path(__file__).parent.parent / "data" / "models" / "stories260K-hf"


@pytest.fixture(scope="module")
def engine(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted("stories260K-hf", "F32"), ONE) as opened:
        yield opened


def ids(engine: LlamaEngine, text: str) -> list[int]:
    return engine.tokens((Span(text, False),))


def told(pieces: Iterator[Piece]) -> tuple[str, Piece]:
    all_pieces = list(pieces)
    return "".join(piece.text for piece in all_pieces), all_pieces[-1]


def test_greedy_text_is_what_the_models_author_published(engine: LlamaEngine) -> None:
    expected = (STORIES / "expected_greedy.txt").read_text(encoding="utf-8")
    text, last = told(engine.generate(ids(engine, ""), replace(GREEDY, predict=256)))
    assert text.lstrip(" ") == expected
    assert last.finish == "length"
    assert last.usage is not None and (last.usage.prompt, last.usage.completion) == (1, 256)


def test_a_prompt_is_read_once_and_the_answer_stays_the_same(engine: LlamaEngine) -> None:
    engine.forget()
    tokens = ids(engine, "Once upon a time, there was a boy named Tim. He")
    first, fresh = told(engine.generate(tokens, GREEDY))
    again, reused = told(engine.generate(tokens, GREEDY))
    assert first == again
    assert fresh.usage is not None and fresh.usage.cached == 0
    assert reused.usage is not None and reused.usage.cached == len(tokens) - 1


def test_only_the_common_beginning_is_reused(engine: LlamaEngine) -> None:
    engine.forget()
    one, two = ids(engine, "Once upon a time there was a cat"), ids(engine, "Once upon a time there was a big dog")
    alone, _ = told(engine.generate(two, GREEDY))
    engine.forget()
    told(engine.generate(one, GREEDY))
    after, last = told(engine.generate(two, GREEDY))
    assert after == alone
    assert last.usage is not None and 0 < last.usage.cached < len(two)


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_a_prompt_longer_than_a_batch_is_read_in_pieces(batch: int, converted: Callable[..., Path]) -> None:
    settings = EngineSettings(threads=1, batch=batch, ubatch=16)
    with open_engine(converted("stories260K-hf", "F32"), settings) as engine:
        tokens = ids(engine, "Lily and Tim went to the park. " * 9)
        text, last = told(engine.generate(tokens, GREEDY))
    with open_engine(converted("stories260K-hf", "F32"), ONE) as engine:
        assert told(engine.generate(tokens, GREEDY))[0] == text
    assert last.usage is not None and last.usage.prompt == len(tokens)


def test_the_context_grows_while_an_answer_is_written(
    monkeypatch: pytest.MonkeyPatch, converted: Callable[..., Path]
) -> None:
    sampling = Sampling(temp=0, ignore_eos=True)
    answers = []
    for room in (10, 2048):
        monkeypatch.setattr(llama, "EXPECTED_ANSWER", room)
        with open_engine(converted("stories260K-hf", "F32"), EngineSettings(threads=1, ctx_size=512)) as engine:
            answers.append(told(engine.generate(ids(engine, "Once upon a time"), sampling)))
    assert answers[0][0] == answers[1][0]
    assert [last.usage.completion for _, last in answers if last.usage] == [512 - 5 + 1] * 2


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(engine: LlamaEngine) -> None:
    tokens = ids(engine, "the dog ran " * 400)
    with pytest.raises(ContextOverflow, match=rf"{len(tokens):,} tokens.* 512"):
        list(engine.generate(tokens, GREEDY))


def test_an_answer_ends_where_the_context_ends(engine: LlamaEngine) -> None:
    tokens = ids(engine, "the dog ran " * 100)
    _, last = told(engine.generate(tokens, Sampling(temp=0, ignore_eos=True)))
    assert last.finish == "length"
    assert last.usage is not None and last.usage.prompt + last.usage.completion == 513


def test_stop_strings_end_an_answer_and_are_not_shown(engine: LlamaEngine) -> None:
    text, last = told(engine.generate(ids(engine, ""), replace(GREEDY, predict=200, stop=("red ball",))))
    assert text.endswith("she saw a big, ") and last.finish == "stop"


def test_a_seed_makes_an_answer_again(engine: LlamaEngine) -> None:
    tokens = ids(engine, "One day")
    sampling = Sampling(seed=7, predict=60)
    assert told(engine.generate(tokens, sampling))[0] == told(engine.generate(tokens, sampling))[0]
    assert engine.seed == 7
    told(engine.generate(tokens, replace(sampling, seed=None, predict=1)))
    assert engine.seed != 7


@pytest.mark.parametrize(
    "changes",
    [
        {"top_k": 0, "top_p": 0.9},
        {"typical_p": 0.9},
        {"top_n_sigma": 1.0},
        {"repeat_penalty": 1.3, "repeat_last_n": -1},
        {"presence_penalty": 0.5, "frequency_penalty": 0.2},
        {"xtc_probability": 0.5},
        {"dry_multiplier": 0.8},
        {"mirostat": 1},
        {"mirostat": 2},
        {"logit_bias": ((403, -100.0),)},
        {"min_p": 0.2, "temp": 1.5},
    ],
)
def test_every_sampler_gives_text(engine: LlamaEngine, changes: dict[str, object]) -> None:
    sampling = replace(Sampling(seed=1, predict=12), **changes)  # type: ignore[arg-type]
    text, last = told(engine.generate(ids(engine, "One day"), sampling))
    assert text and last.usage is not None and last.usage.completion <= 12


def test_a_bias_decides_what_comes(engine: LlamaEngine) -> None:
    token = ids(engine, " dog")[-1]
    sampling = Sampling(temp=0, predict=3, logit_bias=((token, 100.0),))
    pieces = list(engine.generate(ids(engine, "One day"), sampling))
    assert [piece.token for piece in pieces[:3]] == [token] * 3
    with pytest.raises(UsageError, match="vocabulary"):
        list(engine.generate(ids(engine, "x"), Sampling(logit_bias=((99_999, 1.0),))))


def test_a_grammar_is_obeyed_and_a_bad_one_refused(engine: LlamaEngine) -> None:
    sampling = Sampling(temp=0, predict=20, grammar='root ::= ("yes" | "no") "."')
    text, last = told(engine.generate(ids(engine, "Is it?"), sampling))
    assert text in ("yes.", "no.") and last.finish == "stop"
    for bad in ("root ::= (", "root ::= root root", "nonsense", ""):
        if bad:
            with pytest.raises(SchemaError):
                list(engine.generate(ids(engine, "x"), replace(sampling, grammar=bad)))


def test_stop_ends_an_answer_and_keeps_what_is_there(engine: LlamaEngine) -> None:
    pieces = []
    for piece in engine.generate(ids(engine, "Once"), Sampling(temp=0, ignore_eos=True)):
        pieces.append(piece)
        if len(pieces) == 5:
            engine.stop()
    assert pieces[-1].finish == "cancel"
    assert pieces[-1].usage is not None and pieces[-1].usage.completion == 5
    tokens = ids(engine, "Once")
    assert told(engine.generate(tokens, GREEDY))[1].finish == "length"


def test_stop_from_another_thread_ends_the_reading_of_a_prompt(converted: Callable[..., Path]) -> None:
    settings = EngineSettings(threads=1, ctx_size=60_000, batch=2048)
    with open_engine(converted("stories260K-hf", "F32"), settings) as engine:
        tokens = ids(engine, "the dog ran " * 4_000)
        timer = threading.Timer(0.3, engine.stop)
        timer.start()
        _, last = told(engine.generate(tokens, GREEDY))
        timer.cancel()
        assert last.finish == "cancel"
        assert last.usage is not None and last.usage.completion == 0
        assert engine.cached_tokens % 2048 == 0
        text, after = told(engine.generate(ids(engine, ""), GREEDY))
        assert text.startswith(" Once upon a time") and after.finish == "length"


def test_an_exception_while_a_prompt_is_read_comes_out_where_it_belongs(engine: LlamaEngine) -> None:
    class Pressed(BaseException):
        pass

    class Trap:
        def __bool__(self) -> bool:
            raise Pressed

    engine.forget()
    compute = engine._compute
    engine._make_room([1, 2, 3], GREEDY)
    compute.stopping = Trap()  # type: ignore[assignment]
    with pytest.raises(Pressed):
        compute.read([1, 403, 407])
    compute.stopping = False
    assert compute.cells == []
    assert told(engine.generate(ids(engine, ""), GREEDY))[0].startswith(" Once")


def test_whoever_watches_the_reading_changes_nothing(converted: Callable[..., Path]) -> None:
    tokens = [1, *(300 + 7 * n % 200 for n in range(399))]
    with open_engine(converted("stories260K-hf", "Q8_0"), replace(ONE, ubatch=64)) as watched:
        unseen = watched.logits_after(tokens)
        watched.forget()
        read: list[tuple[int, int]] = []
        watched.on_reading = lambda done, total: read.append((done, total))
        assert watched.logits_after(tokens) == unseen
        assert read == [(done, 400) for done in (0, 64, 128, 192, 256, 320, 384, 399, 400)]
        read.clear()
        assert watched.logits_after(tokens) == unseen
        assert read == [(0, 1), (1, 1)]


def test_closing_twice_and_using_a_closed_engine_is_harmless(converted: Callable[..., Path]) -> None:
    engine = open_engine(converted("stories260K-hf", "F32"), ONE)
    engine.close()
    engine.close()
    engine.stop()
    with pytest.raises(EngineError, match="closed"):
        list(engine.generate([1], GREEDY))


def test_an_exception_during_loading_ends_it(converted: Callable[..., Path]) -> None:
    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_engine(converted("stories260K-hf", "F32"), ONE, progress=interrupt)


def test_loading_tells_how_far_it_is(converted: Callable[..., Path]) -> None:
    seen: list[float] = []
    open_engine(converted("stories260K-hf", "F32"), ONE, progress=seen.append).close()
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"cache_type_k": "q4_k"},
        {"cache_type_v": "nonsense"},
        {"threads": 100_000},
        {"threads": 0},
        {"batch": 0},
        {"flash_attn": "maybe"},
        {"flash_attn": "off", "cache_type_v": "q8_0"},
        {"ctx_size": 1 << 40},
        {"devices": ("nowhere",)},
    ],
)
def test_settings_that_would_kill_the_process_are_refused(
    changes: dict[str, object], converted: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError):
        open_engine(converted("stories260K-hf", "F32"), replace(ONE, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("k", "v"), [("f32", "f32"), ("bf16", "bf16"), ("f16", "f32")])
def test_cache_types_can_be_chosen(k: str, v: str, converted: Callable[..., Path]) -> None:
    settings = EngineSettings(threads=1, cache_type_k=k, cache_type_v=v)
    with open_engine(converted("stories260K-hf", "F32"), settings) as engine:
        assert told(engine.generate(ids(engine, ""), GREEDY))[0].startswith(" Once upon a time")


def test_a_cache_type_that_does_not_fit_the_heads_is_an_error_not_an_abort(converted: Callable[..., Path]) -> None:
    settings = EngineSettings(threads=1, cache_type_k="q8_0", cache_type_v="q8_0")
    with (
        open_engine(converted("stories260K-hf", "F32"), settings) as engine,
        pytest.raises(EngineError, match="context"),
    ):
        list(engine.generate([1], GREEDY))


def test_what_is_no_model_is_told_before_the_engine_sees_it(tmp_path: Path, converted: Callable[..., Path]) -> None:
    with pytest.raises(NotFound):
        open_engine(tmp_path / "missing.gguf", ONE)
    whole = converted("stories260K-hf", "F32").read_bytes()
    for name, data in (("cut", whole[: len(whole) // 2]), ("text", b"hello"), ("empty", b"")):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(CorruptFile):
            open_engine(path, ONE)


def test_damaged_weights_are_an_error_not_an_answer(tmp_path: Path, converted: Callable[..., Path]) -> None:
    from llamacli.formats.gguf_reader import read_gguf

    source = converted("stories260K-hf", "F32")
    gguf = read_gguf(source)
    tensor = next(t for t in gguf.tensors if t.name == "output_norm.weight")
    data = bytearray(source.read_bytes())
    data[gguf.tensor_start(tensor) : gguf.tensor_start(tensor) + 4] = b"\x00\x00\xc0\x7f"
    path = tmp_path / "nan.gguf"
    path.write_bytes(data)
    with open_engine(path, ONE) as engine, pytest.raises(EngineError, match="NaN"):
        list(engine.generate([1, 403], GREEDY))


def test_a_lora_that_is_none_is_refused(converted: Callable[..., Path]) -> None:
    model = converted("stories260K-hf", "F32")
    with pytest.raises(CorruptFile, match="no LoRA adapter"):
        open_engine(model, replace(ONE, loras=((str(model), 1.0),)))

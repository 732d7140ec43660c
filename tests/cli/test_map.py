"""`map`: many rows through one loaded model, each answered as if it were alone."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import MODELS, Result

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.context import Context
from llamacli.cli.rows import Row, filled, rows_from
from llamacli.errors import UsageError
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.jobs import Job
from llamacli.runtime.llama import open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.parallel import Parallel
from llamacli.runtime.prompt_cuts import LONG_PROMPT

WORDS = ("Tom", "Lily", "a cat", "the dog", "a bird", "two balls", "the park", "happy", "sad", "little", "and")


@pytest.fixture
def mapped(context: Callable[..., Context], converted: Callable[..., Path]) -> Callable[..., Result]:
    """`mapped("rows", "PROMPT", flags...)` with the small trained model."""

    def run(rows: str, *arguments: object) -> Result:
        here = replace(context(), stdin=io.StringIO(rows))
        model = converted("tinystories-chat-2m", "Q8_0")
        code = invoke_app(["map", "-m", str(model), "-t", "1", "--temp", "0", *map(str, arguments)], here)
        out, err = here.console.out, here.console.err
        assert isinstance(out, io.StringIO) and isinstance(err, io.StringIO)
        return Result(code, out.getvalue(), err.getvalue())

    return run


def prompts(count: int) -> list[str]:
    numbers = random.Random(8)
    start = "Once upon a time there was a small town by the sea where everybody was kind. One day "
    return [start + " ".join(numbers.choice(WORDS) for _ in range(numbers.randrange(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("slots", [1, 5])
def test_rows_are_answered_as_single_prompts_are(slots: int, converted: Callable[..., Path]) -> None:
    settings = EngineSettings(threads=1, gpu_layers=0, cache_type_k="f32", cache_type_v="f32")
    with open_engine(converted("tinystories-chat-2m", "F32"), settings) as engine:
        sampling = Sampling(temp=0, predict=16)
        rows = [engine.tokens((Span(text, False),)) for text in prompts(40)]
        alone = []
        for tokens in rows:
            engine.forget()
            alone.append("".join(piece.text for piece in engine.generate(tokens, sampling)))
        with Parallel(engine, slots, exact=slots == 1) as parallel:
            outcomes = {o.number: o for o in parallel.run(Job(n, tokens, sampling) for n, tokens in enumerate(rows))}
        assert [outcomes[n].text for n in range(len(rows))] == alone
        if slots > 1:
            assert all(outcomes[n].cached >= 10 for n in range(1, len(rows))), "the shared beginning is read once"


def test_exact_rows_have_the_bits_of_single_runs_on_quantized_files(converted: Callable[..., Path]) -> None:
    with open_engine(converted("tinystories-chat-2m", "Q4_0"), EngineSettings(threads=1, ubatch=16)) as engine:
        sampling = Sampling(temp=0.7, seed=5, predict=12)
        rows = [engine.tokens((Span(text, False),)) for text in (*prompts(12), " ".join(prompts(12)))]
        assert len(rows[-1]) > LONG_PROMPT
        alone = []
        for tokens in rows:
            engine.forget()
            alone.append([piece.token for piece in engine.generate(tokens, sampling) if piece.token is not None])
        with Parallel(engine, 1, exact=True) as parallel:
            outcomes = list(parallel.run(Job(n, tokens, sampling) for n, tokens in enumerate(rows)))
        assert [list(outcome.tokens) for outcome in outcomes] == alone
        assert any(outcome.cached >= 16 for outcome in outcomes)


def test_answers_longer_than_the_first_context_are_not_cut(converted: Callable[..., Path]) -> None:
    settings = EngineSettings(threads=1, ctx_size=2048)
    with open_engine(converted("stories260K-hf", "F32"), settings) as engine:
        tokens = engine.tokens((Span("Once", False),))
        sampling = Sampling(temp=0, predict=-1, ignore_eos=True)
        with Parallel(engine, 2) as parallel:
            (outcome,) = parallel.run([Job(1, tokens, sampling)])
        assert len(outcome.tokens) > 1500
        assert outcome.finish == "length"


def test_a_prompt_that_is_too_long_fails_alone(converted: Callable[..., Path]) -> None:
    with open_engine(converted("stories260K-hf", "F32"), EngineSettings(threads=1)) as engine:
        short, long = engine.tokens((Span("Once", False),)), [300] * 600
        sampling = Sampling(temp=0, predict=4)
        with Parallel(engine, 2) as parallel:
            outcomes = {o.number: o for o in parallel.run([Job(1, short, sampling), Job(2, long, sampling)])}
        assert outcomes[1].error is None and outcomes[1].text
        assert outcomes[2].error is not None and outcomes[2].error.exit_code == 5


def test_answers_stand_in_the_order_of_the_rows(mapped: Callable[..., Result]) -> None:
    done = mapped("a cat\n\nthe dog\na ball", "Tell me about {line}", "-n", "9", "--out", "jsonl", "-np", "2")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert "limit of 9 tokens" in done.err


def test_one_line_of_text_for_every_row(mapped: Callable[..., Result]) -> None:
    done = mapped("a cat\nthe dog\n", "Tell me about", "-n", "40")
    assert len(done.out.splitlines()) == 2


def test_faulty_rows_are_told_and_make_exit_code_10(mapped: Callable[..., Result]) -> None:
    flags = ("say {name}", "--in", "jsonl", "--out", "jsonl", "-n", "4")
    rows = '{"name": "Tom"}\n{broken\n{"other": 1}\n'
    done = mapped(rows, *flags)
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 10
    assert ["error" in answer for answer in answers] == [False, True, True]
    assert mapped(rows, *flags, "--keep-going").code == 0


def test_choices_are_exact_and_a_filter_prints_rows(mapped: Callable[..., Result]) -> None:
    rows = "a cat\nthe dog\n"
    done = mapped(rows, "an animal? {line}", "--choices", "yes,no", "--out", "jsonl")
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert all(answer["text"] in ("yes", "no") and 0.5 <= answer["probability"] <= 1 for answer in answers)
    said = answers[0]["text"]
    assert mapped(rows, "an animal? {line}", "--filter", "--choices", "yes,no", "--true", said).out.startswith(
        "a cat\n"
    )
    other = "no" if said == "yes" else "yes"
    none = mapped("a cat\n", "an animal? {line}", "--filter", "--choices", "yes,no", "--true", other)
    assert (none.code, none.out) == (1, "")


def test_an_interrupted_file_is_gone_on_with(mapped: Callable[..., Result], tmp_path: Path) -> None:
    rows, flags = "a cat\nthe dog\na ball\n", ("about {line}", "-n", "6", "--resume")
    whole, half = tmp_path / "whole.jsonl", tmp_path / "half.jsonl"
    assert mapped(rows, *flags, whole).code == 0
    half.write_bytes(whole.read_bytes()[: len(whole.read_bytes()) // 2])
    assert mapped(rows, *flags, half).code == 0
    assert half.read_bytes() == whole.read_bytes()
    half.write_text("something else\n")
    assert mapped(rows, *flags, half).code == 2


def test_a_file_from_another_system_is_gone_on_with_byte_for_byte(
    mapped: Callable[..., Result], tmp_path: Path
) -> None:
    rows, flags = "a cat\nthe dog\n", ("about {line}", "-n", "6", "--resume")
    whole, other = tmp_path / "whole.jsonl", tmp_path / "other.jsonl"
    assert mapped(rows, *flags, whole).code == 0
    second = whole.read_bytes().splitlines(keepends=True)[1]
    first = '{"row": 1, "text": "a line\u2028and its next"}\r\n'.encode()
    other.write_bytes(first + second[:10])
    assert mapped(rows, *flags, other).code == 0
    assert other.read_bytes() == first + second


def test_rows_of_all_kinds() -> None:
    def read(text: str, kind: str, key: str = "") -> list[Row]:
        return list(rows_from(io.StringIO(text, newline=""), kind, key))

    assert [row.text for row in read("a\r\n\nb", "lines", "")] == ["a", "b"]
    assert [row.text for row in read("a\nb\0c\0", "nul")] == ["a\nb", "c"]
    assert read('{"t": "x", "n": 1}\n', "jsonl", "t")[0].text == "x"
    assert read('"plain"\n', "jsonl")[0].text == "plain"
    (row,) = read('name,text\r\nTom,"a, ""b"""\r\n', "csv", "text")
    assert (row.text, row.raw) == ('a, "b"', 'Tom,"a, ""b"""')
    assert read("a,b\n1,2,3\n", "csv")[0].fault


def test_only_names_of_fields_are_replaced() -> None:
    row = Row(1, "raw", "text", {"name": "Tom", "n": 3})
    assert filled('{"json": {name}} {n}', row) == '{"json": Tom} 3'
    assert filled("about {line}", row) == "about text"
    assert filled("about {foo}", Row(1, "raw", "text")) == "about {foo}\n\ntext"
    with pytest.raises(UsageError):
        filled("about {foo}", row)


def test_thoughts_that_the_template_opens_are_no_answer(mapped: Callable[..., Result], tmp_path: Path) -> None:
    source = (MODELS["tinystories-chat-2m"] / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "t.jinja").write_text(source + "{%- if add_generation_prompt %}<think>{% endif %}", encoding="utf-8")
    opened = ("Tell me about {line}.", "-n", "12", "--chat-template", str(tmp_path / "t.jinja"))
    closed, thought = mapped("a cat\n", *opened), mapped("a cat\n", *opened, "--think", "on")
    assert closed.out.strip() and thought.out == "\n"


def test_bytes_that_are_no_text_are_a_fault_of_their_row(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"\xef\xbb\xbfone\ncaf\xe9\nthree\n")
    with (tmp_path / "rows").open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        rows = list(rows_from(stream, "lines", ""))
    assert [row.text for row in rows if not row.fault] == ["one", "three"] and "UTF-8" in rows[1].fault


def test_csv_that_would_lose_something_is_refused_and_long_fields_are_not() -> None:
    with pytest.raises(UsageError, match="twice"):
        list(rows_from(io.StringIO("a,b,a\n1,2,3\n"), "csv", ""))
    long = "x" * 200_000
    assert next(rows_from(io.StringIO(f"a\n{long}\n"), "csv", "")).fields["a"] == long
    with pytest.raises(UsageError, match="near line"):
        list(rows_from(io.StringIO("a\n" + "x" * (17 << 20)), "csv", ""))


@pytest.mark.parametrize("content", [b"my notes, without a newline", b"\xff\xfe", b'{"row": 7, "te', b"notes\n"])
def test_a_file_that_is_not_ours_is_not_gone_on_with(
    mapped: Callable[..., Result], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "notes").write_bytes(content)
    assert mapped("a\n", "x {line}", "-n", "2", "--resume", tmp_path / "notes").code == 2
    assert (tmp_path / "notes").read_bytes() == content


def test_a_device_is_no_file_to_resume(mapped: Callable[..., Result]) -> None:
    assert mapped("a\n", "x {line}", "-n", "2", "--resume", "/dev/null").code == 12

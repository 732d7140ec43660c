"""What `run` may be held to, how it shows an answer, and where its question comes from."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Result

Invoke = Callable[..., Result]
HELLO = "Hello! Do you want to hear a story?"


@pytest.fixture(scope="module")
def chat(converted: Callable[..., Path]) -> str:
    return str(converted("tinystories-chat-2m", "F32"))


@pytest.fixture(scope="module")
def stories(converted: Callable[..., Path]) -> str:
    return str(converted("stories260K-hf", "F32"))


@pytest.fixture
def run(tmp_path: Path) -> Invoke:
    def start(*arguments: object, stdin: str = "") -> Result:
        # Standard input belongs to the process: without a pipe of its own a test would read pytest's.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(Path(__file__).parent.parent.parent),
            "LLAMACLI_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "llamacli", "run", "-t", "1", *map(str, arguments)],
            input=stdin.encode(),
            capture_output=True,
            timeout=120,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return start


def test_a_schema_gives_json_or_8(run: Invoke, stories: str, chat: str, tmp_path: Path) -> None:
    done = run("-m", stories, "--raw", "--schema", "name, age int", "-n", "150", "-s", "1", "Once")
    assert done.code == 0 and set(json.loads(done.out)) == {"name", "age"}
    (tmp_path / "s.json").write_text('{"enum": ["red", "blue"]}', encoding="utf-8")
    assert run("-m", stories, "--raw", "--schema", "s.json", "Once").out in ('"red"\n', '"blue"\n')
    cut = run("-m", stories, "--raw", "--schema", "name, age int", "-n", "3", "Once")
    assert cut.code == 8 and "schema" in cut.err
    whole = run("-m", stories, "--raw", "--schema", "s.json", "--json", "Once").json
    assert json.loads(whole["text"]) in ("red", "blue") and whole["finish"] == "stop"
    spelled = run("-m", chat, "--schema", "name", "Hello!")
    assert spelled.code == 8 and "vocabulary" in spelled.err and spelled.out == ""


def test_an_expression_is_obeyed(run: Invoke, chat: str) -> None:
    done = run("-m", chat, "--regex", "^[A-Z][a-z]{2,5}( and [a-z]{3})?[.]$", "Hello!")
    assert done.code == 0 and done.out[0].isupper() and done.out.endswith(".\n")
    assert run("-m", chat, "--regex", "(?=a)b", "Hello!").code == 2


def test_choices_give_the_winner_the_distribution_and_an_exit_code(run: Invoke, chat: str) -> None:
    said = f"yes,{HELLO}"
    assert run("-m", chat, "--choices", said, "Hello!").out == HELLO + "\n"
    found = run("-m", chat, "--choices", said, "--json", "Hello!").json
    assert found["text"] == HELLO and math.fsum(c["probability"] for c in found["choices"]) == pytest.approx(1)
    assert run("-m", chat, "--choices", said, "--true", HELLO, "Hello!").code == 0
    assert run("-m", chat, "--choices", said, "--true", HELLO, "--min", "0.8", "Hello!").code == 0
    no = run("-m", chat, "--choices", said, "--true", "yes", "--min", ".8", "-q", stdin="Hello!\n")
    assert (no.code, no.out, no.err) == (1, HELLO + "\n", "")
    assert run("-m", chat, "--choices", said, "--true", "maybe", "Hello!").code == 2
    assert run("-m", chat, "--true", "yes", "Hello!").code == 2
    assert run("-m", chat, "--choices", "a,b", "--schema", "x", "Hello!").code == 2


def test_code_is_extracted(run: Invoke, stories: str) -> None:
    block = "Here:\n```py\nprint(1)\n```\nOnce"
    some = ("-m", stories, "--chat-template", "chatml", "-n", "1", "--allow-truncated", "--prefill", block)
    assert run(*some, "-x", "a prompt").out == "print(1)\n"
    assert run(*some, "--extract=py", "a prompt").out == "print(1)\n"
    assert run(*some, "-x=rust", "a prompt").code == 8
    assert run(*some, "-x", "--json", "a prompt").json["text"] == "print(1)"
    none = run("-m", stories, "-x", "--raw", "-n", "2", "--allow-truncated", "Once")
    assert none.code == 0 and none.out.strip() and "no block" in none.err


def test_calls_of_tools_are_json(run: Invoke, stories: str, tmp_path: Path) -> None:
    tool = {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}}
    (tmp_path / "tools.json").write_text(json.dumps([tool]), encoding="utf-8")
    call = '<tool_call>\n{"name": "weather", "arguments": {"place": "Rome"}}\n</tool_call>'
    some = ("-m", stories, "--chat-template", "chatml", "-n", "1", "--allow-truncated", "--tools", "tools.json")
    wanted = [{"name": "weather", "arguments": {"place": "Rome"}}]
    assert run(*some, "--prefill", call, "Rome?").json == wanted
    whole = run(*some, "--prefill", call, "--json", "Rome?").json
    assert whole["tool_calls"] == wanted and "<tool_call>" not in whole["text"]
    assert run(*some, "--prefill", "It is fine", "Rome?").out.startswith("It is fine")
    (tmp_path / "tools.json").write_text("[1]", encoding="utf-8")
    assert run(*some, "Rome?").code == 2


def test_events_come_one_per_line(run: Invoke, chat: str) -> None:
    done = run("-m", chat, "--jsonl", "--temp", "0", "Hello!")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert "".join(event["text"] for event in events[:-1]) == HELLO
    assert all(event["type"] == "answer" and isinstance(event["token"], int) for event in events[:-2])
    assert events[-1]["type"] == "end" and events[-1]["text"] == HELLO and events[-1]["finish"] == "stop"


def test_long_input_is_never_cut_silently(run: Invoke, chat: str) -> None:
    long = "the dog ran to the park\n" * 300
    some = ("-m", chat, "-n", "20", "--allow-truncated", "--temp", "0")
    assert run(*some, "Tell it:", stdin=long).code == 5
    for how in ("head", "tail", "middle"):
        done = run(*some, "Tell it:", "--overflow", how, "--json", stdin=long)
        assert done.code == 0 and f"of {len(long):,} characters" in done.err
        assert 300 < done.json["usage"]["prompt"] <= 492
    parts = run(*some, "Tell it:", "--overflow", "map-reduce", stdin=long)
    assert parts.code == 0 and "read in" in parts.err and parts.out.strip()
    assert run(*some, "Hello!", "--overflow", "tail").err == ""
    assert run(*some, "Hello!", "--overflow", "nonsense").code == 2


def test_a_conversation_goes_on(run: Invoke, chat: str, tmp_path: Path) -> None:
    assert run("-C", "Hello!").code == 3
    program = [sys.executable, "-m", "llamacli", "chat", chat, "-t", "1", "--temp", "0"]
    environment = {**os.environ, "LLAMACLI_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    first = subprocess.run(program, input=b"Hello!\n", env=environment, capture_output=True, timeout=120, check=False)
    assert first.returncode == 0
    done = run("-C", "Yes, please.", "--temp", "0", "--json", "-n", "20", "--allow-truncated")
    alone = run("-m", chat, "Yes, please.", "--temp", "0", "--json", "-n", "20", "--allow-truncated")
    assert done.code == 0 and done.json["usage"]["prompt"] > alone.json["usage"]["prompt"] + 8
    (saved,) = (tmp_path / "home" / "data" / "chats").glob("*.jsonl")
    said = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    turns = [(event["role"], event["content"]) for event in said if event["type"] == "message"]
    assert turns[:3] == [("user", "Hello!"), ("assistant", HELLO), ("user", "Yes, please.")]
    assert turns[3] == ("assistant", done.json["text"])


def test_a_prompt_template_is_filled(run: Invoke, stories: str, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "templates"
    folder.mkdir(parents=True)
    (folder / "tell.txt").write_text("A {kind} story {{so}}: {input}", encoding="utf-8")
    (folder / "sys.toml").write_text(
        'prompt = "Go {how}"\nsystem = "Be {how}"\n[defaults]\nhow = "on"\n', encoding="utf-8"
    )
    (tmp_path / "echo.jinja").write_text("{{ raise_exception(messages | tojson) }}", encoding="utf-8")
    some = ("-m", stories, "--chat-template", "echo.jinja")

    def sent(*arguments: str, stdin: str = "") -> list[str]:
        err = run(*some, *arguments, stdin=stdin).err
        return [message["content"] for message in json.loads(err.split("fails: ")[1].splitlines()[0])]

    assert sent("-T", "tell", "-P", "kind={input}", "of a dog", stdin="and {kind}") == [
        "A {input} story {so}: of a dog\nand {kind}"
    ]
    assert sent("-T", "sys") == ["Be on", "Go on"]
    assert sent("-T", "sys", "-P", "how=away", "now") == ["Be away", "Go away\nnow"]
    missing = run(*some, "-T", "tell", "x")
    assert missing.code == 2 and "-P kind=" in missing.err
    assert run(*some, "-T", "tell", "-P", "kind=x", "-P", "other=y", "x").code == 2
    unknown = run(*some, "-T", "../tell", "x")
    assert unknown.code == 3 and "sys, tell" in unknown.err


def test_a_receipt_tells_how_to_repeat_an_answer(run: Invoke, chat: str, tmp_path: Path) -> None:
    assert run("-m", chat, "Hello!", "-s", "5", "--receipt", "r.json").code == 0
    receipt = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    model, answer = receipt["answer"]["model"], receipt["answer"]
    assert model["sha256"] == hashlib.sha256(Path(chat).read_bytes()).hexdigest()
    assert receipt["question"]["text"] == "Hello!" and answer["seed"] == 5
    assert answer["sha256"] == hashlib.sha256(answer["text"].encode()).hexdigest()
    again = run("-m", chat, "Hello!", "-s", "5", "--json").json
    assert again["text"] == answer["text"]
    refused = run("-m", chat, "Hello!", "--receipt", "r.json")
    assert refused.code == 12 and refused.out == ""


def test_flags_that_would_do_nothing_are_refused(run: Invoke, stories: str) -> None:
    for flags in (("--special",), ("--logprobs", "2"), ("-n", "-2")):
        done = run("run", "-m", stories, *flags, "Once")
        assert (done.code, done.out) == (2, "") and done.err.startswith("error: ")


def test_json_lines_end_with_the_object_once(run: Invoke, stories: str) -> None:
    flags = ("-m", stories, "--raw", "-n", "3", "--allow-truncated", "-t", "1", "--temp", "0")
    both = run("run", *flags, "--json", "--jsonl", "Once").out.splitlines()
    assert [json.loads(line)["type"] for line in both] == ["answer", "answer", "answer", "end"]


def test_choices_have_a_receipt_too(run: Invoke, chat: str, tmp_path: Path) -> None:
    asked = run("-m", chat, "Hello", "--choices", "yes,no", "--receipt", "r.json")
    written = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["answer"]
    assert written["text"] == asked.out.strip() and len(written["choices"]) == 2


def test_a_choice_that_the_vocabulary_cannot_spell_is_named(run: Invoke, chat: str) -> None:
    asked = run("-m", chat, "Hello", "--choices", "yes,\N{GRINNING FACE}")
    assert asked.code == 8 and asked.out == "" and "cannot spell" in asked.err

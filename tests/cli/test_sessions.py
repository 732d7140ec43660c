"""`sessions`: conversations listed, printed, removed with all that belongs to them; and the completion scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import Result

from llamacli.library.chats import Chats

Invoke = Callable[..., Result]


@pytest.fixture
def chats(tmp_path: Path) -> Chats:
    """Two conversations, the second with a pasted picture."""
    found = Chats(tmp_path / "home" / "data" / "chats")
    for number, words in enumerate(("Hello", "What is it?")):
        journal = found.new("/models/m.gguf", 1_790_000_000 + number, title="Cats" if number else "")
        picture = {"pictures": [{"path": str(found.folder / "pictures" / "a.png"), "sha256": "0"}]} if number else {}
        journal.say({"role": "user", "content": words, **picture})
        journal.say({"role": "assistant", "content": "A cat."})
    (found.folder / "pictures").mkdir()
    (found.folder / "pictures" / "a.png").write_bytes(b"x")
    return found


@pytest.mark.parametrize("created", [1e30, -1e18, 253_402_300_800e3])
def test_a_conversation_of_no_day_is_listed_all_the_same(created: float, invoke: Invoke, tmp_path: Path) -> None:
    journal = Chats(tmp_path / "home" / "data" / "chats").new("/models/m.gguf", created)
    journal.say({"role": "user", "content": "Hello"})
    for arguments in (("sessions",), ("sessions", "show", "hello", "--json")):
        assert invoke(*arguments).code == 0


def test_conversations_are_listed_and_printed(chats: Chats, invoke: Invoke) -> None:
    listed = invoke("sessions", "--json").json
    assert [entry["label"] for entry in listed] == ["Cats", "Hello"] and listed[0]["messages"] == 2
    assert "Cats" in invoke("sessions").out and "go on with one" in invoke("sessions").err
    text = invoke("sessions", "show", "cats").out
    assert text.startswith("# Cats\n") and "**assistant**\n\nA cat.\n" in text and "![a.png](" in text
    shown = invoke("sessions", "show", "cats", "--json").json
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]
    assert shown["messages"][0]["content"][1] == {"type": "text", "text": "What is it?"}


def test_a_removed_conversation_takes_its_pasted_pictures_along(chats: Chats, invoke: Invoke) -> None:
    refused = invoke("sessions", "rm", "cats")
    assert refused.code == 2 and "-y" in refused.err
    assert invoke("sessions", "rm", "cats", "-y").code == 0
    assert [chat.label() for chat in chats.all()] == ["Hello"]
    assert not list((chats.folder / "pictures").iterdir())


@pytest.mark.parametrize("words", [("show",), ("rm",), ("ls", "x"), ("burn",), ("show", "none")])
def test_a_mistake_is_one_line(chats: Chats, invoke: Invoke, words: tuple[str, ...]) -> None:
    done = invoke("sessions", *words)
    assert done.code in (2, 3) and done.out == "" and done.err.startswith("error: ")


def test_every_shell_has_a_script(invoke: Invoke) -> None:
    for shell in ("bash", "zsh", "fish", "powershell"):
        done = invoke("completion", shell)
        assert done.code == 0 and "_LLAMACLI_COMPLETE" in done.out and done.out.endswith("\n")
    assert invoke("completion", "tcsh").code == 2


def test_help_without_a_topic_is_the_help_of_the_program(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    text = invoke("help").out
    invoke("--help")
    assert text == capsys.readouterr().out

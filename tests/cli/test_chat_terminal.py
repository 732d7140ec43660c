"""Chat as a person has it: on a pseudo-terminal with an emulated screen, with the real engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamacli.library.chats import Chats

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs pseudo-terminals")

if os.name != "nt":
    from terminal import CTRL_C, CTRL_D, CTRL_J, CTRL_R, ENTER, ESC, TAB, UP, Terminal

GREETING = "Hello! Do you want to hear a story?"
READY = "Ctrl-D to leave."


@pytest.fixture(scope="module")
def model(converted: Callable[..., Path]) -> str:
    return str(converted("tinystories-chat-2m", "F16"))


def chats(home: Path) -> Chats:
    return Chats(home / "data" / "chats")


def test_a_conversation_from_hello_to_goodbye(model: str, tmp_path: Path) -> None:
    with Terminal("chat", model, "--temp", "0", "-t", "1", home=tmp_path) as terminal:
        terminal.wait(READY)
        terminal.keys("Hello", ENTER)
        screen = terminal.wait("to first")
        assert f"› Hello\n{GREETING}\n" in screen and "ctx ▓░░░░░░░ 5 %" in screen
        terminal.keys("/st", TAB)
        terminal.wait("/stats")
        terminal.keys(ENTER)
        terminal.wait("answer    8 tokens")
        terminal.keys(CTRL_C)
        terminal.wait("Ctrl-D to leave", times=2)
        terminal.keys("half a message")
        terminal.wait("half a message")
        terminal.keys(CTRL_C)
        terminal.gone("half a message")
        terminal.keys(UP)
        terminal.wait("› /stats", times=2)
        terminal.keys(CTRL_C, CTRL_R, "Hel")
        terminal.wait("I-search backward: Hel")
        terminal.wait("› Hello", times=2)
        terminal.keys(ENTER)
        terminal.gone("I-search")
        terminal.keys(CTRL_C)
        terminal.keys(ESC + ESC)
        terminal.wait("took back user: Hello; 0 messages are left")
        terminal.keys(CTRL_D)
        assert terminal.end() == 0
    assert (tmp_path / "data" / "chat_history").stat().st_mode & 0o777 == 0o600


def test_paste_and_new_lines_do_not_send(model: str, tmp_path: Path) -> None:
    with Terminal("chat", model, "--temp", "0", "-t", "1", "-n", "8", home=tmp_path) as terminal:
        terminal.wait(READY)
        terminal.keys("\x1b[200~pasted one\npasted two\n\x1b[201~")
        terminal.wait("pasted two")
        time.sleep(0.3)
        assert "t/s" not in terminal.text
        terminal.keys("typed", CTRL_J, "after ctrl-j", ESC + ENTER, "after alt-enter", ENTER)
        terminal.wait("ctx ▓")
        terminal.keys('"""block', ENTER, 'ends"""', ENTER)
        terminal.wait("ctx ▓", times=2)
        terminal.keys(CTRL_D)
        assert terminal.end() == 0
    texts = [node.text for node in chats(tmp_path).last().chat.path() if node.role == "user"]
    assert texts == ["pasted one\npasted two\ntyped\nafter ctrl-j\nafter alt-enter", "block\nends"]


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(model: str, tmp_path: Path) -> None:
    flags = ("--temp", "1", "-t", "1", "--ignore-eos", "-c", "16384")
    with Terminal("chat", model, *flags, home=tmp_path) as terminal:
        terminal.wait(READY)
        for stops in (1, 2, 3):
            terminal.keys("Hello", ENTER)
            terminal.wait("› Hello", times=stops)
            terminal.wait("\n", times=terminal.text.count("\n") + 1)
            terminal.keys(CTRL_C)
            terminal.wait("[stopped", times=stops)
            terminal.keys("/clear", ENTER)
            terminal.wait("forgotten", times=stops)
        assert "^C" not in terminal.text
        terminal.keys(CTRL_D)
        assert terminal.end() == 0
    tree = chats(tmp_path).last().chat
    assert sum(node.role == "user" for node in tree.nodes.values()) == 3
    answers = [node for node in tree.nodes.values() if node.role == "assistant"]
    assert answers and all(node.extra["stopped"] for node in answers)


def test_a_conversation_is_resumed_with_what_was_said_last(model: str, tmp_path: Path) -> None:
    with Terminal("chat", model, "--temp", "0", "-t", "1", home=tmp_path) as terminal:
        terminal.wait(READY)
        terminal.keys("Hello", ENTER)
        terminal.wait("to first")
        terminal.process.kill()
    with Terminal("chat", "-C", "--temp", "0", "-t", "1", home=tmp_path, columns=40) as terminal:
        screen = terminal.wait("story?")
        assert "› Hello" in screen and '"Hello"' in screen
        terminal.keys("/exit", ENTER)
        assert terminal.end() == 0


@pytest.mark.parametrize(
    ("columns", "env"),
    [(20, {}), (20, {"NO_COLOR": "1", "LC_ALL": "C"}), (60, {"TERM": "dumb"}), (8, {})],
    ids=["narrow", "plain-ascii", "dumb", "very-narrow"],
)
def test_every_terminal_shows_the_whole_answer(model: str, tmp_path: Path, columns: int, env: dict[str, str]) -> None:
    with Terminal("chat", model, "--temp", "0", "-t", "1", home=tmp_path, columns=columns, lines=60, **env) as terminal:
        terminal.wait("leave.")
        terminal.keys("Hello", ENTER)
        screen = terminal.wait("%")
        terminal.keys("/exit", ENTER)
        assert terminal.end() == 0
    words = "".join(screen.split())
    assert "".join(GREETING.split()) in words
    if env.get("TERM") == "dumb":
        assert b"\x1b" not in terminal.raw
    if "NO_COLOR" in env:
        assert screen.isascii() and "› " not in screen and b"[1m" not in terminal.raw and b"[2m" not in terminal.raw


def test_plain_has_no_escape_sequence_at_all(model: str, tmp_path: Path) -> None:
    with Terminal("chat", model, "--temp", "0", "-t", "1", "--plain", home=tmp_path) as terminal:
        terminal.wait(READY)
        terminal.keys("Hello\n")
        terminal.wait("to first")
        terminal.keys("/run echo made; exit 3\n")
        terminal.wait("[y/N]")
        terminal.keys("y\n")
        terminal.wait("go with your next message")
        terminal.keys(CTRL_D)
        assert terminal.end() == 0
    assert b"\x1b" not in terminal.raw.replace(b"\r\x1b[2K", b"").split(READY.encode())[-1]


def test_the_window_may_change_its_size(model: str, tmp_path: Path) -> None:
    with Terminal("chat", model, "--temp", "0", "-t", "1", home=tmp_path) as terminal:
        terminal.wait(READY)
        terminal.resize(30, 24)
        terminal.keys("Tell me a story", ENTER)
        terminal.wait("%")
        terminal.resize(100, 30)
        terminal.keys("Hello", ENTER)
        terminal.wait("› Hello")
        terminal.wait("%", times=1)
        terminal.keys(CTRL_D)
        assert terminal.end() == 0


def test_an_editor_writes_the_message(model: str, tmp_path: Path) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "Hello" > "$1"\n')
    editor.chmod(0o755)
    with Terminal("chat", model, "--temp", "0", "-t", "1", home=tmp_path, VISUAL=str(editor)) as terminal:
        terminal.wait(READY)
        terminal.keys("\x07")
        terminal.wait("› Hello")
        terminal.keys(ENTER)
        terminal.wait(GREETING)
        terminal.keys(CTRL_D)
        assert terminal.end() == 0


def test_a_full_context_is_announced_and_then_asked_about(model: str, tmp_path: Path) -> None:
    flags = ("--temp", "0", "-t", "1", "-c", "256", "-n", "60", "--ignore-eos")
    with Terminal("chat", model, *flags, home=tmp_path, lines=50) as terminal:
        terminal.wait(READY)
        for turn in (1, 2, 3):
            terminal.keys("Tell me a story about a small bird", ENTER)
            terminal.wait("t/s", times=turn)
        terminal.wait("is full: the answer was cut")
        terminal.keys("Hello", ENTER)
        terminal.wait("go on without the oldest turns? They stay saved. [y/N]")
        terminal.keys("n", ENTER)
        terminal.wait("error: the input is")
        terminal.keys("Hello", ENTER)
        terminal.wait("[y/N]", times=2)
        terminal.keys("y", ENTER)
        terminal.wait("no longer sees the 2 oldest messages")
        terminal.wait("t/s", times=4)
        terminal.keys(CTRL_D)
        assert terminal.end() == 0
    assert len(chats(tmp_path).last().chat.path()) == 8


def test_colours_in_pasted_text_are_no_mouse(model: str, tmp_path: Path) -> None:
    """A terminal without bracketed paste sends them as keys; one of them looks like a click."""
    with Terminal("chat", model, "--temp", "0", "-t", "1", home=tmp_path) as terminal:
        terminal.wait(READY)
        terminal.keys("so \x1b[31mred\x1b[0m it is")
        assert "Traceback" not in terminal.wait("so red it is")
        terminal.keys(CTRL_C, CTRL_D)
        assert terminal.end() == 0

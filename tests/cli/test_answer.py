"""How an answer is shown: hostile or harmless, on a terminal, in a pipe, thoughts folded."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pyte
import pytest

from llamacli.cli.console import Console
from llamacli.cli.screen.answer import Answer, LiveAnswer
from llamacli.cli.screen.look import Look, look_of, speaks_utf8
from llamacli.cli.screen.status import meter_of, speed_of, status_line
from llamacli.runtime.messages import Piece, Usage

USAGE = Usage(prompt=30, cached=10, completion=42, prompt_seconds=0.5, completion_seconds=2.0)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(pieces: list[Piece], *, terminal: bool = True, plain: bool = False, **env: str) -> tuple[str, str, Answer]:
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    console = Console(out, err, {"COLUMNS": "60", "LANG": "C.UTF-8", "TERM": "xterm", **env})
    answer = LiveAnswer(console, look_of(console, plain=plain)).show(iter(pieces))
    return out.getvalue(), err.getvalue(), answer


def pieces(*texts: str, kind: str = "answer") -> list[Piece]:
    return [*(Piece(text, kind) for text in texts), Piece(finish="stop", usage=USAGE)]  # type: ignore[arg-type]


def test_a_pipe_gets_the_bytes_of_the_answer_and_one_newline() -> None:
    hostile = ("**a**\x1b[31m", "b\x9b2J", "\ttab \u202e end")
    out, err, answer = shown(pieces(*hostile), terminal=False)
    assert out == "".join(hostile) + "\n" and answer.text == "".join(hostile)
    assert err == ""


@pytest.mark.parametrize("text", ["ends\n", "ends", "two\n\n"])
def test_the_answer_ends_its_line_once(text: str) -> None:
    for terminal in (True, False):
        out, _, _ = shown(pieces(text), terminal=terminal)
        assert out.rstrip("\n") == text.rstrip("\n")
        assert out.endswith("\n") and out.count("\n") == max(text.count("\n"), 1)


def test_an_empty_answer_writes_nothing() -> None:
    assert shown(pieces())[0] == ""


def test_hostile_answers_at_random_cuts_leave_the_terminal_as_text_leaves_it() -> None:
    rng = random.Random(7)
    alphabet = ["\x1b[", "\x1b]0;t\x07", "\x1b[?25l", "\x9b", "\x9d2;t\x9c", "31m", "**", "`", "| a | b |\n", "|--|--|\n",
                "\n", "word ", "é", "日", "\x1bP", "\x1b\\", "\r", "\x08", "#", "```\n", "\x1bc", "\x1b[6n"]  # fmt: skip
    for _ in range(300):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 30)))
        cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 8)))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        out, _, answer = shown(pieces(*parts))
        assert answer.text == text
        screen, replies = pyte.Screen(60, 24), []
        screen.write_process_input = replies.append  # type: ignore[method-assign]
        fresh = pyte.Screen(60, 24)
        pyte.Stream(screen).feed(out.replace("\n", "\r\n"))
        assert screen.mode == fresh.mode and screen.title == fresh.title and screen.margins == fresh.margins
        assert screen.cursor.attrs == fresh.cursor.attrs and not screen.cursor.hidden and not replies


def test_markdown_is_styled_only_in_colour() -> None:
    assert "\x1b[1mbold\x1b[0m" in shown(pieces("a **bold** word"))[0]
    assert shown(pieces("a **bold** word"), NO_COLOR="1")[0] == "a **bold** word\n"
    assert shown(pieces("a **bold** word"), TERM="dumb")[0] == "a **bold** word\n"
    assert shown(pieces("a **bold** word"), plain=True)[0] == "a **bold** word\n"


def test_lines_break_between_words_unless_the_terminal_is_dumb() -> None:
    text = "one two three four five six"
    assert shown(pieces(text), COLUMNS="10", NO_COLOR="1")[0] == "one two\nthree four\nfive six\n"
    assert shown(pieces(text), COLUMNS="10", TERM="dumb")[0] == text + "\n"


def test_thoughts_are_folded_into_one_line_beside_the_answer() -> None:
    thoughts = [Piece("I wonder", "reasoning", token=1), Piece(" why", "reasoning", token=2)]
    out, err, answer = shown([*thoughts, *pieces("Because.")])
    assert out == "Because.\n"
    assert "thought 2 tokens" in err and "/think show" in err and "wonder" not in err
    assert answer.reasoning == "I wonder why" and answer.thoughts == 2


def test_thoughts_that_lead_to_no_answer_are_told_too() -> None:
    out, err, answer = shown([Piece("hm", "reasoning", token=1), Piece(finish="length", usage=USAGE)])
    assert out == "" and "thought 1 tokens" in err and answer.finish == "length"


def test_a_second_interrupt_keeps_what_is_there() -> None:
    def impatient() -> Iterator[Piece]:
        yield Piece("half an ")
        raise KeyboardInterrupt

    console = Console(io.StringIO(), io.StringIO(), {})
    answer = LiveAnswer(console, look_of(console)).show(impatient())
    assert answer.finish == "cancel" and answer.text == "half an "


def look(width: int, *, unicode: bool = True) -> Look:
    return Look(live=True, styled=False, wrapped=True, redraw=True, unicode=unicode, width=lambda: width)


@pytest.mark.parametrize("width", [8, 12, 20, 30, 40, 80, 200])
def test_the_status_line_fits_every_screen(width: int) -> None:
    answer = Answer("x", usage=USAGE, first=0.4)
    line = status_line(answer, 72, 900, look(width))
    assert len(line) <= max(width - 1, 3) and "8 %" in line
    if width >= 80:
        assert line.strip() == "21 t/s · 0.4 s to first · ctx ▓░░░░░░░ 8 %"


def test_without_utf8_our_marks_are_ascii() -> None:
    line = status_line(Answer("x", usage=USAGE, first=0.4), 600, 1000, look(80, unicode=False))
    assert line.strip() == "21 t/s - 0.4 s to first - ctx #####... 60 %"
    assert line.isascii() and meter_of(1000, 1000, look(80, unicode=False)) == "ctx ######## 100 %"


def test_speed_is_told_only_where_it_was_measured() -> None:
    assert speed_of(Answer()) == ""
    assert speed_of(Answer(usage=Usage(completion=1, completion_seconds=1))) == ""
    assert speed_of(Answer(usage=Usage(completion=9, completion_seconds=2))) == "4.5 t/s"


@pytest.mark.parametrize(
    ("env", "utf8"),
    [
        ({}, False),
        ({"LANG": "de_DE.UTF-8"}, True),
        ({"LC_ALL": "C", "LANG": "C.UTF-8"}, False),
        ({"LANG": "C.utf8"}, True),
    ],
)
def test_the_locale_tells_what_may_be_drawn(env: dict[str, str], utf8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert speaks_utf8(env) is utf8

"""Lines break between words, for all cuts of the stream, and nothing but space changes."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.cli.screen.wrap import Wrap, cells_of

texts = st.text(st.sampled_from("abc de\n泡é\t-*1. \u0301"), max_size=120)


def wrapped(text: str, width: int, cuts: list[int] | None = None) -> str:
    wrap, out, start = Wrap(lambda: width), "", 0
    for stop in [*sorted(cuts or []), len(text)]:
        out += wrap.feed(text[start:stop])
        start = stop
    return out + wrap.flush()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two three", "one two\nthree"),
        ("one two thre\nfour", "one two\nthre\nfour"),
        ("- one two three", "- one two\n  three"),
        ("  indented text", "  indented\n  text"),
        ("exactlyten x", "exactlyten\nx"),
        ("a wordthatistoolong b", "a\nwordthatistoolong\nb"),
        ("泡沫泡沫泡沫", "泡沫泡沫泡\n沫"),
        ("a \x1b[1mbold words\x1b[0m here", "a \x1b[1mbold\nwords\x1b[0m here"),
        ("12. first of all", "12. first\n   of all"),
    ],
)
def test_lines_of_ten_columns(text: str, shown: str) -> None:
    assert wrapped(text, 10) == shown


@settings(deadline=None, max_examples=300)
@given(texts, st.integers(4, 30), st.lists(st.integers(0, 120), max_size=6))
def test_the_cuts_do_not_matter_and_only_space_changes(text: str, width: int, cuts: list[int]) -> None:
    shown = wrapped(text, width)
    assert wrapped(text, width, [min(cut, len(text)) for cut in cuts]) == shown
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)
    assert shown.count("\n") >= text.count("\n")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text("abcé", min_size=1, max_size=6), max_size=30), st.integers(8, 30))
def test_no_line_is_wider_than_the_screen_and_none_could_take_the_next_word(words: list[str], width: int) -> None:
    lines = wrapped(" ".join(words), width).split("\n")
    assert all(sum(map(cells_of, line)) <= width for line in lines)
    for line, after in itertools.pairwise(lines):
        assert len(line) + 1 + len(after.split()[0]) > width


def test_a_word_is_shown_when_the_next_begins() -> None:
    wrap = Wrap(lambda: 80)
    assert [wrap.feed(piece) for piece in ("Hel", "lo", " wor", "ld", ",", " and")] == [
        "",
        "",
        "Hello",
        "",
        "",
        " world,",
    ]
    assert wrap.flush() == " and"


def test_code_is_left_as_it_is() -> None:
    wrap = Wrap(lambda: 10)
    assert wrap.verbatim("a very long line of code\n") == "a very long line of code\n"
    assert wrap.feed("one two three ") == "one two\nthree"

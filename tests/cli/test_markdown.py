"""Markdown that streams: the same picture for all cuts, nothing lost, nothing redrawn but one line."""

from __future__ import annotations

import re

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.cli.screen.markdown import LONGEST_HELD, Markdown

ANSWER = """# Sorting

A list is sorted with **`sorted`**, which makes a *new* list; 2 * 3 * 4 stays, and so does 2**10 == 1024.

```python
def f(a, *b):  # **not bold**
    return sorted(a)
```

| name   | cost | note |
|:-------|-----:|------|
| quick  | n log n | **fast** |
| 泡沫 | n² | slow |

1. first
2. snake_case_name and a \\*star\\*
"""
SGR = re.compile("\x1b\\[[0-9;]*m")
parts = st.lists(
    st.sampled_from(["*", "**", "***", "`", "``", "```", "a", "b ", " ", "\n", "#", "# ", "\\", "~~~", "é", "1", "泡"]),
    max_size=40,
)


def render(text: str, cuts: list[int] | None = None, width: int = 60) -> str:
    markdown, out, start = Markdown(lambda: width), "", 0
    for stop in [*sorted(cuts or []), len(text)]:
        out += markdown.feed(text[start:stop])
        start = stop
    return out + markdown.flush()


def screen(text: str, width: int = 60) -> list[str]:
    terminal = pyte.Screen(width, 40)
    pyte.Stream(terminal).feed(text.replace("\n", "\r\n"))
    return [line.rstrip() for line in terminal.display]


def visible(text: str) -> str:
    return SGR.sub("", text)


def picture(text: str) -> list[tuple[str, str]]:
    """Every character with the style it is shown in."""
    out, style = [], ""
    for part in re.split("(\x1b\\[[0-9;]*m)", text):
        if not SGR.fullmatch(part):
            out += [(char, style) for char in part]
        else:
            style = "" if part == "\x1b[0m" else part
    return out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a **bold** b", "a \x1b[1mbold\x1b[0m b"),
        ("an *italic* word", "an \x1b[3mitalic\x1b[0m word"),
        ("`x = 1`", "\x1b[36mx = 1\x1b[0m"),
        ("``a ` b``", "\x1b[36ma ` b\x1b[0m"),
        ("**a `b` c**", "\x1b[1ma \x1b[1;36mb\x1b[0m\x1b[1m c\x1b[0m"),
        ("## Title\n", "\x1b[1mTitle\x1b[0m\n"),
        ("#hashtag", "#hashtag"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("2*3*4 and 2**10**2", "2*3*4 and 2**10**2"),
        ("这是**重点**内容", "这是\x1b[1m重点\x1b[0m内容"),
        ("* item\n* other", "* item\n* other"),
        ("**open to the end", "**open to the end"),
        ("`open\n**next**", "`open\n\x1b[1mnext\x1b[0m"),
        (r"\*no\* C:\dir", r"*no* C:\dir"),
        ("|x| is the absolute value", "\r\x1b[2Ktable, 1 rows"),
    ],
)
def test_marks_become_styles(text: str, shown: str) -> None:
    assert render(text).replace("\x1b[2mtable", "table").replace("rows\x1b[0m", "rows").startswith(shown)


def test_a_line_with_a_bar_that_is_no_table_is_shown_as_it_is() -> None:
    assert screen(render("|x| is the absolute value\nnext"))[:2] == ["|x| is the absolute value", "next"]


def test_a_whole_answer_on_a_screen() -> None:
    lines = screen(render(ANSWER))
    assert lines[0] == "Sorting"
    assert lines[2].startswith("A list is sorted with sorted, which makes a new list; 2 * 3")
    assert "def f(a, *b):  # **not bold**" in lines
    assert lines[10:14] == [
        "name      cost  note",
        "─────  ───────  ────",
        "quick  n log n  fast",
        "泡沫        n²  slow",
    ]
    assert "2. snake_case_name and a *star*" in lines


def test_a_table_wider_than_the_screen_is_written_cell_by_cell() -> None:
    lines = screen(render(ANSWER, width=18), width=18)
    assert lines[lines.index("name: quick") :][:3] == ["name: quick", "cost: n log n", "note: fast"]


@settings(deadline=None, max_examples=200)
@given(parts, st.lists(st.integers(0, 90), max_size=8))
def test_the_cuts_of_the_stream_do_not_matter(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    assert picture(render(text, [min(cut, len(text)) for cut in cuts])) == picture(render(text))
    assert picture(render(text, list(range(len(text))))) == picture(render(text))


@settings(deadline=None, max_examples=200)
@given(parts)
def test_only_marks_disappear(pieces: list[str]) -> None:
    text = "".join(pieces)
    shown = visible(render(text))
    assert re.sub(r"[*`\\# ]", "", shown) == re.sub(r"[*`\\# ]", "", text)
    assert shown.count("\n") == text.count("\n")


@settings(deadline=None, max_examples=200)
@given(parts)
def test_styles_end_with_the_stream_and_nothing_but_styles_is_sent(pieces: list[str]) -> None:
    out = render("".join(pieces))
    assert "\x1b" not in visible(out)
    codes = SGR.findall(out)
    assert not codes or codes[-1] == "\x1b[0m"


def test_every_cut_of_a_whole_answer_gives_the_same_picture() -> None:
    whole = picture(render(ANSWER))
    for cut in range(len(ANSWER)):
        assert picture(render(ANSWER, [cut])) == whole


def test_plain_text_is_shown_word_by_word() -> None:
    markdown = Markdown(lambda: 80)
    assert [markdown.feed(word) for word in ("Hello", " wor", "ld, ", "1 < 2")] == ["", "Hello", " world,", " 1 <"]
    assert markdown.flush() == " 2"


def test_an_emphasis_that_never_closes_is_given_up() -> None:
    markdown = Markdown(lambda: 80)
    shown = "".join(markdown.feed(char) for char in "**" + "x" * (LONGEST_HELD + 20))
    assert shown.startswith("**xxx")


def test_code_streams_as_it_comes_and_keeps_its_marks() -> None:
    markdown = Markdown(lambda: 80)
    markdown.feed("```c\n")
    assert markdown.feed("int *p") == "int *p"
    assert markdown.feed(" = `a`;\n") == " = `a`;\n"
    assert visible(markdown.feed("```\n*after*\n")) == "```\nafter\n"

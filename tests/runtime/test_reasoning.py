"""Thoughts and answer told apart, in any cuts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.runtime.reasoning import TAGS, Channeled, Splitter, Tagged, splitter_for


def parted(splitter: Splitter, pieces: list[str]) -> tuple[str, str]:
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.finish()
    return (
        "".join(text for kind, text in parts if kind == "reasoning"),
        "".join(text for kind, text in parts if kind == "answer"),
    )


@pytest.mark.parametrize(("start", "end"), TAGS)
def test_a_block_at_the_start_is_thought(start: str, end: str) -> None:
    text = f"\n{start}\nLet me see.{end}\n\nThe answer."
    assert parted(Tagged(TAGS), list(text)) == ("Let me see.", "The answer.")
    assert parted(Tagged(TAGS), [text]) == ("Let me see.", "The answer.")


def test_a_block_that_the_template_opened_needs_no_tag() -> None:
    assert parted(Tagged(TAGS, "<think>"), ["Hm.\n</thi", "nk>\n\nYes"]) == ("Hm.\n", "Yes")


def test_tags_in_the_middle_of_an_answer_are_text() -> None:
    text = "HTML has no <think> tag. </think>"
    assert parted(Tagged(TAGS), list(text)) == ("", text)


def test_an_empty_block_is_no_thought() -> None:
    assert parted(Tagged(TAGS), ["<think>\n\n</think>\n\nHi"]) == ("", "Hi")


def test_an_unfinished_block_stays_thought() -> None:
    splitter = Tagged(TAGS)
    assert parted(splitter, ["<think>a", "b </th"]) == ("ab </th", "")
    assert splitter.thinking


def test_what_looks_like_a_tag_for_a_while_is_not_lost() -> None:
    assert parted(Tagged(TAGS), ["<thin", "gs>"]) == ("", "<things>")
    assert parted(Tagged(TAGS), ["<thin"]) == ("", "<thin")
    assert parted(Tagged(TAGS), ["["]) == ("", "[")


def test_closing_thoughts_early_goes_on_with_the_answer() -> None:
    splitter = Tagged(TAGS)
    splitter.feed("<think>and so on")
    assert splitter.close() == "\n</think>\n\n"
    assert splitter.feed("\nDone") == [("answer", "Done")]


@settings(deadline=None)
@given(st.sampled_from(["<think>", "[THINK]", ""]), st.text("ab<>/think \n", max_size=20), st.lists(st.integers(1, 6)))
def test_the_cuts_do_not_matter(start: str, body: str, sizes: list[int]) -> None:
    text = f"{start}{body}</think>rest"
    whole = parted(Tagged(TAGS), [text])
    pieces, place = [], 0
    for size in [*sizes, len(text)]:
        pieces.append(text[place : place + size])
        place += size
    assert parted(Tagged(TAGS), pieces) == whole


HARMONY = (
    "<|channel|>analysis<|message|>User greets.<|end|><|start|>assistant<|channel|>final<|message|>Hello! a<b<|return|>"
)


def test_channels_are_told_apart_in_any_cut() -> None:
    for size in range(1, len(HARMONY)):
        pieces = [HARMONY[i : i + size] for i in range(0, len(HARMONY), size)]
        assert parted(Channeled(), pieces) == ("User greets.", "Hello! a<b")


def test_an_answer_without_channels_is_an_answer() -> None:
    assert parted(Channeled(), ["Just text"]) == ("", "Just text")


def test_the_template_decides_how_thoughts_are_marked() -> None:
    assert isinstance(splitter_for("... <|channel|> ... <|message|>", ""), Channeled)
    assert splitter_for("x", "<|im_start|>assistant\n<think>\n").thinking
    assert not splitter_for("x", "<|im_start|>assistant\n<think>\n\n</think>\n\n").thinking

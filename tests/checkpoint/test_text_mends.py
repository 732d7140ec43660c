"""What the runtime does to text around the engine's tokenizer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from engine_tokenizer import EngineTokenizer

from llamacli.checkpoint.tekken import byte_alphabet
from llamacli.checkpoint.vocabulary import Vocabulary
from llamacli.runtime.long_words import LONGEST_WORD, bounded
from llamacli.runtime.text_mends import TextMends


@pytest.mark.parametrize("text", ["", "word", " ", "a b " * 900, "a" * 5000, " " * 3000, "x" * 1001, "中，文" * 1000])
def test_bounded_parts_are_the_text_and_none_is_too_long(text: str) -> None:
    parts = list(bounded(text))
    assert "".join(parts) == text
    assert all(len(word) <= LONGEST_WORD for part in parts for word in part.split())


def test_a_long_word_is_cut_after_a_sign() -> None:
    text = "a" * 900 + "-" + "b" * 900
    assert list(bounded(text)) == ["a" * 900 + "-", "b" * 900]


@pytest.mark.parametrize("pre", ["gpt-4o", "granite-embed-multi-97m", "deepseek-v3", "jais-2"])
def test_words_and_gaps_without_end_do_not_end_the_process(pre: str, tmp_path: Path) -> None:
    tokens = ("<bos>", *byte_alphabet().values())
    vocabulary = Vocabulary("gpt2", pre, tokens, (3, *[1] * 256), merges=("a b",), special={"bos": 0}, add_bos=False)
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for character in ("a", " ", "=", "\n", "中"):
            assert len(engine.encode(character * 60_000)) == 60_000 * len(character.encode())


def test_a_space_comes_first_only_where_it_is_missing_and_nothing_stands_before() -> None:
    mends = TextMends(space_prefix="first")
    assert list(mends.stretches("Hi", first=True)) == [" Hi"]
    assert list(mends.stretches(" Hi", first=True)) == [" Hi"]
    assert list(mends.stretches("Hi", first=False)) == ["Hi"]
    assert list(mends.stretches("", first=True)) == []


def test_the_engine_s_own_space_is_not_doubled() -> None:
    mends = TextMends(space_prefix="missing", engine_prefixes=True)
    assert list(mends.stretches(" Hi", first=True)) == ["Hi"]
    assert list(mends.stretches("Hi", first=False)) == ["Hi"]


def test_pieces_that_stand_for_themselves_are_parts_of_their_own() -> None:
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    mends = TextMends(literal=re.compile(f"({space * 3}|{space * 2})"))
    text = f"a {space * 2} b{space * 5}{space}"
    parts = ["a ", space * 2, " b", space * 3, space * 3]
    assert list(mends.stretches(text, first=True)) == parts
    assert list(mends.stretches("a  b", first=True)) == ["a  b"]


def test_text_is_brought_to_the_tokenizer_s_unicode_form() -> None:
    assert list(TextMends(normalizer="NFC").stretches("e\u0301", first=True)) == ["é"]

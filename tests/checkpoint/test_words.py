"""Cuts that our runtime makes itself, against Hugging Face's `tokenizers`, and the merging under them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from engine_tokenizer import EngineTokenizer, write_vocabulary
from random_text import random_text
from test_pretokenizers import declared, trained
from tokenizers import Tokenizer

from llamacli.checkpoint.pretokenizers import TABLE
from llamacli.checkpoint.tekken import byte_alphabet, visible
from llamacli.checkpoint.tokenizer_json import read_tokenizer_json
from llamacli.checkpoint.tokenizer_parts import Hints
from llamacli.checkpoint.vocabulary import Mends, Vocabulary
from llamacli.formats.expressions import CUTS
from llamacli.formats.gguf_reader import read_gguf
from llamacli.runtime.byte_pairs import BytePairs
from llamacli.runtime.long_words import LONGEST_WORD
from llamacli.runtime.words import Words, translated, words_by, words_of

CORNERS = [
    "ÜBER ÉX VIỆT",
    "5213² 1234\u0663 12345x 123_ 12\u24b6",
    "a\x1cb \x85 \u3000x",
    "\r\n\r\nx \r\n",
    "Ankara'DA don'ſ ʕʖ",
    "",
]


@pytest.mark.parametrize("name", [name for name in CUTS if name != "falcon"])  # whose digits are sought after the bytes
def test_text_is_cut_where_the_tokenizer_cuts_it(name: str) -> None:
    document = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": declared(CUTS[name])}
    cut = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **document})).pre_tokenizer
    generator = random.Random(name)
    words = Words(CUTS[name])
    for text in [*CORNERS, *(random_text(generator) for _ in range(150))]:
        assert list(words(text)) == [text[start:end] for _, (start, end) in cut.pre_tokenize_str(text)]


def test_an_unknown_cut_is_none() -> None:
    assert words_of("of a newer version") is None and words_of(None) is None
    assert words_by(["(a+)+$"]) is None and words_by(()) is None and words_by([1]) is None


@pytest.mark.parametrize("steps", [steps for steps in TABLE if steps != CUTS["falcon"]])
def test_every_known_cut_can_be_made_from_its_steps(steps: tuple[str, ...]) -> None:
    document = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": declared(steps)}
    cut = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **document})).pre_tokenizer
    generator, words = random.Random(str(steps)), words_by(steps)
    assert words is not None
    for text in [*CORNERS, *(random_text(generator) for _ in range(40))]:
        assert list(words(text)) == [text[start:end] for _, (start, end) in cut.pre_tokenize_str(text)]


def test_categories_become_what_stands_for_them() -> None:
    assert translated(r"[^\p{Lt}x]\p{Nd2}") == "[^\x81x]\\p{Nd2}"
    assert translated(r"a\b") == f"a(?![{translated(chr(92) + 'w')[1:-1]}])"


def vocabulary(cut: str, folder: Path, **changes: object) -> BytePairs:
    document = trained(CUTS[cut])
    draft = read_tokenizer_json(document, 4000, Hints(has_bos=True))
    (name,) = TABLE[CUTS[cut]]
    made = Vocabulary(
        "gpt2",
        name.pre,
        tuple(t or "" for t in draft.tokens),
        tuple(draft.types),
        merges=draft.merges,
        mends=Mends(cut=cut),
    )
    pairs = BytePairs.from_gguf(read_gguf(write_vocabulary(replace(made, **changes), folder / "v.gguf")))  # type: ignore[arg-type]
    assert pairs is not None
    return pairs


def test_the_engine_gets_whole_texts_that_it_cuts_alike(tmp_path: Path) -> None:
    pairs = vocabulary("tekken", tmp_path)
    given: list[str] = []

    def encode(text: str) -> list[int]:
        given.append(text)
        return [len(text)]

    assert pairs.ids("Grüße don't 'x' 5'", encode) == [9, 5, 4]
    assert given == ["Grüße don", "'t 'x", "' 5'"]
    assert pairs.ids("ÜBER", encode) != [4] and len(given) == 3


def test_tokens_that_stand_for_themselves_are_found_before_text_is_cut(tmp_path: Path) -> None:
    theirs = Tokenizer.from_str(json.dumps(trained(CUTS["laguna"])))
    place = theirs.token_to_id("e")
    types = [4 if number == place else 1 for number in range(theirs.get_vocab_size())]
    pairs = vocabulary("laguna", tmp_path, types=tuple(types))
    theirs.add_tokens(["e"])
    text = "the\r\ncamelCase reSe\u0301t"
    assert pairs.ids(text, lambda _: []) == theirs.encode(text, add_special_tokens=False).ids


def test_capitals_after_capitals_with_accents_are_merged(tmp_path: Path) -> None:
    first, second = visible("Ü".encode()[:1]), visible("Ü".encode()[1:])
    tokens = ("<bos>", *byte_alphabet().values(), f"{first}{second}", f"{first}{second}B")
    made = Vocabulary(
        "gpt2", "granite-embed-multi-97m", tokens, (3, *[1] * 258), merges=(f"{first} {second}", f"{first}{second} B"),
        special={"bos": 0}, add_bos=False, mends=Mends(cut="gpt-4o"),
    )  # fmt: skip
    with EngineTokenizer(made, tmp_path) as engine:
        assert [tokens[place] for place in engine.encode_mended("ÜB")] == [f"{first}{second}B"]
        assert len(engine.encode("ÜB")) == 2  # why it is done


@pytest.mark.parametrize("cut", ["tiny_aya", "superbpe", "gpt-4o"])
def test_a_word_without_end_is_taken_in_parts(cut: str, tmp_path: Path) -> None:
    pairs = vocabulary(cut, tmp_path)
    texts = read_gguf(tmp_path / "v.gguf").get("tokenizer.ggml.tokens")
    bytes_of = {text: byte for byte, text in byte_alphabet().items()}
    for character in ("7", "中", " ", "é"):
        text = character * (LONGEST_WORD * 20) + "中7ÉX"
        ids = pairs.ids(text, lambda _: [])
        assert bytes(bytes_of[letter] for token in ids for letter in texts[token]).decode() == text

"""Added tokens that the engine finds by other rules, against Hugging Face's `tokenizers`."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from engine_tokenizer import EngineTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from llamacli.checkpoint.added_tokens import overlap
from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import Vocabulary, read_vocabulary

DATA = Path(__file__).parent.parent / "data" / "tokenizers"
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
TEXTS = [
    "abcdex abcd <a><b><c> xab ab", "x <left> y <right>  z <both> w", "<left><right> <both>", "a b  c\n\nd <tool>{} </tool>",
    "Cafe\u0301 x Caf\u00e9 x e\u0301\u0323 \u1eb9\u0301", "<right>", "   ", "a ban <left>  ",
    "x<tool> y <tool>z lead er", "<tool> <tool>lead er",
]  # fmt: skip
KINDS: dict[str, list[dict[str, Any]]] = {
    "overlapping": [{"content": text} for text in ("ab", "abc", "bcde", "cd", "<a><b>", "<b><c>")],
    "swallowing white space": [
        {"content": "<left>", "lstrip": True},
        {"content": "<right>", "rstrip": True},
        {"content": "<both>", "lstrip": True, "rstrip": True},
    ],
    "normalized": [{"content": "Caf\u00e9 x", "normalized": True}, {"content": "e\u0301\u0323"}],
    "plain": [{"content": "<tool>"}, {"content": "</tool>"}, {"content": "a b"}],
    "special": [{"content": "<left>", "lstrip": True, "special": True}, {"content": "<tool>", "special": True}],
    "normalized, plain": [{"content": "<tool>", "normalized": True}, {"content": "lead er", "normalized": True}],
    "single words": [
        {"content": "ab", "single_word": True},
        {"content": "<tool>", "single_word": True, "special": True},
        {"content": "<left>", "single_word": True, "lstrip": True},
    ],
}


def folder_with(family: str, added: list[dict[str, Any]], room: Path) -> tuple[Vocabulary, Tokenizer]:
    """The vocabulary of a family with further tokens, and the library's tokenizer of the same file."""
    document = json.loads((DATA / family / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = document["model"]["vocab"]
    known = [*vocab.values(), *(token["id"] for token in document["added_tokens"])]
    fresh = itertools.count(max(known) + 1)  # the library numbers them so, whatever the file says
    document["added_tokens"] += [
        {**FLAGS, **token, "id": vocab[token["content"]] if token["content"] in vocab else next(fresh)}
        for token in added
    ]
    (room / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    config = json.loads((DATA / family / "config.json").read_text(encoding="utf-8"))
    rows = max(known) + 1 + len(added)
    return read_vocabulary(Folder(room), config, rows), Tokenizer.from_file(str(room / "tokenizer.json"))


FAMILIES = ("qwen2", "llama3.1", "mistral-v0.3", "phi3", "bert")
CASES = [(family, kind) for family in FAMILIES for kind in KINDS if kind != "normalized" or family == "qwen2"]
"""Only Qwen 2's tokenizer changes what it normalizes: in the others that kind is written as it is."""


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_added_tokens_are_found_as_the_tokenizer_finds_them(family: str, kind: str, tmp_path: Path) -> None:
    vocabulary, theirs = folder_with(family, KINDS[kind], tmp_path)
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for text in TEXTS:
            assert engine.encode_mended(text) == theirs.encode(text, add_special_tokens=False).ids, text


PARTS = [
    "a",
    "ab",
    "abc",
    "b",
    "<",
    "<t>",
    "t>",
    "_",
    "9",
    "é",
    "²",
    "中",
    "\u0301",
    "\u24b6",
    "-",
    ".",
    " ",
    "  ",
    "\n",
    "\u3000",
]
ADDED = st.lists(
    st.fixed_dictionaries({
        "content": st.lists(st.sampled_from(["a", "ab", "b", "<t>", "<", "t>", "-", "c"]), min_size=1, max_size=3).map("".join),
        **dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), st.booleans()),
    }),
    min_size=1, max_size=4, unique_by=lambda token: token["content"],
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=20, deadline=None)
@given(added=ADDED, texts=st.lists(st.lists(st.sampled_from(PARTS), max_size=12).map("".join), min_size=6, max_size=6))
def test_any_flags_mean_what_they_mean_to_the_tokenizer(
    family: str, added: list[dict[str, Any]], texts: list[str]
) -> None:
    if family == "bert":  # a piece of WordPiece that is added too is no piece of words any more
        added = [token for token in added if len(token["content"]) > 1]
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        vocabulary, theirs = folder_with(family, added, room)
        with EngineTokenizer(vocabulary, room) as engine:
            for text in texts:
                assert engine.encode_mended(text) == theirs.encode(text, add_special_tokens=False).ids, text


def test_tokens_without_flags_are_left_to_the_engine(tmp_path: Path) -> None:
    vocabulary, _ = folder_with("qwen2", KINDS["plain"], tmp_path)
    assert not vocabulary.mends.found


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["ab", "bc"], True),
        (["ab", "abc"], False),
        (["xabx", "ab"], False),
        (["  ", "    "], False),
        (["aba"], False),
        ([], False),
    ],
)
def test_overlap_is_an_end_in_the_middle_of_another(texts: list[str], expected: bool) -> None:
    assert overlap(texts) is expected

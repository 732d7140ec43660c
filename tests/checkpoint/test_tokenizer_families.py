"""Every kind of tokenizer, read and given to the real engine, gives the ids of Hugging Face's `tokenizers`."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from engine_tokenizer import EngineTokenizer
from random_text import random_text
from tokenizers import Tokenizer

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import Vocabulary, read_vocabulary
from llamacli.runtime.messages import Span

DATA = Path(__file__).parent.parent / "data" / "tokenizers"
FAMILIES = sorted(path.name for path in DATA.iterdir() if path.is_dir())

ENGINE_ALONE_DIFFERS = {
    "bert": 1,  # keeps one character of a decomposed Korean syllable
    "cohere2": 1, "exaone4": 1, "qwen2": 1, "qwen3_5": 1, "stablelm": 1,  # no NFC
    "gemma2": 1, "gemma3_text": 1,  # a literal U+2581, which no text holds
    "mistral-v0.3": 52,  # the space in front of a prompt that is no chat
}  # fmt: skip
"""Texts of 66 that programs which know nothing of our mends read differently."""


def config_of(family: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((DATA / family / "config.json").read_text(encoding="utf-8"))
    return value


def vocabulary_of(family: str) -> Vocabulary:
    config = config_of(family)
    rows = config.get("vocab_size") or config["text_config"]["vocab_size"]
    return read_vocabulary(Folder(DATA / family), config, rows)


def expected(family: str) -> tuple[list[str], dict[str, Any]]:
    value = json.loads((DATA / family / "expected.json").read_text(encoding="utf-8"))
    texts = value.get("texts") or json.loads((DATA / "texts.json").read_text(encoding="utf-8"))
    return texts, value


@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_reads_texts_and_chats_as_the_tokenizer_does(family: str, tmp_path: Path) -> None:
    texts, value = expected(family)
    with EngineTokenizer(vocabulary_of(family), tmp_path, name=family) as engine:
        alone = sum(engine.encode(text) != ids for text, ids in zip(texts, value["ids"], strict=True))
        mended = sum(engine.encode_mended(text) != ids for text, ids in zip(texts, value["ids"], strict=True))
        wrapped = sum(
            engine.encode_mended(text, add_special=True) != ids
            for text, ids in zip(texts, value["ids_special"], strict=True)
        )
        chats = [chat["prompt"] for chat in value["chats"] if engine.encode(chat["prompt"]) != chat["ids"]]
        mended_chats = [c["prompt"] for c in value["chats"] if engine.encode_mended(c["prompt"]) != c["ids"]]
    assert (alone, mended, wrapped) == (ENGINE_ALONE_DIFFERS.get(family, 0), 0, 0)
    assert chats == mended_chats == []


@pytest.mark.parametrize("family", FAMILIES)
def test_random_texts_give_the_same_ids(family: str, tmp_path: Path) -> None:
    theirs = Tokenizer.from_file(str(DATA / family / "tokenizer.json"))
    generator = random.Random(family)
    with EngineTokenizer(vocabulary_of(family), tmp_path, name=family) as engine:
        for _ in range(200):
            text = random_text(generator)
            if family == "bert":  # which marks are accents depends on the age of the Unicode tables
                text = "".join(c for c in text if unicodedata.ucd_3_2_0.category(c) != "Cn" and c != "\u1885")
            assert engine.encode_mended(text) == theirs.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("family", FAMILIES)
def test_every_end_of_turn_is_one_to_the_engine(family: str, tmp_path: Path) -> None:
    vocabulary = vocabulary_of(family)
    with EngineTokenizer(vocabulary, tmp_path, name=family) as engine:
        assert set(vocabulary.end_of_turn) <= set(engine.ends())


@pytest.mark.parametrize("family", FAMILIES)
def test_text_of_a_user_never_becomes_a_control_token(family: str, tmp_path: Path) -> None:
    vocabulary = vocabulary_of(family)
    control = {place for place, kind in enumerate(vocabulary.types) if kind == 3}
    with EngineTokenizer(vocabulary, tmp_path, name=family) as engine:
        for place in sorted(control):
            text = str(vocabulary.tokens[place])
            prompt = (Span(text, control=True), Span(f"a{text}b", control=False))
            assert [token for token in engine.mended.tokens(prompt, add_special=False) if token in control] == [place]


def test_a_sentencepiece_model_alone_reads_like_its_json(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((DATA / "llama2" / name).read_bytes())
    vocabulary = read_vocabulary(Folder(folder), config_of("llama2"), 569)
    texts, value = expected("llama2")
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for text, ids in zip(texts, value["ids_special"], strict=True):
            assert engine.encode(text, add_special=True) == ids

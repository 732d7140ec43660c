"""Text as SentencePiece and Hugging Face's `tokenizers` normalize it, against the libraries themselves."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest
from engine_tokenizer import EngineTokenizer
from random_text import WORDS, random_text
from sentencepiece import SentencePieceNormalizer, SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer

from llamacli.checkpoint.sentencepiece import parse
from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import read_vocabulary
from llamacli.runtime.charsmap import Charsmap
from llamacli.runtime.unigram import clusters

LETTERS = "àéîõüçñøåæœğışłđžčřťůľėūķ абвгдеж ابتثج अआइकखग 가나다 一二三四五 ①②ﬁﬂ"
MARKED = [
    "e\u0323\u0302",
    "Ａ\u0301",
    "e\u0301",
    "x\u0301\u0300\u0302",
    "\u0301a",
    "हिन्दी",
    "ก\u0e33",
    "\u06001",
    "\r\n",
    "👍🏽",
]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.model with SentencePiece's usual normalizer."""
    folder = tmp_path_factory.mktemp(request.param)
    generator = random.Random(1)
    corpus = [" ".join(generator.choices(WORDS, k=15) + generator.choices(LETTERS.split(), k=3)) for _ in range(600)]
    SentencePieceTrainer.Train(
        sentence_iterator=iter(corpus), model_prefix=str(folder / "tokenizer"), model_type=request.param,
        vocab_size=1000, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2, num_threads=1,
        byte_fallback=request.param == "bpe",
    )  # fmt: skip
    return folder / "tokenizer.model"


def texts() -> list[str]:
    generator = random.Random(2)
    return [random_text(generator) + generator.choice(MARKED) + random_text(generator, 2) for _ in range(150)]


def test_the_compiled_normalizer_is_read_as_sentencepiece_reads_it(model: Path) -> None:
    ours = Charsmap(parse(model.read_bytes()).charsmap)
    theirs = SentencePieceNormalizer(
        model_file=str(model), add_dummy_prefix=False, remove_extra_whitespaces=False, escape_whitespaces=False
    )
    for text in texts():
        assert ours.normalized(text) == theirs.Normalize(text)


def test_a_damaged_table_replaces_nothing() -> None:
    generator = random.Random(3)
    for size in (0, 4, 64):
        data = size.to_bytes(4, "little") + generator.randbytes(size) + b"a\0"
        assert isinstance(Charsmap(data).normalized("aé中"), str)


def test_texts_are_normalized_and_spaces_joined_as_the_model_does(model: Path, tmp_path: Path) -> None:
    theirs = SentencePieceProcessor()
    theirs.LoadFromFile(str(model))
    vocabulary = read_vocabulary(Folder(model.parent), {}, theirs.GetPieceSize())
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for text in texts():
            assert engine.encode_mended(text) == theirs.Encode(text)


def test_a_letter_is_looked_up_with_its_marks_as_the_tokenizers_library_does(model: Path, tmp_path: Path) -> None:
    pieces = parse(model.read_bytes())
    if pieces.byte_fallback:
        pytest.skip("BPE, which the library has no such normalizer for")
    normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(pieces.charsmap).decode()}
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    steps = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]}
    vocabulary = [list(pair) for pair in zip(pieces.texts, pieces.scores, strict=True)]
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False}
    document = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": steps,
        "model": unigram,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    theirs = Tokenizer.from_str(json.dumps(document))
    made = read_vocabulary(Folder(tmp_path), {}, len(pieces.texts))
    with EngineTokenizer(made, tmp_path) as engine:
        for text in texts():
            assert engine.encode_mended(text) == theirs.encode(text, add_special_tokens=False).ids


def test_clusters_are_the_text_in_parts() -> None:
    assert list(clusters("ae\u0301\u0302 \n\u0301x\u200d")) == ["a", "e\u0301\u0302", " ", "\n", "\u0301", "x\u200d"]
    assert list(clusters("")) == []

"""WordPiece in the runtime: words of scripts whose marks the engine strips, against Hugging Face's `tokenizers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_tokenizer import EngineTokenizer
from tokenizers import Tokenizer

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import read_vocabulary

WORDS = ("हिन्दी", "ভাষা", "தமிழ்", "café", "ΟΔΥΣΣΕΥΣ", "İstanbul", "straße", "x" * 101, "don't", "中文字", "a\u2581b")


def bert_folder(folder: Path, *, lowercase: bool) -> Path:
    """A BERT tokenizer that knows every character of the words, as a beginning and as a continuation."""
    letters = sorted({*"".join(WORDS), *"".join(WORDS).lower(), "\u0307", "\u0301", "e", "i", "I"} - {"\u2581"})
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        "caf",
        "##xx",
    ]
    around = {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}
    normalizer = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": lowercase,
    }  # fmt: skip
    model = {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {text: place for place, text in enumerate(tokens)},
    }  # fmt: skip
    document = {
        "version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around, "decoder": None, "model": model,
    }  # fmt: skip
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.mark.parametrize("lowercase", [True, False])
def test_words_are_taken_apart_as_bert_does(lowercase: bool, tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bert", lowercase=lowercase)
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [*WORDS, " ".join(WORDS), "a\u00adb\u200bc\ufffd\tहि\n", "x" * 100, "!?…«»", "e\u0301 é"]
    with EngineTokenizer(read_vocabulary(Folder(folder), {}, 400), tmp_path) as engine:
        for text in texts:
            assert engine.encode_mended(text) == theirs.encode(text, add_special_tokens=False).ids, text
            assert engine.encode_mended(text, add_special=True) == theirs.encode(text).ids, text


def test_the_engine_alone_strips_vowel_signs(tmp_path: Path) -> None:
    """If this fails, the engine has been mended and `word_pieces.py` is not needed any more."""
    folder = bert_folder(tmp_path / "bert", lowercase=True)
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with EngineTokenizer(read_vocabulary(Folder(folder), {}, 400), tmp_path) as engine:
        assert engine.encode("हिन्दी") != theirs.encode("हिन्दी", add_special_tokens=False).ids

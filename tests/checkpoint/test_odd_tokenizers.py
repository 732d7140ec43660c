"""Every unusual step of a tokenizer.json is done as Hugging Face's `tokenizers` does it, or refused by name."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from engine_tokenizer import EngineTokenizer
from random_text import WORDS, random_text
from sentencepiece_file import charsmap_of_sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import Vocabulary, read_vocabulary
from llamacli.errors import Unsupported

Document = dict[str, Any]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CORNERS = ["", "a", " a", "a ", "  a  b ", "\n\nx", "x\ty", "\u00e9\u00c9 \ufb01 \u2460", "e\u0301", "HELLO don't", "a\u2581b",
           "<0x41>", "\u4e2d\u6587", "\u00a0x", "x" * 20, "x\r\n y", "a <tool> b<tool>."]  # fmt: skip


@lru_cache(maxsize=4)
def trained(kind: str) -> str:
    """A small tokenizer of a kind, as JSON."""
    generator = random.Random(kind)
    corpus = [" ".join(generator.choices(WORDS, k=12)) for _ in range(200)]
    trainer: Any
    if kind == "pairs":
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        trainer = trainers.BpeTrainer(vocab_size=800, show_progress=False, special_tokens=["<unk>", *BYTES])
    elif kind == "words":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(vocab_size=600, show_progress=False, special_tokens=special)
    elif kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=400, show_progress=False, special_tokens=["</s>", "<unk>"], unk_token="<unk>"
        )
    made.train_from_iterator(corpus, trainer)
    document = json.loads(made.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] not in BYTES]
    return json.dumps(document)


def changed(kind: str, **changes: Any) -> Document:
    """A tokenizer with other parts; what is no part of it belongs to its model."""
    document: Document = json.loads(trained(kind))
    for name, value in changes.items():
        (document if name in document else document["model"])[name] = value
    return document


def read(document: Document, folder: Path) -> Vocabulary:
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    vocab = document["model"]["vocab"]
    ids = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    return read_vocabulary(Folder(folder), {}, max([*ids, *(token["id"] for token in document["added_tokens"])]) + 1)


def chain(key: str, *parts: Any) -> Document:
    return {"type": "Sequence", key: [part if isinstance(part, dict) else {"type": part} for part in parts]}


def norm(*parts: Any) -> Document:
    return chain("normalizers", *parts)


def cut(*parts: Any) -> Document:
    return chain("pretokenizers", *parts)


def space(scheme: str, *, split: bool = True) -> Document:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


def replaced(old: str, new: str, *, kind: str = "String") -> Document:
    return {"type": "Replace", "pattern": {kind: old}, "content": new}


BERT = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
PREPEND, VISIBLE = {"type": "Prepend", "prepend": "\u2581"}, replaced(" ", "\u2581")
RUNS = replaced(" {2,}", " ", kind="Regex")
STRIP = {"type": "Strip", "strip_left": False, "strip_right": True}
CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": charsmap_of_sentencepiece()}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BARE = {**BYTE_LEVEL, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}

EQUAL: dict[str, tuple[str, Document]] = {
    "bytes, two forms": ("bytes", {"normalizer": norm("NFKC", "NFD")}),
    "bytes, a space in front": ("bytes", {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}}),
    "bytes, digits": ("bytes", {"pre_tokenizer": cut(DIGITS, BYTE_LEVEL)}),
    "pairs, spaces both ways": ("pairs", {"normalizer": norm(PREPEND, VISIBLE), "pre_tokenizer": space("never")}),
    "pairs, spaces first": ("pairs", {"pre_tokenizer": space("first")}),
    "pairs, NFKC": ("pairs", {"normalizer": norm("NFKC", PREPEND, VISIBLE), "pre_tokenizer": None}),
    "pairs, no fallback": ("pairs", {"byte_fallback": False}),
    "pairs, no fallback, every one": ("pairs", {"byte_fallback": False, "fuse_unk": False}),
    "pairs, merges lost": ("pairs", {"merges": json.loads(trained("pairs"))["model"]["merges"][::2]}),
    "words, cased": ("words", {"normalizer": {**BERT, "lowercase": False}}),
    "words, accents kept": ("words", {"normalizer": {**BERT, "strip_accents": False}}),
    "words, not cleaned": ("words", {"normalizer": {**BERT, "clean_text": False}}),
    "words, Chinese together": ("words", {"normalizer": {**BERT, "handle_chinese_chars": False}}),
    "words, in steps": ("words", {"normalizer": norm("NFD", "StripAccents", "Lowercase")}),
    "words, as they are": ("words", {"normalizer": None}),
    "words, short": ("words", {"max_input_chars_per_word": 5}),
    "unigram, plain": ("unigram", {}),
    "unigram, no space": ("unigram", {"pre_tokenizer": space("never")}),
    "unigram, first": ("unigram", {"normalizer": {"type": "NFKC"}, "pre_tokenizer": space("first")}),
    "unigram, whole": ("unigram", {"pre_tokenizer": space("always", split=False)}),
    "unigram, words": ("unigram", {"pre_tokenizer": cut("WhitespaceSplit", space("always"))}),
    "unigram, nothing": ("unigram", {"pre_tokenizer": None}),
    "unigram, XLM-R": ("unigram", {"normalizer": norm(CHARSMAP, RUNS)}),
    "unigram, T5": ("unigram", {"normalizer": norm(CHARSMAP, STRIP, replaced(" {2,}", "\u2581", kind="Regex"))}),
    "unigram, ALBERT": ("unigram", {"normalizer": norm(
        replaced("``", '"'), "NFKD", "StripAccents", "Lowercase", CHARSMAP), "pre_tokenizer": cut(
        "WhitespaceSplit", space("always"))}),
    "unigram, Nmt": ("unigram", {"normalizer": norm("Nmt", "NFKC", RUNS)}),
    "unigram, bytes": ("unigram", {"byte_fallback": True, "vocab": [
        *json.loads(trained("unigram"))["model"]["vocab"], *([text, 0.0] for text in BYTES)]}),
}  # fmt: skip

REFUSED: dict[str, tuple[str, Document]] = {
    "Lowercase": ("bytes", {"normalizer": {"type": "Lowercase"}}),
    "normalizer for this kind": ("bytes", {"normalizer": {"type": "ByteLevel"}}),
    "not at all": ("bytes", {"pre_tokenizer": BARE}),
    "without its expression": ("bytes", {"pre_tokenizer": cut(BARE, DIGITS, BYTE_LEVEL)}),
    "add_prefix_space": ("bytes", {"pre_tokenizer": cut(DIGITS, {**BYTE_LEVEL, "add_prefix_space": True})}),
    "once spaces are visible": ("pairs", {"normalizer": norm(PREPEND, VISIBLE, "NFKC"), "pre_tokenizer": None}),
    "neither byte fallback": ("pairs", {"byte_fallback": False, "unk_token": None}),
    "without a pre-tokenizer": ("words", {"pre_tokenizer": None}),
    "white space is stripped": ("unigram", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True},
                                            "pre_tokenizer": space("first")}),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_ids_are_the_tokenizer_s(name: str, tmp_path: Path) -> None:
    kind, changes = EQUAL[name]
    document = changed(kind, **changes)
    theirs, generator = Tokenizer.from_str(json.dumps(document)), random.Random(name)
    with EngineTokenizer(read(document, tmp_path), tmp_path) as engine:
        for text in [*CORNERS, *(random_text(generator) for _ in range(60))]:
            assert engine.encode_mended(text) == theirs.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("word", REFUSED)
def test_what_nobody_does_is_refused_by_name(word: str, tmp_path: Path) -> None:
    kind, changes = REFUSED[word]
    with pytest.raises(Unsupported, match=word):
        read(changed(kind, **changes), tmp_path)


def test_dropout_is_told(tmp_path: Path) -> None:
    assert any("dropout 0.5" in line for line in read(changed("bytes", dropout=0.5), tmp_path).warnings)

"""Tokenizers from before tokenizer.json: vocab.json with merges.txt, or vocab.txt, brought into its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacli.checkpoint.checkpoint import read_json
from llamacli.checkpoint.source import Source
from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.expressions import QWEN2

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES_ONLY = {**_BYTES, "use_regex": False}
_QWEN2_SPLIT = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}

CUTS: dict[str, tuple[Mapping[str, Any] | None, Mapping[str, Any]]] = {
    "GPT2Tokenizer": (None, _BYTES),
    "CodeGenTokenizer": (None, _BYTES),
    "RobertaTokenizer": (None, _BYTES),
    "Qwen2Tokenizer": ({"type": "NFC"}, {"type": "Sequence", "pretokenizers": [_QWEN2_SPLIT, _BYTES_ONLY]}),
}
"""`tokenizer_class` to the normalizer and pre-tokenizer that transformers gives it."""


def read_bpe_files(source: Source, tokenizer_config: Mapping[str, Any]) -> dict[str, Any]:
    """vocab.json and merges.txt as a tokenizer.json document. Raises CorruptFile and Unsupported."""
    name = str(tokenizer_config.get("tokenizer_class", "")).removesuffix("Fast")
    if name not in CUTS:
        raise Unsupported(
            f"{source.label} has vocab.json and merges.txt, but its tokenizer_class {name or 'none'!r} is unknown",
            "save it with transformers once, which writes tokenizer.json",
        )
    normalizer, pre_tokenizer = CUTS[name]
    lines = _lines(source, "merges.txt")
    merges = [line for line in lines if line and not line.startswith("#version")]
    model = {"type": "BPE", "vocab": read_json(source, "vocab.json"), "merges": merges}
    return {"model": model, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}


def read_wordpiece_file(source: Source, tokenizer_config: Mapping[str, Any]) -> dict[str, Any]:
    """vocab.txt as a tokenizer.json document. Raises CorruptFile."""
    words = _lines(source, "vocab.txt")
    vocab = {word: place for place, word in enumerate(words)}
    if len(vocab) != len(words):
        raise CorruptFile(f"{source.label}/vocab.txt names a token twice")
    normalizer = {
        "type": "BertNormalizer",
        "lowercase": tokenizer_config.get("do_lower_case", True),
        "strip_accents": tokenizer_config.get("strip_accents"),
    }
    around = {"type": "BertProcessing", "cls": ["[CLS]", vocab.get("[CLS]")], "sep": ["[SEP]", vocab.get("[SEP]")]}
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]"}
    cut = {"type": "BertPreTokenizer"}
    return {"model": model, "normalizer": normalizer, "pre_tokenizer": cut, "post_processor": around}


def _lines(source: Source, name: str) -> list[str]:
    try:
        lines = source.read(name).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{source.label}/{name} is not valid UTF-8") from error
    lines = [line.removesuffix("\r") for line in lines]
    return lines[:-1] if lines and not lines[-1] else lines

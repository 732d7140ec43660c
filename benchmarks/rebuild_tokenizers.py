"""Make the tokenizer files of real models again from llama.cpp's vocabularies, to convert them and compare.

    python benchmarks/rebuild_tokenizers.py llama.cpp/models FOLDER
    python benchmarks/check_tokenizers.py FOLDER/*

A `ggml-vocab-NAME.gguf` has a model's tokens, types, merges or scores, and the name of its pre-tokenizer; from these come
`tokenizer.json`, or `tokenizer.model` and `tokenizer.json` for scored pieces. Where `.inp` and `.out` stand beside it, whose
ids are Hugging Face's, `cases.json` holds them.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "checkpoint"))

from sentencepiece_file import model_file
from test_pretokenizers import declared

from llamacli.checkpoint.draft import SPACE
from llamacli.checkpoint.pretokenizers import TABLE
from llamacli.checkpoint.vocabulary import TokenType
from llamacli.formats.gguf_reader import GGUF, read_gguf

NORMALIZED = ("qwen2", "command-r")
"""Pre-tokenizers whose models bring text to NFC first. Qwen 3.5's do too, but the cases of `qwen35` are without."""
BEFORE_NAMES = {"aquila": "gpt-2", "gpt-neox": "olmo"}
"""Vocabularies from before llama.cpp named pre-tokenizers."""
SEPARATOR = "\n__ggml_vocab_test__\n"


def added(tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    """`added_tokens`: whatever is neither an ordinary piece nor a byte nor unused."""
    plain = (TokenType.NORMAL, TokenType.BYTE, TokenType.UNUSED)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": place, "content": text, "special": kind != TokenType.USER_DEFINED, **flags}
        for place, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind not in plain
    ]


def byte_level(gguf: GGUF, name: str, tokens: list[str], types: list[int]) -> dict[str, Any]:
    """A byte-level BPE tokenizer.json, cut as the table says for the pre-tokenizer's name."""
    pre = str(gguf.get("tokenizer.ggml.pre", BEFORE_NAMES.get(name, "")))
    steps, ignores = next((steps, n.ignore_merges) for steps, names in TABLE.items() for n in names if n.pre == pre)
    vocab = {text: place for place, (text, kind) in enumerate(zip(tokens, types, strict=True)) if kind == 1}
    merges = [merge for merge in gguf.get("tokenizer.ggml.merges", ()) if merge.replace(" ", "", 1) in vocab]
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": ignores}
    form = {"type": "NFC"} if pre in NORMALIZED else None
    return {"added_tokens": added(tokens, types), "normalizer": form, "pre_tokenizer": declared(steps), "model": model}


def wordpiece(tokens: list[str], types: list[int]) -> dict[str, Any]:
    """A WordPiece tokenizer.json: the engine marks where words begin, the original where they go on."""
    vocab = {}
    for place, (text, kind) in enumerate(zip(tokens, types, strict=True)):
        special = kind != TokenType.NORMAL or (text.startswith("[") and text.endswith("]"))
        vocab[text if special else text[1:] if text.startswith(SPACE) else f"##{text}"] = place
    marks = [vocab[mark] for mark in ("[CLS]", "[SEP]")]
    return {
        "added_tokens": [], "normalizer": {"type": "BertNormalizer", "lowercase": True, "clean_text": True,
        "handle_chinese_chars": True, "strip_accents": None}, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", marks[0]], "sep": ["[SEP]", marks[1]]},
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100},
    }  # fmt: skip


def unigram(gguf: GGUF, tokens: list[str], scores: list[float], types: list[int]) -> dict[str, Any]:
    """A unigram tokenizer.json as XLM-RoBERTa's, with SentencePiece's compiled normalizer."""
    pieces = [[t, s] for t, s, kind in zip(tokens, scores, types, strict=True) if kind != TokenType.UNUSED]
    charsmap = base64.b64encode(bytes(gguf.get("tokenizer.ggml.precompiled_charsmap", ()))).decode()
    space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    squeeze = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    return {
        "added_tokens": added(tokens, types),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": charsmap}, squeeze]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "model": {"type": "Unigram", "unk_id": unknown_of(gguf, types), "vocab": pieces, "byte_fallback": False},
    }  # fmt: skip


def unknown_of(gguf: GGUF, types: list[int]) -> int:
    """The id of the unknown token."""
    given = gguf.get("tokenizer.ggml.unknown_token_id")
    return given if isinstance(given, int) else types.index(TokenType.UNKNOWN)


def visible_spaces(
    tokens: list[str], types: list[int], merges: list[list[str]], unknown: int, *, prepends: bool
) -> dict[str, Any]:
    """A BPE tokenizer.json over visible spaces, with byte fallback."""
    steps: list[dict[str, Any]] = [{"type": "Prepend", "prepend": SPACE}] if prepends else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    vocab = {text: place for place, text in enumerate(tokens)}
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": tokens[unknown], "fuse_unk": True,
             "byte_fallback": True}  # fmt: skip
    return {"added_tokens": added(tokens, types), "normalizer": {"type": "Sequence", "normalizers": steps},
            "pre_tokenizer": None, "model": model}  # fmt: skip


def ranked_merges(tokens: list[str], scores: list[float], types: list[int]) -> list[list[str]]:
    """The merges that scores imply: every way to make a piece of two, the best-scored piece first."""
    pieces = {t: place for place, (t, kind) in enumerate(zip(tokens, types, strict=True)) if kind == TokenType.NORMAL}
    found = []
    for text in pieces:
        ways = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        own = [way for way in ways if way[0] in pieces and way[1] in pieces]
        own.sort(key=lambda way: (pieces[way[0]], pieces[way[1]]))
        found += [(scores[pieces[text]], way) for way in own]
    found.sort(key=lambda entry: -entry[0])
    return [list(way) for _, way in found]


def sentencepiece_file(gguf: GGUF, tokens: list[str], scores: list[float], types: list[int]) -> bytes:
    """A tokenizer.model: pieces, trainer (BPE with byte fallback, or unigram), normalizer."""
    unknown = unknown_of(gguf, types)
    kinds = [TokenType.UNUSED if kind == TokenType.UNKNOWN else kind for kind in types]
    kinds[unknown] = TokenType.UNKNOWN
    charsmap = bytes(gguf.get("tokenizer.ggml.precompiled_charsmap", ()))
    return model_file(
        list(zip(tokens, scores, map(int, kinds), strict=True)),
        unigram=bool(charsmap),
        byte_fallback=not charsmap,
        unknown=unknown,
        charsmap=charsmap,
        prefix=gguf.get("tokenizer.ggml.add_space_prefix", True) is True,
        single_spaces=gguf.get("tokenizer.ggml.remove_extra_whitespaces", False) is True,
    )


def rebuild(path: Path, folder: Path) -> str:
    """Write the files of one vocabulary; what kind it is."""
    gguf, name = read_gguf(path), path.stem.removeprefix("ggml-vocab-")
    kind = str(gguf.get("tokenizer.ggml.model"))
    tokens, types = list(gguf.get("tokenizer.ggml.tokens", ())), list(gguf.get("tokenizer.ggml.token_type", ()))
    scores = list(gguf.get("tokenizer.ggml.scores", ()))
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any]
    if kind == "gpt2":
        document = byte_level(gguf, name, tokens, types)
    elif kind == "bert":
        document = wordpiece(tokens, types)
    elif kind == "t5":
        (folder / "unigram").mkdir(exist_ok=True)
        (folder / "unigram" / "tokenizer.model").write_bytes(sentencepiece_file(gguf, tokens, scores, types))
        document = unigram(gguf, tokens, scores, types)
    elif kind == "gemma4":
        merges = [list(split_merge(merge)) for merge in gguf.get("tokenizer.ggml.merges", ())]
        document = visible_spaces(tokens, types, merges, unknown_of(gguf, types), prepends=False)
    elif kind == "llama":
        (folder / "tokenizer.model").write_bytes(sentencepiece_file(gguf, tokens, scores, types))
        merges = ranked_merges(tokens, scores, types)
        document = visible_spaces(tokens, types, merges, unknown_of(gguf, types), prepends=True)
    else:
        raise SystemExit(f"{path}: unknown kind {kind}")
    write(folder, gguf, document, path)
    return kind


def split_merge(merge: str) -> tuple[str, str]:
    """Two pieces; the first may itself begin with a space."""
    first, _, second = merge[1:].partition(" ")
    return merge[0] + first, second


def write(folder: Path, gguf: GGUF, document: dict[str, Any], path: Path) -> None:
    """tokenizer.json, what stands beside it, and the cases."""
    tokens = list(gguf.get("tokenizer.ggml.tokens", ()))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", **document}), encoding="utf-8")
    architecture = gguf.architecture
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(tokens), "model_type": architecture}))
    roles = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token"}
    ids = {ours: gguf.get(f"tokenizer.ggml.{role}_token_id") for role, ours in roles.items()}
    named = {role: tokens[place] for role, place in ids.items() if isinstance(place, int)}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    inputs, outputs = path.with_suffix(".gguf.inp"), path.with_suffix(".gguf.out")
    if inputs.exists():
        texts = inputs.read_text(encoding="utf-8").split(SEPARATOR)
        lines = outputs.read_text(encoding="utf-8").splitlines()
        cases = [{"text": t, "ids": [int(n) for n in line.split()]} for t, line in zip(texts, lines, strict=False)]
        (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")


def main() -> None:
    """Make all vocabularies again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("models", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    for path in sorted(given.models.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        print(f"{name:20} {rebuild(path, given.folder / name)}")


if __name__ == "__main__":
    main()

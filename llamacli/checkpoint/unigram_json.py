"""tokenizer.json's unigram: pieces with scores, as T5 and XLM-RoBERTa have them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from llamacli.checkpoint.draft import SPACE, Draft, byte_types, tokens_by_id
from llamacli.checkpoint.pretokenizers import components, shorten
from llamacli.checkpoint.tokenizer_parts import AGAIN, FILE, NO_BYTES, Hints, compiled_normalizer, metaspace_prefix
from llamacli.checkpoint.vocabulary import Mends, TokenType
from llamacli.errors import CorruptFile, Unsupported


def read_unigram(document: Mapping[str, Any], model: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    """Unigram as a Draft. Raises CorruptFile and Unsupported."""
    tokens, scores = _scored_pieces(model.get("vocab"), rows)
    charsmap: bytes | None = None
    steps: list[str] = []
    for part in components(document.get("normalizer"), "normalizers"):
        if part.get("type") == "Precompiled":
            charsmap = compiled_normalizer(part.get("precompiled_charsmap"))
        steps += _unigram_steps(part)
    form = steps[0] if len(steps) == 1 and steps[0] in ("NFC", "NFKC") else ""
    single = _RUNS in steps
    prefix = ""
    for part in components(document.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") == "Metaspace" and part.get("replacement", SPACE) == SPACE:
            prefix = metaspace_prefix(part)
            when = {"missing": "always", "first": "first"}.get(prefix, "never")
            steps.append(json.dumps(["visible", when, "split" if part.get("split", True) is True else "whole"]))
        elif part.get("type") == "WhitespaceSplit":
            single = True
            steps.append("words")
        else:
            raise Unsupported(f"{FILE}: the engine has no {part.get('type')!r} pre-tokenizer for unigram models")
    if prefix == "first" and "left" in steps:
        raise Unsupported(f"{FILE}: the runtime has no space in front of the first word where white space is stripped")
    unknown = model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(tokens):
        raise Unsupported(f"{FILE}: a unigram tokenizer without an unknown token")
    spells = model.get("byte_fallback") is True
    types = byte_types(tokens) if spells else [int(TokenType.NORMAL)] * len(tokens)
    types[unknown] = int(TokenType.UNKNOWN)
    exact = tuple(array("f", scores)) == tuple(scores)
    usual = exact and not spells and [step for step in steps if step != _RUNS] in _ENGINE_STEPS
    mends = Mends(
        normalizer=form if usual else "",
        cut="clusters"
        if charsmap or not usual
        else "",  # the library's own way with marks, which is not SentencePiece's
        steps=() if usual else tuple(steps) or ("nothing",),
        scores=() if exact else tuple(scores),
    )
    return Draft(
        file=FILE,
        model="t5",
        pre="default",
        tokens=tokens,
        types=types,
        scores=scores,
        unknown=unknown,
        add_space_prefix=bool(prefix),
        remove_extra_whitespaces=single,
        precompiled_charsmap=charsmap,
        warnings=(NO_BYTES,) if spells else () if usual else ("other programs prepare text otherwise",),
        mends=mends,
    )


_RUNS = json.dumps(["runs", " "])
_ENGINE_STEPS = (["charsmap", "words", json.dumps(["visible", "always", "split"])],)
"""What the engine does as the tokenizer does, and our runtime where marks are."""


def _unigram_steps(part: Mapping[str, Any]) -> Iterator[str]:
    """A normalizer's steps. Raises Unsupported for one that the runtime lacks."""
    kind, pattern, content = part.get("type"), part.get("pattern"), part.get("content")
    literal = pattern.get("String") if isinstance(pattern, dict) else None
    if kind == "Precompiled":
        yield "charsmap"
    elif kind == "Replace" and pattern == {"Regex": " {2,}"} and isinstance(content, str):
        yield json.dumps(["runs", content])
    elif kind == "Replace" and isinstance(literal, str) and literal and isinstance(content, str):
        yield json.dumps(["replace", literal, content])
    elif kind == "Prepend" and isinstance(part.get("prepend"), str):
        yield json.dumps(["prepend", part["prepend"]])
    elif kind == "Strip":
        yield from (side for side in ("left", "right") if part.get(f"strip_{side}", True) is True)
    elif kind in ("NFC", "NFD", "NFKC", "NFKD"):
        yield str(kind)
    elif kind in _PLAIN_STEPS:
        yield _PLAIN_STEPS[str(kind)]
    else:
        raise Unsupported(f"{FILE}: the engine has no {kind!r} normalizer for unigram models")


_PLAIN_STEPS = {"Lowercase": "lower", "StripAccents": "marks", "Nmt": "nmt"}


def _scored_pieces(vocab: Any, rows: int) -> tuple[list[str | None], list[float]]:
    if not isinstance(vocab, list) or not vocab:
        raise CorruptFile(f"{FILE} has no vocabulary", AGAIN)
    scores: list[float] = []
    texts: dict[str, int] = {}
    for place, entry in enumerate(vocab):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise CorruptFile(f"{FILE}: piece {place} is not a text and a score", AGAIN)
        if type(entry[1]) not in (int, float) or not abs(entry[1]) < 1e30:
            raise CorruptFile(f"{FILE}: the score of piece {place} is not a number", AGAIN)
        if entry[0] in texts:
            raise CorruptFile(f"{FILE}: piece {shorten(repr(entry[0]), 40)} stands there twice", AGAIN)
        texts[entry[0]] = place
        scores.append(float(entry[1]))
    return tokens_by_id(texts, FILE, rows), scores

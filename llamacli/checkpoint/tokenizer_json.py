"""tokenizer.json, Hugging Face's own format: BPE over bytes or with byte fallback, WordPiece, unigram."""

from __future__ import annotations

import base64
import binascii
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamacli.checkpoint.draft import (
    BYTE_TOKENS,
    SPACE,
    AddedToken,
    Draft,
    Wrapping,
    byte_types,
    missing_bytes,
    tokens_by_id,
)
from llamacli.checkpoint.pretokenizers import components, engine_name, read_cut, shorten
from llamacli.checkpoint.tekken import byte_alphabet
from llamacli.checkpoint.vocabulary import Mends, TokenType
from llamacli.errors import CorruptFile, Unsupported

FILE = "tokenizer.json"
_AGAIN = "the tokenizer is damaged; fetch it again"


@dataclass(frozen=True)
class Hints:
    """What other files of the checkpoint contribute to the choice of the engine's names."""

    model_type: str = ""
    has_bos: bool = False
    cleans_spaces: bool | None = None


def read_tokenizer_json(document: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    """tokenizer.json as a Draft. Raises CorruptFile and Unsupported."""
    model = document.get("model")
    if not isinstance(model, dict):
        raise CorruptFile(f"{FILE} has no model", _AGAIN)
    readers = {"BPE": _bpe, "WordPiece": _wordpiece, "Unigram": _unigram}
    kind = model.get("type") or _kind(model)
    if kind not in readers:
        raise Unsupported(f"{FILE}: the engine knows no {kind!r} tokenizer")
    draft = readers[kind](document, model, rows, hints)
    wrapping = read_wrapping(document.get("post_processor"))
    if draft.model == "bert" and wrapping == Wrapping():  # the tokenizer's class adds them, and the engine in any case
        wrapping = Wrapping((BERT_ROLES["bos"],), (BERT_ROLES["eos"],))
    return replace(draft, added=added_tokens(document), wrapping=wrapping)


def _kind(model: Mapping[str, Any]) -> str | None:
    """The kind of a model that does not name it, as old files do not."""
    if "merges" in model:
        return "BPE"
    if "vocab" not in model:
        return None
    return "Unigram" if isinstance(model["vocab"], list) else "WordPiece"


def added_tokens(document: Mapping[str, Any]) -> tuple[AddedToken, ...]:
    """The document's `added_tokens`."""
    entries = document.get("added_tokens") or []
    if not isinstance(entries, list):
        raise CorruptFile(f"{FILE}: added_tokens is not a list", _AGAIN)
    tokens = []
    for entry in entries:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not isinstance(entry.get("content"), str):
            raise CorruptFile(f"{FILE}: an added token has no id or no content", _AGAIN)
        tokens.append(
            AddedToken(
                entry["id"],
                entry["content"],
                entry.get("special") is True,
                entry.get("lstrip") is True,
                entry.get("rstrip") is True,
                entry.get("normalized") is True,
                entry.get("single_word") is True,
            )
        )
    return tuple(tokens)


def read_wrapping(processor: Any) -> Wrapping:
    """What a post-processor puts around a text."""
    wrapping = Wrapping()
    for part in components(processor, "processors"):
        kind = part.get("type")
        if kind == "TemplateProcessing":
            wrapping = _template(part)
        elif kind in ("BertProcessing", "RobertaProcessing"):
            first, last = (_first_text(part.get(end)) for end in ("cls", "sep"))
            wrapping = Wrapping((first,), (last,), kind == "RobertaProcessing")
    return wrapping


def _template(part: Mapping[str, Any]) -> Wrapping:
    single = _pieces(part.get("single"))
    if "A" not in single:
        raise Unsupported(f"{FILE}: the post-processor leaves the text out")
    place = single.index("A")
    prefix, suffix = single[:place], single[place + 1 :]
    pair = _pieces(part.get("pair") or [])
    between = pair[pair.index("A") + 1 : pair.index("B")] if "A" in pair and "B" in pair else ()
    separates = None if not between else any(token in suffix for token in between) and len(between) > len(suffix)
    return Wrapping(_without_marks(prefix), _without_marks(suffix), separates)


def _pieces(template: Any) -> tuple[str, ...]:
    """A template as `A`, `B` and special tokens, the latter marked with a NUL so that no text is mistaken for a place."""
    pieces = []
    for piece in template if isinstance(template, list) else []:
        special = piece.get("SpecialToken") if isinstance(piece, dict) else None
        sequence = piece.get("Sequence") if isinstance(piece, dict) else None
        if isinstance(special, dict) and isinstance(special.get("id"), str):
            pieces.append("\0" + special["id"])
        elif isinstance(sequence, dict) and sequence.get("id") in ("A", "B"):
            pieces.append(sequence["id"])
        else:
            raise CorruptFile(f"{FILE}: the post-processor's template is damaged", _AGAIN)
    return tuple(pieces)


def _without_marks(pieces: Sequence[str]) -> tuple[str, ...]:
    return tuple(piece[1:] for piece in pieces if piece.startswith("\0"))


def _first_text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value[0]
    raise CorruptFile(f"{FILE}: the post-processor names no tokens", _AGAIN)


# --- BPE


def _bpe(document: Mapping[str, Any], model: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix):
            raise Unsupported(f"{FILE}: the engine knows no {affix} ({model[affix]!r})")
    tokens = tokens_by_id(model.get("vocab"), FILE, rows)
    merges = read_merges(model.get("merges"))
    style = _byte_level if _has_bytes(document) else _sentencepiece_style
    draft = style(document, model, tokens, merges, hints)
    if model.get("dropout"):
        dropout = (
            f"the tokenizer leaves out merges at random (dropout {model['dropout']}), as in training; here none is"
        )
        draft = replace(draft, warnings=(*draft.warnings, dropout))
    return draft


def read_merges(entries: Any) -> tuple[str, ...]:
    """Merges in either spelling, `"a b"` or `["a", "b"]`, as the engine takes them.

    A merge of a piece with a space in it cannot be written: the engine splits at the first. Over bytes, and where
    spaces become visible ones, no text contains such a piece, so the merge is left out without effect.
    """
    if not isinstance(entries, list):
        raise CorruptFile(f"{FILE} has no merges", _AGAIN)
    if all(type(entry) is str for entry in entries):
        if any(entry.count(" ") != 1 for entry in entries):
            raise CorruptFile(f"{FILE}: a merge is not two tokens", _AGAIN)
        merges = entries
    else:
        merges = []
        for entry in entries:
            if not (isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is type(entry[1]) is str):
                raise CorruptFile(f"{FILE}: a merge is not two tokens", _AGAIN)
            if " " not in entry[0] and " " not in entry[1]:
                merges.append(f"{entry[0]} {entry[1]}")
    if len(set(merges)) != len(merges):  # the last of equal merges counts there, the first in the engine
        merges = list(dict.fromkeys(reversed(merges)))[::-1]
    return tuple(merges)


def _has_bytes(document: Mapping[str, Any]) -> bool:
    parts = [
        *components(document.get("pre_tokenizer"), "pretokenizers"),
        *components(document.get("normalizer"), "normalizers"),
    ]
    return any(part.get("type") == "ByteLevel" for part in parts)


def _byte_level(
    document: Mapping[str, Any],
    model: Mapping[str, Any],
    tokens: list[str | None],
    merges: tuple[str, ...],
    hints: Hints,
) -> Draft:
    cut = read_cut(document.get("pre_tokenizer"))
    ignores = model.get("ignore_merges") is True
    name = engine_name(
        cut,
        ignore_merges=ignores,
        has_bos=hints.has_bos,
        cleans_spaces=hints.cleans_spaces,
        model_type=hints.model_type,
    )
    warnings = [f"other programs cut some text differently: {name.differs}"] if name.differs else []
    if model.get("unk_token") and (lacking := set(byte_alphabet().values()).difference(tokens)):
        warnings.append(f"the vocabulary lacks {len(lacking)} of the 256 bytes, which are left out instead of unknown")
    if name.ignore_merges != ignores and (stray := _unmerged(tokens, merges, added_tokens(document))):
        warnings.append(
            f"{len(stray)} tokens such as {shorten(repr(stray[0]), 40)} are no product of merges: the engine's "
            f"{name.pre!r} {'takes' if name.ignore_merges else 'never takes'} them for whole words, the tokenizer "
            f"{'does not' if name.ignore_merges else 'does'}"
        )
    mends = Mends(
        normalizer=_unicode_form(document.get("normalizer")),
        space_prefix="missing" if cut.prefixes_space else "",
        cut=name.cut,
    )
    types = [int(TokenType.NORMAL)] * len(tokens)
    return Draft(
        FILE, "gpt2", name.pre, tokens, types, merges=merges, mends=mends, warnings=tuple(warnings), cut=cut.steps
    )


def _unmerged(tokens: Sequence[str | None], merges: Sequence[str], added: Sequence[AddedToken]) -> list[str]:
    """Tokens of several characters that no merge makes."""
    made = {merge.replace(" ", "", 1) for merge in merges}
    apart = {token.text for token in added}
    return [text for text in tokens if text and len(text) > 1 and text not in made and text not in apart]


def _unicode_form(normalizer: Any) -> str:
    """The Unicode form that a byte-level tokenizer brings text to; empty for none. Raises Unsupported for anything else."""
    form = ""
    for part in components(normalizer, "normalizers"):
        kind = str(part.get("type"))
        if kind in ("NFC", "NFD", "NFKC", "NFKD"):
            form = _both(form, kind)
        else:
            raise Unsupported(f"{FILE}: the engine has no {kind!r} normalizer for this kind of tokenizer")
    return form


def _both(first: str, second: str) -> str:
    """The one form that two after one another come to."""
    return f"NF{'K' if 'K' in first + second else ''}{second[-1]}"


@dataclass(frozen=True)
class Spacing:
    """How a SentencePiece-style tokenizer turns spaces into visible ones and where it adds one in front."""

    prefix: str
    """`` (never), `always`, `missing` (unless one is there), `first` (at the very start, unless one is there)."""
    splits: bool = False
    """Whether words are cut at spaces, so that no token spans two."""
    form: str = ""


def read_spacing(document: Mapping[str, Any]) -> Spacing:
    """The spacing that normalizer and pre-tokenizer describe together. Raises Unsupported for other steps."""
    prefix, splits, visible, form = "", False, False, ""
    for part in components(document.get("normalizer"), "normalizers"):
        kind = part.get("type")
        if kind == "Prepend" and part.get("prepend") == SPACE:
            prefix = "always"
        elif kind == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == SPACE:
            visible = True
        elif kind in ("NFC", "NFKC") and not visible:
            form = _both(form, str(kind))
        elif kind in ("NFC", "NFKC"):
            raise Unsupported(f"{FILE}: the runtime has no {kind} once spaces are visible")
        else:
            raise Unsupported(f"{FILE}: the engine has no {kind!r} normalizer for this kind of tokenizer")
    for part in components(document.get("pre_tokenizer"), "pretokenizers"):
        kind = part.get("type")
        if kind == "Metaspace" and part.get("replacement", SPACE) == SPACE:
            visible = True
            splits = part.get("split", True) is True
            prefix = prefix or _metaspace_prefix(part)  # finds a space there already if the normalizer put one
        elif not (kind == "Split" and part.get("pattern") == {"String": " "} and visible):  # finds no space any more
            raise Unsupported(f"{FILE}: the engine has no {kind!r} pre-tokenizer for this kind of tokenizer")
    if not visible:
        raise Unsupported(
            f"{FILE} is a BPE tokenizer neither over bytes nor with visible spaces", "the engine knows only these two"
        )
    return Spacing(prefix, splits, form)


def _metaspace_prefix(part: Mapping[str, Any]) -> str:
    scheme = part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never")
    schemes = {"always": "missing", "first": "first", "never": ""}
    if scheme not in schemes:
        raise CorruptFile(f"{FILE}: unknown prepend_scheme {scheme!r}", _AGAIN)
    return schemes[scheme]


def _sentencepiece_style(
    document: Mapping[str, Any],
    model: Mapping[str, Any],
    tokens: list[str | None],
    merges: tuple[str, ...],
    hints: Hints,
) -> Draft:
    spacing = read_spacing(document)
    types = byte_types(tokens) if model.get("byte_fallback") is True else [int(TokenType.NORMAL)] * len(tokens)
    lacks_bytes = types.count(TokenType.BYTE) < len(BYTE_TOKENS)
    unknown = _unknown(model, tokens)
    if lacks_bytes and unknown is None:
        raise Unsupported(f"{FILE}: a tokenizer with neither byte fallback nor an unknown token")
    warnings = byte_warnings(tokens)
    if lacks_bytes and not warnings:
        warnings = [
            "the tokenizer does not use its byte tokens for characters that it does not know; other programs do"
        ]
    if spacing.splits and any(SPACE in merge.replace(" ", "", 1)[1:] for merge in merges):
        warnings.append("the tokenizer merges only within words, the engine also across spaces")
    apart = {*BYTE_TOKENS, *(token.text for token in added_tokens(document)), model.get("unk_token")}
    stray = [text for text in _unmerged(tokens, merges, added_tokens(document)) if text not in apart]
    if stray:
        warnings.append(
            f"{len(stray)} pieces such as {shorten(repr(stray[0]), 40)} are no product of merges: other programs make them "
            "all the same"
        )
    merging: dict[str, Any] = {"model": "llama", "pre": "default", "scores": merge_scores(tokens, merges, stray)}
    if hints.model_type.startswith("gemma4") and not spacing.prefix:
        merging = {"model": "gemma4", "pre": "gemma4", "merges": merges, "scores": [0.0] * len(tokens)}
    return Draft(
        file=FILE,
        tokens=tokens,
        types=types,
        unknown=unknown,
        # "first" is written as "never": chats come out right in every program, and ours adds the one space in front.
        add_space_prefix=None if spacing.prefix in ("always", "missing") else False,
        mends=Mends(
            normalizer=spacing.form,
            space_prefix=spacing.prefix if spacing.prefix != "always" else "",
            cut="pairs" if merging["model"] == "llama" and (lacks_bytes or stray) else "",
            unknown="" if model.get("fuse_unk") is True or not lacks_bytes else "each",
        ),
        warnings=tuple(warnings),
        **merging,
    )


def byte_warnings(tokens: Sequence[str | None]) -> list[str]:
    """What to say of a vocabulary without byte fallback: the engine, left alone, aborts on a character it lacks."""
    if missing := missing_bytes(tokens):
        return [
            f"the vocabulary lacks {missing} of the 256 byte tokens: characters it does not know are read as unknown "
            "here, and end llama.cpp's own programs"
        ]
    return []


NEVER = -2e30
"""The score of a piece that no merge makes; lower than any that SentencePiece gives (-1e9 for runs of spaces)."""


def merge_scores(tokens: Sequence[str | None], merges: Sequence[str], stray: Sequence[str] = ()) -> list[float]:
    """A score for each token so that the engine, which merges the best-scored token first, merges as the ranks say.

    Minus the rank of the first merge that makes the token; tokens that no merge makes come last of all, and `stray` ones,
    which the engine would make of other pieces, are marked by NEVER.
    """
    ranks: dict[str, float] = dict.fromkeys(stray, -NEVER)
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", "", 1), rank)
    last = len(merges)
    return [-float(ranks.get(text, last)) if text is not None else -float(last) for text in tokens]


def _unknown(model: Mapping[str, Any], tokens: Sequence[str | None]) -> int | None:
    text = model.get("unk_token")
    return tokens.index(text) if isinstance(text, str) and text in tokens else None


# --- WordPiece and unigram

NO_BYTES = "other programs read characters that the tokenizer takes for bytes as unknown"
"""What to say of a unigram vocabulary with byte fallback."""

BERT_ROLES = {"bos": "[CLS]", "eos": "[SEP]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
"""What transformers' class takes where no file names them, as beside the oldest vocab.txt."""


def _wordpiece(document: Mapping[str, Any], model: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    if model.get("continuing_subword_prefix", "##") != "##":
        raise Unsupported(f"{FILE}: the engine knows only '##' in front of word endings")
    steps = list(_word_steps(document.get("normalizer")))
    for part in components(document.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") != "BertPreTokenizer":
            raise Unsupported(f"{FILE}: the engine has no {part.get('type')!r} pre-tokenizer for WordPiece")
    if document.get("pre_tokenizer") is None:
        raise Unsupported(f"{FILE}: the engine knows no WordPiece without a pre-tokenizer")
    tokens = tokens_by_id(model.get("vocab"), FILE, rows)
    lowercase, accents = "lower" in steps, "accents" in steps
    usual = steps == ["clean", "chinese", *(["accents"] if accents else []), *(["lower"] if lowercase else [])]
    longest = model.get("max_input_chars_per_word", LONGEST_WORD)
    unknown = _unknown(model, tokens)
    roles = {role: text for role, text in BERT_ROLES.items() if text in tokens}
    return Draft(
        file=FILE,
        model="bert",
        pre="default",
        tokens=tokens,
        types=[int(TokenType.NORMAL)] * len(tokens),
        unknown=unknown,
        roles=roles if unknown is None else {**roles, "unk": model["unk_token"]},
        lowercase=lowercase,
        strip_accents=accents if accents != lowercase else None,
        # The engine keeps only the first character of a decomposed one: right for accents, wrong for Korean.
        mends=Mends(
            normalizer="NFD" if accents and usual else "",
            steps=() if usual else tuple(steps) or ("nothing",),
            longest_word=longest if longest != LONGEST_WORD else 0,
        ),
        warnings=() if usual else ("other programs prepare words as BERT does, this tokenizer does not",),
        phantom_spaces=True,
    )


LONGEST_WORD = 100
"""Characters of a word that BERT's tokenizer, and so the engine's, still takes apart."""


def _word_steps(normalizer: Any) -> Iterator[str]:
    """What becomes of a text before it is taken apart, step by step. Raises Unsupported for steps that the runtime lacks."""
    for part in components(normalizer, "normalizers"):
        kind = str(part.get("type"))
        if kind == "BertNormalizer":
            lower = part.get("lowercase", True) is True
            accents = part.get("strip_accents")
            yield from ("clean",) if part.get("clean_text", True) is True else ()
            yield from ("chinese",) if part.get("handle_chinese_chars", True) is True else ()
            yield from ("accents",) if (lower if accents is None else accents is True) else ()
            yield from ("lower",) if lower else ()
        elif kind == "Lowercase":
            yield "lower"
        elif kind == "StripAccents":
            yield "marks"
        elif kind in ("NFC", "NFD", "NFKC", "NFKD"):
            yield kind
        else:
            raise Unsupported(f"{FILE}: the engine has no {kind!r} normalizer for WordPiece")


def _unigram(document: Mapping[str, Any], model: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    tokens, scores = _scored_pieces(model.get("vocab"), rows)
    charsmap: bytes | None = None
    steps: list[str] = []
    for part in components(document.get("normalizer"), "normalizers"):
        if part.get("type") == "Precompiled":
            charsmap = _charsmap(part.get("precompiled_charsmap"))
        steps += _unigram_steps(part)
    form = steps[0] if len(steps) == 1 and steps[0] in ("NFC", "NFKC") else ""
    single = _RUNS in steps
    prefix = ""
    for part in components(document.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") == "Metaspace" and part.get("replacement", SPACE) == SPACE:
            prefix = _metaspace_prefix(part)
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
        raise CorruptFile(f"{FILE} has no vocabulary", _AGAIN)
    scores: list[float] = []
    texts: dict[str, int] = {}
    for place, entry in enumerate(vocab):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise CorruptFile(f"{FILE}: piece {place} is not a text and a score", _AGAIN)
        if type(entry[1]) not in (int, float) or not abs(entry[1]) < 1e30:
            raise CorruptFile(f"{FILE}: the score of piece {place} is not a number", _AGAIN)
        if entry[0] in texts:
            raise CorruptFile(f"{FILE}: piece {shorten(repr(entry[0]), 40)} stands there twice", _AGAIN)
        texts[entry[0]] = place
        scores.append(float(entry[1]))
    return tokens_by_id(texts, FILE, rows), scores


def _charsmap(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        return check_charsmap(base64.b64decode(value, validate=True), FILE)
    except (TypeError, ValueError, binascii.Error) as error:
        raise CorruptFile(f"{FILE}: the compiled normalizer is damaged", _AGAIN) from error


def check_charsmap(data: bytes, file: str) -> bytes | None:
    """SentencePiece's compiled normalizer: a length in 4 bytes, a table of that length, then texts. None if empty.

    Raises CorruptFile where the engine would read outside of it.
    """
    if not data:
        return None
    table = int.from_bytes(data[:4], "little")
    if len(data) < 5 or table % 4 or 4 + table >= len(data) or data[-1]:
        raise CorruptFile(f"{file}: the compiled normalizer is damaged", _AGAIN)
    return data

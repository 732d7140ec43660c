"""tokenizer.json's BPE: over bytes, or with visible spaces as SentencePiece has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamacli.checkpoint.draft import BYTE_TOKENS, SPACE, AddedToken, Draft, byte_types, tokens_by_id
from llamacli.checkpoint.pretokenizers import components, engine_name, read_cut, shorten
from llamacli.checkpoint.tekken import byte_alphabet
from llamacli.checkpoint.tokenizer_parts import (
    AGAIN,
    FILE,
    Hints,
    added_tokens,
    byte_warnings,
    metaspace_prefix,
    unknown_token,
)
from llamacli.checkpoint.vocabulary import Mends, TokenType
from llamacli.errors import CorruptFile, Unsupported


def read_bpe(document: Mapping[str, Any], model: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    """BPE as a Draft. Raises CorruptFile and Unsupported."""
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
        raise CorruptFile(f"{FILE} has no merges", AGAIN)
    if all(type(entry) is str for entry in entries):
        if any(entry.count(" ") != 1 for entry in entries):
            raise CorruptFile(f"{FILE}: a merge is not two tokens", AGAIN)
        merges = entries
    else:
        merges = []
        for entry in entries:
            if not (isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is type(entry[1]) is str):
                raise CorruptFile(f"{FILE}: a merge is not two tokens", AGAIN)
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
            prefix = prefix or metaspace_prefix(part)  # finds a space there already if the normalizer put one
        elif not (kind == "Split" and part.get("pattern") == {"String": " "} and visible):  # finds no space any more
            raise Unsupported(f"{FILE}: the engine has no {kind!r} pre-tokenizer for this kind of tokenizer")
    if not visible:
        raise Unsupported(
            f"{FILE} is a BPE tokenizer neither over bytes nor with visible spaces", "the engine knows only these two"
        )
    return Spacing(prefix, splits, form)


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
    unknown = unknown_token(model, tokens)
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

"""tokenizer.json's WordPiece: BERT's tokenizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llamacli.checkpoint.draft import Draft, tokens_by_id
from llamacli.checkpoint.pretokenizers import components
from llamacli.checkpoint.tokenizer_parts import FILE, Hints, unknown_token
from llamacli.checkpoint.vocabulary import Mends, TokenType
from llamacli.errors import Unsupported

BERT_ROLES = {"bos": "[CLS]", "eos": "[SEP]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
"""What transformers' class takes where no file names them, as beside the oldest vocab.txt."""


def read_wordpiece(document: Mapping[str, Any], model: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    """WordPiece as a Draft. Raises Unsupported."""
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
    unknown = unknown_token(model, tokens)
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

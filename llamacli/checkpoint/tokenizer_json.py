"""tokenizer.json, Hugging Face's own format: BPE over bytes or with byte fallback, WordPiece, unigram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llamacli.checkpoint.bpe_json import read_bpe
from llamacli.checkpoint.draft import Draft, Wrapping
from llamacli.checkpoint.post_processor import read_wrapping
from llamacli.checkpoint.tokenizer_parts import AGAIN, FILE, Hints, added_tokens
from llamacli.checkpoint.unigram_json import read_unigram
from llamacli.checkpoint.wordpiece_json import BERT_ROLES, read_wordpiece
from llamacli.errors import CorruptFile, Unsupported


def read_tokenizer_json(document: Mapping[str, Any], rows: int, hints: Hints) -> Draft:
    """tokenizer.json as a Draft. Raises CorruptFile and Unsupported."""
    model = document.get("model")
    if not isinstance(model, dict):
        raise CorruptFile(f"{FILE} has no model", AGAIN)
    readers = {"BPE": read_bpe, "WordPiece": read_wordpiece, "Unigram": read_unigram}
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

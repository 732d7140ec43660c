"""tokenizer.json's post-processor: what it puts around a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamacli.checkpoint.draft import Wrapping
from llamacli.checkpoint.pretokenizers import components
from llamacli.checkpoint.tokenizer_parts import AGAIN, FILE
from llamacli.errors import CorruptFile, Unsupported


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
            raise CorruptFile(f"{FILE}: the post-processor's template is damaged", AGAIN)
    return tuple(pieces)


def _without_marks(pieces: Sequence[str]) -> tuple[str, ...]:
    return tuple(piece[1:] for piece in pieces if piece.startswith("\0"))


def _first_text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value[0]
    raise CorruptFile(f"{FILE}: the post-processor names no tokens", AGAIN)

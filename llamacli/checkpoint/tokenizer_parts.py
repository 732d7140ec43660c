"""What the readers of tokenizer.json's kinds share."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamacli.checkpoint.draft import AddedToken, missing_bytes
from llamacli.errors import CorruptFile

FILE = "tokenizer.json"
AGAIN = "the tokenizer is damaged; fetch it again"


@dataclass(frozen=True)
class Hints:
    """What other files of the checkpoint contribute to the choice of the engine's names."""

    model_type: str = ""
    has_bos: bool = False
    cleans_spaces: bool | None = None


def added_tokens(document: Mapping[str, Any]) -> tuple[AddedToken, ...]:
    """The document's `added_tokens`."""
    entries = document.get("added_tokens") or []
    if not isinstance(entries, list):
        raise CorruptFile(f"{FILE}: added_tokens is not a list", AGAIN)
    tokens = []
    for entry in entries:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not isinstance(entry.get("content"), str):
            raise CorruptFile(f"{FILE}: an added token has no id or no content", AGAIN)
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


def unknown_token(model: Mapping[str, Any], tokens: Sequence[str | None]) -> int | None:
    """The id of the token that the model names for what it does not know."""
    text = model.get("unk_token")
    return tokens.index(text) if isinstance(text, str) and text in tokens else None


def byte_warnings(tokens: Sequence[str | None]) -> list[str]:
    """What to say of a vocabulary without byte fallback: the engine, left alone, aborts on a character it lacks."""
    if missing := missing_bytes(tokens):
        return [
            f"the vocabulary lacks {missing} of the 256 byte tokens: characters it does not know are read as unknown "
            "here, and end llama.cpp's own programs"
        ]
    return []


NO_BYTES = "other programs read characters that the tokenizer takes for bytes as unknown"
"""What to say of a unigram vocabulary with byte fallback."""


def metaspace_prefix(part: Mapping[str, Any]) -> str:
    """Where a Metaspace adds a space in front: `` (never), `missing` (unless one is there) or `first`."""
    scheme = part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never")
    schemes = {"always": "missing", "first": "first", "never": ""}
    if scheme not in schemes:
        raise CorruptFile(f"{FILE}: unknown prepend_scheme {scheme!r}", AGAIN)
    return schemes[scheme]


def check_charsmap(data: bytes, file: str) -> bytes | None:
    """SentencePiece's compiled normalizer: a length in 4 bytes, a table of that length, then texts. None if empty.

    Raises CorruptFile where the engine would read outside of it.
    """
    if not data:
        return None
    table = int.from_bytes(data[:4], "little")
    if len(data) < 5 or table % 4 or 4 + table >= len(data) or data[-1]:
        raise CorruptFile(f"{file}: the compiled normalizer is damaged", AGAIN)
    return data


def compiled_normalizer(value: Any) -> bytes | None:
    """A compiled normalizer as tokenizer.json holds it, in base64."""
    if value is None:
        return None
    try:
        return check_charsmap(base64.b64decode(value, validate=True), FILE)
    except (TypeError, ValueError, binascii.Error) as error:
        raise CorruptFile(f"{FILE}: the compiled normalizer is damaged", AGAIN) from error

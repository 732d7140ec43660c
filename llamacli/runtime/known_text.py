"""Vocabularies without byte tokens: what they do not know must not reach the engine, which would end the process.

SentencePiece spells an unknown character by its bytes. Small vocabularies have no tokens for bytes; transformers reads
such characters as the unknown token, and so do we.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamacli.formats.gguf_reader import GGUF

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


class KnownText:
    """Tells known from unknown text of one vocabulary; `unknown` is the token that stands for the latter."""

    def __init__(self, tokens: list[str], types: list[int], unknown: int) -> None:
        self.unknown = unknown
        named = [(text, kind) for text, kind in zip(tokens, types, strict=False) if text]
        single = {text for text, kind in named if len(text) == 1 and kind in (_NORMAL, _USER_DEFINED)}
        if _SPACE in single:
            single.add(" ")
        letters = "".join(map(re.escape, sorted(single)))
        self._patterns = {}
        for special, kinds in ((False, {_USER_DEFINED}), (True, {_USER_DEFINED, _CONTROL})):
            names = sorted((re.escape(text) for text, kind in named if kind in kinds), key=len, reverse=True)
            self._patterns[special] = re.compile(
                "(" + "|".join(["(?:" + "|".join([*names, f"[{letters}]"]) + ")+"]) + ")"
            )

    def stretches(self, text: str, *, special: bool) -> Iterator[tuple[bool, str]]:
        """The text in turn as known and unknown stretches. `special`: names of control tokens are known."""
        for index, part in enumerate(self._patterns[special].split(text)):
            if part:
                yield index % 2 == 1, part


def known_text(gguf: GGUF) -> KnownText | None:
    """For a SentencePiece vocabulary without byte tokens; None for all others."""
    if gguf.get("tokenizer.ggml.model") != "llama":
        return None
    tokens = gguf.get("tokenizer.ggml.tokens", ())
    if "<0x0A>" in tokens:
        return None
    texts = [token if isinstance(token, str) else "" for token in tokens]
    types = list(gguf.get("tokenizer.ggml.token_type", ())) or [_NORMAL] * len(texts)
    return KnownText(texts, types, int(gguf.get("tokenizer.ggml.unknown_token_id", 0)))

"""Added tokens that a tokenizer finds in text by rules that the engine does not know.

Where two of them overlap, the one that begins first counts (to the engine the longer one); some swallow the white space
beside them; some are looked for in the text as it is, others only once it is normalized.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from llamacli.formats.gguf_reader import GGUF


@dataclass(frozen=True)
class AddedTokens:
    """Texts and ids of the tokens that are found, and which of them swallow white space."""

    written: Mapping[str, int]
    normalized: Mapping[str, int]
    strip_left: frozenset[int] = frozenset()
    strip_right: frozenset[int] = frozenset()

    @classmethod
    def from_gguf(cls, gguf: GGUF, strip_left: frozenset[int], strip_right: frozenset[int]) -> AddedTokens | None:
        """Those that a file's metadata ask for; None for none."""

        def texts(name: str) -> dict[str, int]:
            ids = gguf.get(f"tokenizer.llamacli.{name}", ())
            tokens = gguf.get("tokenizer.ggml.tokens", ()) if ids else ()
            places = (place for place in ids if type(place) is int and 0 <= place < len(tokens))
            return {tokens[place]: place for place in places if isinstance(tokens[place], str)}

        written, normalized = texts("found"), texts("found_normalized")
        return cls(written, normalized, strip_left, strip_right) if written or normalized else None

    def cut(self, text: str, normalize: Callable[[str], str]) -> Iterator[str | int]:
        """The text, normalized, in stretches between the ids of the tokens found in it."""
        spelled = {normalize(token): place for token, place in self.normalized.items()}
        for part in self._cut(self.written, text):
            if isinstance(part, int):
                yield part
            else:
                yield from self._cut(spelled, normalize(part))

    def _cut(self, places: Mapping[str, int], text: str) -> Iterator[str | int]:
        done = 0
        for match in _any_of(places).finditer(text) if places else ():
            token, (start, end) = places[match[0]], match.span()
            if token in self.strip_left:
                start = max(len(text[:start].rstrip()), done)
            if token in self.strip_right:
                end = len(text) - len(text[end:].lstrip())
            if start > done:
                yield text[done:start]
            yield token
            done = end
        if done < len(text):
            yield text[done:]


def _any_of(places: Mapping[str, int]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(places, key=len, reverse=True))))

"""Added tokens that a tokenizer finds in text by rules that the engine does not know.

Where two of them overlap, the one that begins first counts (to the engine the longer one); some swallow the white space
beside them; some count only as single words; some are looked for in the text as it is, others only once it is normalized.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from llamacli.formats.gguf_reader import GGUF

_CONTROL = 3
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""What such a token swallows; Python's `str.strip` takes four characters more."""
NOTHING = "(?!)"
_JOINERS = "\u200c\u200d"
_LETTERS_IN_CIRCLES = re.compile("[\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189]")


class Bare(str):
    """A text in front of which no space is to be put."""

    __slots__ = ()


@dataclass(frozen=True)
class AddedTokens:
    """Texts and ids of the tokens that are found, and which of them swallow white space or count only as single words."""

    written: Mapping[str, int]
    normalized: Mapping[str, int]
    control: frozenset[int] = frozenset()
    """Which of them steer the model: they are found only in what a template wrote."""
    strip_left: frozenset[int] = frozenset()
    strip_right: frozenset[int] = frozenset()
    single: frozenset[int] = frozenset()
    behind_space: Mapping[str, int] = field(default_factory=dict)
    """Tokens that are found only with a space in front, or at the beginning of a text."""

    @classmethod
    def from_gguf(cls, gguf: GGUF, strip_left: frozenset[int], strip_right: frozenset[int]) -> AddedTokens | None:
        """Those that a file's metadata ask for; None for none."""
        written, normalized = _listed(gguf, "found"), _listed(gguf, "found_normalized")
        types = gguf.get("tokenizer.ggml.token_type", ())
        behind = _listed(gguf, "found_behind_space")
        places = (*written.values(), *normalized.values(), *behind.values())
        control = frozenset(place for place in places if place < len(types) and types[place] == _CONTROL)
        single = frozenset(_listed(gguf, "single_word").values())
        return cls(written, normalized, control, strip_left, strip_right, single, behind) if places else None

    def cut(self, text: str, normalize: Callable[[str], str]) -> Iterator[str | int]:
        """Ordinary text, normalized, in stretches between the ids of the tokens found in it.

        Where control tokens are looked for too, all were found in the prompt as a whole.
        """
        spelled = {normalize(token): place for token, place in self.normalized.items()}
        for part in (text,) if self.control else self._cut(self.written, text):
            if isinstance(part, int):
                yield part
            else:
                yield from self._cut(spelled, normalize(part)) if spelled else self._behind_space(normalize(part))

    def _behind_space(self, text: str) -> Iterator[str | int]:
        """Where a token is found, what stands around it has its space in front already, or none."""
        spelled = {f" {token}": place for token, place in self.behind_space.items()}
        parts = list(self._found(spelled, f" {text}")) if spelled and text else [text]
        yield from (
            [text]
            if len(parts) == 1 and isinstance(parts[0], str)
            else (Bare(part) if isinstance(part, str) else part for part in parts)
        )

    def in_prompt(self, spans: Iterable[tuple[bool, str]]) -> Iterator[str | int]:
        """A prompt in stretches between the ids of the tokens found in it; of `spans`, True are those that a template wrote."""
        text, places = "", []
        for by_template, part in spans:
            if by_template:
                places.append((len(text), len(text) + len(part)))
            text += part

        def allowed(start: int, end: int) -> bool:
            return any(first <= start and end <= last for first, last in places)

        return self._found(self.written, text, allowed)

    def _cut(self, places: Mapping[str, int], text: str) -> Iterator[str | int]:
        """The text between the tokens found, without the white space that these swallow."""
        former = -1
        parts = list(self._found(places, text))
        for turn, part in enumerate(parts):
            if isinstance(part, int):
                yield part
                former = part
                continue
            if former in self.strip_right:
                part = part.lstrip(WHITE_SPACE)
            after = parts[turn + 1] if turn + 1 < len(parts) else -1
            if after in self.strip_left:
                part = part.rstrip(WHITE_SPACE)
            if part:
                yield part

    def _found(
        self, places: Mapping[str, int], text: str, allowed: Callable[[int, int], bool] = lambda start, end: True
    ) -> Iterator[str | int]:
        """`allowed`: whether a control token may be found between two places."""
        everything, plain = self._patterns(places)
        done = place = 0
        while match := everything.search(text, place):
            if places[match[0]] in self.control and not allowed(*match.span()):
                start = match.start()
                match = plain.match(text, start)
                if not match:
                    place = start + 1
                    continue
            token, (start, end) = places[match[0]], match.span()
            place = end
            if token in self.single and (_in_word(text[start - 1 : start]) or _in_word(text[end : end + 1])):
                continue
            if start > done:
                yield text[done:start]
            yield token
            done = end
        if done < len(text):
            yield text[done:]

    def _patterns(self, places: Mapping[str, int]) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Expressions that find all of these tokens, and those among them that are no control tokens."""
        plain = [text for text, place in places.items() if place not in self.control]
        return any_of(places), any_of(plain)


def _listed(gguf: GGUF, name: str) -> dict[str, int]:
    ids = gguf.get(f"tokenizer.llamacli.{name}", ())
    tokens = gguf.get("tokenizer.ggml.tokens", ()) if ids else ()
    places = (place for place in ids if type(place) is int and 0 <= place < len(tokens))
    return {tokens[place]: place for place in places if isinstance(tokens[place], str)}


def single_words(gguf: GGUF) -> re.Pattern[str] | None:
    """An expression that finds, in text that was cut at added tokens, what the engine would wrongly find inside words."""
    single = {**_listed(gguf, "single_word"), **_listed(gguf, "found_behind_space")}
    types = gguf.get("tokenizer.ggml.token_type", ())
    plain = [text for text, place in _listed(gguf, "found").items() if types[place] != _CONTROL]
    return any_of({*single, *plain}) if single else None


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """An expression that finds each of `texts`, the longest that begins at a place."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or NOTHING)


def _in_word(character: str) -> bool:
    """Whether a character is one of a word's: a letter, mark, digit, low line, ... as that library's expressions have it."""
    if not character:
        return False
    kind = unicodedata.category(character)
    known = kind[0] in "LM" or kind in ("Nd", "Nl", "Pc") or character in _JOINERS
    return known or bool(_LETTERS_IN_CIRCLES.match(character))

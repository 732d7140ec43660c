"""The engine's vocabulary: text to token ids and back, control tokens kept where they belong."""

from __future__ import annotations

import ctypes
import re
from typing import Any, Final

from llamacli.errors import EngineError
from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.added_tokens import WHITE_SPACE
from llamacli.runtime.known_text import KnownText
from llamacli.runtime.long_words import LONGEST_WORD, bounded
from llamacli.runtime.messages import Prompt
from llamacli.runtime.text_mends import NO_MENDS, TextMends

# Attributes of a token, as `llama_token_attr` numbers them.
UNKNOWN, CONTROL, LSTRIP, RSTRIP = 1 << 0, 1 << 3, 1 << 7, 1 << 8

_CONTROL_TYPES = (2, 3)
"""How `tokenizer.ggml.token_type` calls the unknown token and control tokens."""

END: Final = None
"""Stands in the table of pieces for a token that ends the answer."""

HARMONY_MARKS: Final = ("<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|end|>")
_INSIDE_MARK = re.compile("(?<=<)(?=" + "|".join(re.escape(name[1:]) for name in HARMONY_MARKS) + ")")

TokenText = str | bytes | None
"""Text of a token: `str` where its bytes are whole characters, `bytes` where they are not, END for a final token."""


class Vocab:
    """Tokens of one loaded model. `library` is the module of C functions."""

    def __init__(self, library: Any, model: Any, known: KnownText | None = None, mends: TextMends = NO_MENDS) -> None:
        self._known = known
        self._mends = mends
        self._lib = library
        self._vocab = library.llama_model_get_vocab(model)
        self._buffer = ctypes.create_string_buffer(256)
        self._attributes: dict[int, int] = {}
        self.size: int = library.llama_vocab_n_tokens(self._vocab)
        self.texts: dict[int, TokenText] = {}
        self._end_tokens: list[int] | None = None
        self._forced = self._forced_marks()

    def _forced_marks(self) -> dict[int, str]:
        """Turn marks that the engine finds in any text, whoever wrote it, because it wants them shown.

        It does so with gpt-oss's, whatever the file says of them. Here they count as the control tokens they are.
        """
        if self._known is not None:  # a small vocabulary, whose engine must not see unknown characters
            return {}
        found = {name: self._encode(name, False, False) for name in HARMONY_MARKS}
        if len(found["<|start|>"]) != 1 or len(found["<|message|>"]) != 1:
            return {}
        return {ids[0]: name for name, ids in found.items() if len(ids) == 1}

    @property
    def pointer(self) -> Any:
        """The C pointer, for samplers."""
        return self._vocab

    @property
    def beginning(self) -> int | None:
        """The token that every text begins with, where the vocabulary wants one."""
        return int(self._lib.llama_vocab_bos(self._vocab)) if self._lib.llama_vocab_get_add_bos(self._vocab) else None

    # -- token to text -----------------------------------------------------------------------------------------

    def text(self, token: int) -> TokenText:
        """What a token adds to an answer: nothing for control tokens, END if it ends the answer."""
        if token not in self.texts:
            self.texts[token] = self._text(token)
        return self.texts[token]

    def _text(self, token: int) -> TokenText:
        if self._ends(token):
            return END
        return as_text(self.piece(token))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token; those of control tokens only with `special`."""
        size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        if size < 0:
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        return self._buffer.raw[: max(size, 0)]

    def name(self, token: int) -> str:
        """The text under which a control token stands in templates, such as `<|im_end|>`; empty for none (-1)."""
        return self.piece(token, special=True).decode("utf-8", "replace") if 0 <= token < self.size else ""

    def special_names(self) -> dict[str, str]:
        """The tokens that chat templates may ask for by role: bos_token, eos_token, ..."""
        ids = {
            "bos_token": self._lib.llama_vocab_bos(self._vocab),
            "eos_token": self._lib.llama_vocab_eos(self._vocab),
            "pad_token": self._lib.llama_vocab_pad(self._vocab),
            "sep_token": self._lib.llama_vocab_sep(self._vocab),
        }
        return {role: self.name(token) for role, token in ids.items() if token >= 0}

    def end_tokens(self) -> list[int]:
        """All tokens that end an answer. Found once: it takes a tenth of a second for a large vocabulary."""
        if self._end_tokens is None:
            self._end_tokens = [token for token in range(self.size) if self._ends(token)]
        return self._end_tokens

    def _ends(self, token: int) -> bool:
        if token in self._mends.ordinary:
            return False
        return token in self._mends.ends or bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: int) -> bool:
        """Whether a token steers the model instead of being text."""
        if token in self._mends.ordinary:
            return False
        return token in self._forced or bool(self._attribute(token) & (CONTROL | UNKNOWN))

    def is_unknown(self, token: int) -> bool:
        """Whether a token stands for whatever the vocabulary cannot spell."""
        if self._known is not None and token == self._known.unknown:
            return True
        return bool(self._attribute(token) & UNKNOWN)

    def _attribute(self, token: int) -> int:
        if token not in self._attributes:
            self._attributes[token] = self._lib.llama_vocab_get_attr(self._vocab, token)
        return self._attributes[token]

    # -- text to tokens ----------------------------------------------------------------------------------------

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of plain text. `parse_special` recognises control tokens: never for what a user wrote."""
        if self._forced and not parse_special and "<|" in text:
            # The mark is cut in two: what a user writes is text.
            text_parts = _INSIDE_MARK.split(text)
            ids = self._in_parts(text_parts[0], add_special, False)
            return ids + [token for part in text_parts[1:] for token in self._in_parts(part, False, False)]
        if self._known is None:
            return self._in_parts(text, add_special, parse_special)
        out = self._encode("", True, False) if add_special else []
        for is_known, part in self._known.stretches(text, special=parse_special):
            # The engine puts a space before each piece, as the vocabulary wants it at the start of a text.
            inner = part.removeprefix(" ") if out and is_known else part
            out += self._encode(inner, False, parse_special) if is_known else [self._known.unknown]
        return out

    def _in_parts(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """Ids of text in which no word is longer than the engine bears."""
        parts = [text] if self._mends.engine_prefixes or len(text) <= LONGEST_WORD else list(bounded(text))
        out = self._encode(parts[0], add_special, parse_special)
        if len(parts) > 1:
            end = [out.pop()] if add_special and self._lib.llama_vocab_get_add_eos(self._vocab) else []
            for part in parts[1:]:
                out += self._encode(part, False, parse_special)
            out += end
        return out

    def _encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")  # lone surrogates would stop the engine
        if not data and not add_special:
            return []
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, room, add_special, parse_special)
        if count < 0:
            ids = (ctypes.c_int32 * -count)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, -count, add_special, parse_special)
        if count < 0:
            raise EngineError("the engine cannot tokenize this text")
        return list(ids[:count])

    def tokens(self, prompt: Prompt, *, add_special: bool) -> list[int]:
        """Token ids of a prompt, cut at the control tokens of its control spans and nowhere else.

        Text between two cuts is tokenized as one piece, whoever wrote it, so that merges run across the seams.
        """
        out: list[int] = []
        text: list[str] = []
        strip_next = False
        first = add_special
        pieces = self._mends.pieces

        def flush(strip_end: bool) -> None:
            nonlocal first
            joined = "".join(text)
            text.clear()
            joined = joined.lstrip(WHITE_SPACE) if strip_next else joined
            joined = joined.rstrip(WHITE_SPACE) if strip_end else joined
            at_start = not out
            if first:
                out.extend(self._mends.prefix or self._front())
                first = False
            for stretch in self._mends.stretches(joined, first=at_start):
                if isinstance(stretch, int):
                    out.append(stretch)
                else:
                    out.extend(pieces.ids(stretch, self.encode) if pieces else self.encode(stretch))

        for part in self._parts(prompt):
            if isinstance(part, str):
                text.append(part)
                continue
            flush(self._strips(part, self._mends.strip_left, LSTRIP))
            out.append(part)
            strip_next = self._strips(part, self._mends.strip_right, RSTRIP)
        flush(False)
        return [*out, *self._back()] if add_special else out

    def _strips(self, token: int, known: frozenset[int] | None, attribute: int) -> bool:
        """Whether a token swallows white space: as its file says, else as the engine guesses by the model's name."""
        return token in known if known is not None else bool(self._attribute(token) & attribute)

    def _front(self) -> list[int]:
        """What the engine puts in front of a prompt."""
        ids = self._encode("", True, False)
        return ids[: len(ids) - len(self._back())]

    def _back(self) -> list[int]:
        """What the engine puts behind a prompt."""
        adds = self._lib.llama_vocab_get_add_eos(self._vocab)
        return self._encode("", True, False)[-1:] if adds else []

    def _parts(self, prompt: Prompt) -> list[str | int]:
        """The prompt as stretches of text and control tokens, in order."""
        if self._mends.added and self._mends.added.control:
            return list(self._mends.added.in_prompt(_joined(prompt)))
        parts: list[str | int] = []
        for control, text in _joined(prompt):
            parts += self._cut(text) if control else [text]
        return parts

    def _cut(self, text: str) -> list[str | int]:
        """A control span as text and control tokens. The engine says which tokens; their places follow in order."""
        parts: list[str | int] = []
        rest = text
        for token in self.encode(text, parse_special=True):
            if self.is_control(token):
                name = self.name(token)
                before, found, after = rest.partition(name)
                if name and found:
                    parts += [before, token]
                    rest = after
        return [*parts, rest]


def _joined(prompt: Prompt) -> list[tuple[bool, str]]:
    """Spans with neighbours of the same kind joined: a control token may be spelled by two of the template's."""
    out: list[tuple[bool, str]] = []
    for span in prompt:
        if out and out[-1][0] == span.control:
            out[-1] = (span.control, out[-1][1] + span.text)
        elif span.text:
            out.append((span.control, span.text))
    return out


def as_text(data: bytes) -> str | bytes:
    """The bytes as `str` if they are whole characters, else unchanged."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def control_names(gguf: GGUF) -> list[str]:
    """The texts of a model's control tokens, from its metadata."""
    texts = gguf.get("tokenizer.ggml.tokens", ())
    types = gguf.get("tokenizer.ggml.token_type", ())
    pairs = zip(texts, types, strict=False)
    return [text for text, kind in pairs if kind in _CONTROL_TYPES and isinstance(text, str) and text]

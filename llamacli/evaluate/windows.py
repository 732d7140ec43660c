"""A text cut into windows, as llama.cpp's perplexity and imatrix tools cut it.

The whole text is tokenized once; every `size` tokens make a window and an incomplete last one is left out. Where the
vocabulary wants a text to begin with BOS, the first token of every window gives way to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamacli.errors import UsageError
from llamacli.runtime.llama import LlamaEngine

SMALLEST = 16
"""Fewer tokens in a window say nothing."""


@dataclass(frozen=True)
class CutText:
    """A text's token ids, and which of them begin and end each window. `bos` is the token put in front, or None."""

    tokens: tuple[int, ...]
    size: int
    bos: int | None

    def __len__(self) -> int:
        return len(self.tokens) // self.size

    def window(self, number: int) -> list[int]:
        """What the model reads of window `number`."""
        window = list(self.tokens[number * self.size : (number + 1) * self.size])
        if self.bos is not None:
            window[0] = self.bos
        return window


def cut_text(engine: LlamaEngine, text: str, size: int, most: int = 0, *, parse_special: bool = False) -> CutText:
    """Cut `text` for this model into windows of `size` tokens, at most `most` of them (0: all).

    Raises UsageError where the text does not fill one window.
    """
    if size < SMALLEST:
        raise UsageError(f"-c {size}: a window has at least {SMALLEST} tokens")
    tokens = engine.vocab.encode(text, add_special=True, parse_special=parse_special)
    if len(tokens) < size:
        raise UsageError(
            f"the text has {len(tokens):,} tokens, too few for a window of {size:,}",
            "give a longer text, or smaller windows with -c",
        )
    count = len(tokens) // size
    count = min(count, most) if most else count
    return CutText(tuple(tokens[: count * size]), size, engine.vocab.beginning)


def groups(count: int, size: int, done: int = 0) -> Sequence[range]:
    """The numbers of windows from `done` to `count`, up to `size` at a time."""
    return [range(start, min(start + size, count)) for start in range(done, count, size)]

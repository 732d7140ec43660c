"""Tokens of an answer to its text."""

from __future__ import annotations

from collections.abc import Container, Sequence

from llamacli.runtime.messages import Finish
from llamacli.runtime.text import StopStrings, Utf8Stream
from llamacli.runtime.vocab import END, Vocab, as_text


class Writer:
    """The text of one answer, whole characters only, up to a stop string or a token that ends it."""

    def __init__(self, vocab: Vocab, stops: Sequence[str], visible: Container[int]) -> None:
        self._vocab, self._visible = vocab, visible
        self._utf8 = Utf8Stream()
        self._stops = StopStrings(stops)
        self.stopped = False
        self.ended: Finish = "stop"

    def write(self, token: int) -> str | None:
        """The text that is certain after `token`, or END."""
        raw = self._vocab.texts.get(token, "") or self._vocab.text(token)
        if raw is END:
            return END
        if raw == "" and token in self._visible:
            raw = as_text(self._vocab.piece(token, special=True))
        text = self._utf8.feed(raw)
        if self._stops:
            text, self.stopped = self._stops.feed(text)
        return text

    def finish(self) -> str:
        """What was held back, now that the answer is over."""
        rest = self._utf8.finish()
        if self.stopped:
            return ""
        if self._stops:
            text, self.stopped = self._stops.feed(rest)
            rest = text + self._stops.finish()
        return rest

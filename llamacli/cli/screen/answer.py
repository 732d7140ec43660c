"""An answer as it comes: shown piece by piece, and collected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from llamacli.cli.console import Console
from llamacli.cli.screen.look import Look
from llamacli.cli.screen.markdown import ERASE_LINE, Markdown
from llamacli.cli.screen.sanitize import Sanitizer
from llamacli.cli.screen.wrap import Wrap
from llamacli.runtime.messages import Finish, Piece, Usage

_REFRESH = 0.1
"""Seconds between two states of the line that counts thoughts."""


@dataclass
class Answer:
    """What came of one question; times in seconds."""

    text: str = ""
    reasoning: str = ""
    finish: Finish = "cancel"
    usage: Usage | None = None
    first: float = 0.0
    thoughts: int = 0
    thinking: float = 0.0
    tokens: list[tuple[str, float]] = field(default_factory=list)
    """Pieces of the answer with the probability of their token, where the engine tells it."""


class LiveAnswer:
    """Shows one answer while it is made.

    On a terminal: without control sequences, Markdown styled, thoughts folded into one line. Elsewhere: stdout gets
    the bytes of the answer and a final newline.
    """

    def __init__(self, console: Console, look: Look) -> None:
        self.console, self.look = console, look
        self.answer = Answer()
        self._sanitizer = Sanitizer()
        self._layout = Markdown(look.width) if look.styled else Wrap(look.width) if look.wrapped else None
        self._counted = 0.0
        self._at_line_start = True

    def show(self, pieces: Iterator[Piece]) -> Answer:
        """Take all pieces; a KeyboardInterrupt ends the answer with what is there."""
        start = time.perf_counter()
        answer = self.answer
        try:
            for piece in pieces:
                if not answer.first and (piece.text or piece.finish):
                    answer.first = time.perf_counter() - start
                self._take(piece, time.perf_counter() - start)
        except KeyboardInterrupt:
            answer.finish = "cancel"
        finally:
            self._fold(time.perf_counter() - start)
            self._end()
        return answer

    def _take(self, piece: Piece, elapsed: float) -> None:
        answer = self.answer
        if piece.kind == "reasoning":
            answer.reasoning += piece.text
            answer.thoughts += bool(piece.text)
            self._count(elapsed)
        elif piece.text:
            self._fold(elapsed)
            answer.text += piece.text
            self._write(piece.text)
            if piece.probability is not None:
                answer.tokens.append((piece.text, piece.probability))
        if piece.finish:
            answer.finish, answer.usage = piece.finish, piece.usage

    def _write(self, text: str) -> None:
        if self.look.live:
            text = self._sanitizer.feed(text)
            if self._layout:
                text = self._layout.feed(text)
        if text:
            self.console.write(text)
            self._at_line_start = text.endswith("\n")

    def _end(self) -> None:
        rest = self._layout.flush() if self._layout else ""
        if rest:
            self._at_line_start = rest.endswith("\n")
        if not self._at_line_start:
            rest += "\n"
        if rest:
            self.console.write(rest)

    # -- thoughts ----------------------------------------------------------------------------------------------

    def _count(self, elapsed: float) -> None:
        if self.look.redraw and not self.console.quiet and elapsed - self._counted >= _REFRESH:
            self._counted = elapsed
            self._talk(ERASE_LINE + self.look.dim(f"thinking, {self.answer.thoughts} tokens, {elapsed:.1f} s"))

    def _fold(self, elapsed: float) -> None:
        """The thoughts are over: one line stands for them."""
        answer = self.answer
        if not answer.reasoning or answer.thinking:
            return
        answer.thinking = elapsed
        if not self.console.quiet:
            erase = ERASE_LINE if self.look.redraw else ""
            line = f"thought {answer.thoughts} tokens, {elapsed:.1f} s  (/think show)"
            self._talk(erase + self.look.dim(line) + "\n")

    def _talk(self, text: str) -> None:
        self.console.err.write(text)
        self.console.err.flush()

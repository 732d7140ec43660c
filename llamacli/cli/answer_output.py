"""How `run` shows an answer while it comes: bytes for a pipe, safe text for a terminal, one object with --json."""

from __future__ import annotations

import json
from typing import Any

from llamacli.cli.console import Console
from llamacli.cli.screen.look import look_of
from llamacli.cli.screen.markdown import ERASE_LINE
from llamacli.cli.screen.sanitize import Sanitizer
from llamacli.runtime.messages import Piece


class AnswerOutput:
    """Writes pieces as they come and ends them with exactly one newline, or none.

    On a terminal control sequences are taken out; a pipe gets the text unchanged. Newlines at the end wait until it is
    clear that they are not the last.
    """

    def __init__(self, console: Console, *, silent: bool = False, newline: bool = True) -> None:
        self._console, self._silent, self._newline = console, silent, newline
        self._sanitizer = Sanitizer() if console.out_is_terminal else None
        self._waiting = ""
        self._wrote = False

    def write(self, text: str) -> None:
        """A bit of the answer."""
        if self._silent or not text:
            return
        if self._sanitizer is not None:
            text = self._sanitizer.feed(text)
        text = self._waiting + text
        body = text.rstrip("\n")
        self._waiting = text[len(body) :]
        if body:
            self._console.write(body)
            self._wrote = True

    def end(self) -> None:
        """The answer is over, however it ended."""
        if self._silent:
            return
        if not self._newline:
            self._console.write(self._waiting)
        elif self._wrote or self._waiting:
            self._console.write("\n")
        self._waiting = ""


class EventOutput:
    """`--jsonl`: an object per piece as it comes, and one at the end with everything else."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, piece: Piece) -> None:
        """A bit of the answer or of a thought."""
        if piece.text:
            self._line({"type": piece.kind, "text": piece.text, "token": piece.token})

    def end(self, data: dict[str, Any]) -> None:
        """The answer is over."""
        self._line({"type": "end", **data})

    def _line(self, data: dict[str, Any]) -> None:
        self._console.write(json.dumps({key: value for key, value in data.items() if value is not None},
                                       ensure_ascii=False) + "\n")  # fmt: skip


class ThoughtOutput:
    """What a model thinks, on stderr: dim while it comes and then one line on a terminal; nothing in a pipe.

    With `show` all of it stays, wherever stderr leads.
    """

    def __init__(self, console: Console, *, show: bool) -> None:
        self._console = console
        self._look = look_of(console)
        self._show = show
        self._counting = not show and self._look.redraw and not console.quiet
        self._sanitizer = Sanitizer()
        self.tokens = 0
        self.seconds = 0.0
        self._open = False

    def write(self, piece: Piece, seconds: float) -> None:
        """A bit of thought, `seconds` after the question."""
        self.tokens += bool(piece.text)
        self.seconds = seconds
        self._open = True
        if self._show:
            self._err(self._look.dim(self._sanitizer.feed(piece.text)))
        elif self._counting and self.tokens % 8 == 1:
            self._err(ERASE_LINE + self._look.dim(f"thinking, {self.tokens} tokens, {seconds:.1f} s"))

    def end(self) -> None:
        """The thoughts are over."""
        if not self._open:
            return
        self._open = False
        if self._show:
            self._err("\n")
        elif self._counting:
            self._err(ERASE_LINE + self._look.dim(f"thought for {self.tokens} tokens, {self.seconds:.1f} s") + "\n")

    def _err(self, text: str) -> None:
        self._console.err.write(text)
        self._console.err.flush()


def likelihood_object(vocab: Any, piece: Piece) -> dict[str, Any]:
    """How likely a token was, in the words of OpenAI's format; ids besides, because texts may be alike."""

    def one(token: int, log: float) -> dict[str, Any]:
        raw = vocab.piece(token, special=True)
        return {"token": raw.decode("utf-8", "replace"), "id": token, "logprob": round(log, 6), "bytes": list(raw)}

    found = piece.likelihood
    assert found is not None and piece.token is not None
    return {**one(piece.token, found.log_probability), "top_logprobs": [one(*pair) for pair in found.best]}


def statistics(usage: Any, load_seconds: float, first: float) -> str:
    """One line about an answer, for --stats."""
    parts = [f"prompt {usage.prompt} tokens" + (f" ({usage.cached} cached)" if usage.cached else "")]
    if usage.prompt > usage.cached and usage.prompt_seconds:
        parts.append(f"{(usage.prompt - usage.cached) / usage.prompt_seconds:,.0f} t/s")
    parts.append(f"answer {usage.completion} tokens")
    if speed := tokens_per_second(usage):
        parts.append(f"{speed:,.1f} t/s")
    return ", ".join(parts) + f", first after {first:.2f} s, loaded in {load_seconds:.2f} s"


def tokens_per_second(usage: Any) -> float:
    """Speed of generation; 0 where nothing was generated."""
    return usage.completion / usage.completion_seconds if usage.completion and usage.completion_seconds else 0.0

"""What the user says, line by line: for pipes, dumb terminals and screen readers."""

from __future__ import annotations

from typing import Protocol, TextIO

BLOCK = '"""'
"""Begins and ends a message of several lines."""


class Reader(Protocol):
    """Where the user's messages come from."""

    def read(self, default: str = "") -> str:
        """The next message; `default` is offered for editing. Raises EOFError at the end, KeyboardInterrupt."""

    def confirm(self, question: str) -> bool:
        """Ask for a yes; anything else, and the end of the input, is a no."""


class LineReader:
    """Reads messages from a stream. `prompt` is shown on `err`; without a person it is empty."""

    def __init__(self, stdin: TextIO, err: TextIO, prompt: str = "") -> None:
        self._stdin, self._err, self._prompt = stdin, err, prompt

    def read(self, default: str = "") -> str:
        """One line, or the lines of a block between triple quotes. What a block lacks at the end counts as sent."""
        lines = [self._line(self._prompt)]
        while opens_block("\n".join(lines)):
            try:
                lines.append(self._line("." * 3 + " " if self._prompt else ""))
            except EOFError:
                break
        return without_quotes("\n".join(lines))

    def confirm(self, question: str) -> bool:
        """Only a person can say yes: without a prompt the answer is no, and no line of the input is used up."""
        if not self._prompt:
            return False
        try:
            return self._line(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    def _line(self, prompt: str) -> str:
        if prompt:
            self._err.write(prompt)
            self._err.flush()
        buffer = getattr(self._stdin, "buffer", None)
        line = buffer.readline().decode("utf-8", "replace") if buffer is not None else self._stdin.readline()
        if not line:
            raise EOFError
        return str(line).rstrip("\r\n")


def opens_block(text: str) -> bool:
    """Whether `text` begins a block in triple quotes that has not ended yet."""
    text = text.strip()
    return text.startswith(BLOCK) and (len(text) < 2 * len(BLOCK) or not text.endswith(BLOCK))


def without_quotes(text: str) -> str:
    """The inside of a block in triple quotes, ended or not; other text is returned as it is."""
    inner = text.strip()
    if not inner.startswith(BLOCK):
        return text
    inner = inner.removeprefix(BLOCK).removesuffix(BLOCK)
    return inner.removeprefix("\n").removesuffix("\n")

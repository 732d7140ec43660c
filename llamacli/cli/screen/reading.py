"""How much of a long prompt is read: a line on stderr that is gone before the answer begins."""

from __future__ import annotations

from llamacli.cli.console import Console
from llamacli.cli.screen.markdown import ERASE_LINE

_LONG = 256
"""Tokens from which on the line appears: less is read before anybody wonders."""


class ReadingLine:
    """Told how many tokens of how many are read."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        if done >= total:
            self.end()
        elif total >= _LONG:
            self._write(f"{ERASE_LINE}reading {total:,} tokens {100 * done // total} %")
            self._shown = True

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write(ERASE_LINE)
            self._shown = False

    def _write(self, text: str) -> None:
        self._console.err.write(text)
        self._console.err.flush()

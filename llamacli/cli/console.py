"""The one place that writes to the terminal: stdout carries the product, stderr the talk.

Commands say *what* (a result, a table, a warning, progress); how it looks on this stream is decided here. Rich is
imported only when something is to be drawn, so that a pipe pays nothing for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

from llamacli.cli.streams import is_terminal, obeys_escapes
from llamacli.errors import LlamacliError
from llamacli.progress import Progress, Silent

if TYPE_CHECKING:
    import rich.console

ColorChoice = Literal["auto", "always", "never"]


class Console:
    """stdout and stderr of one command. `env` decides about colour together with the flags."""

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        env: Mapping[str, str],
        *,
        color: ColorChoice = "auto",
        quiet: bool = False,
        verbose: int = 0,
        json_output: bool = False,
        no_input: bool = False,
        offline: bool = False,
    ) -> None:
        self.out, self.err, self.env = out, err, env
        self.color, self.quiet, self.verbose, self.json_output = color, quiet, verbose, json_output
        self.no_input = no_input
        self.pull = False
        """Whether a model that is not here is downloaded without asking (--pull)."""
        self.offline = offline or env.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no", "off")

    # -- the product -------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Bytes of the product as they are, seen at once."""
        self.out.write(text)
        self.out.flush()

    def result(self, text: object, data: Any = None) -> None:
        """The product: one line of text, or with --json the `data`."""
        if self.json_output:
            self.write(json.dumps(data if data is not None else str(text), ensure_ascii=False) + "\n")
        else:
            self.write(f"{text}\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], data: Any = None) -> None:
        """Rows under headings: aligned text on stdout, or with --json the `data` (default: one object per row)."""
        if self.json_output:
            if data is None:
                data = [dict(zip(columns, row, strict=True)) for row in rows]
            self.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
            return
        cells = [[str(c) for c in columns], *[[clean(str(c)) for c in row] for row in rows]]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        sides = [">" if _numeric(cells[1:], i) else "<" for i in range(len(columns))]
        for line in cells:
            padded = (f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True))
            self.out.write("  ".join(padded).rstrip() + "\n")
        self.out.flush()

    # -- the talk ----------------------------------------------------------------------------------------------

    def status(self, text: str) -> None:
        """A line about what is happening, on stderr; silent with --quiet."""
        if not self.quiet:
            self._talk(clean(text))

    def warn(self, text: str) -> None:
        """A line that the user should see even with --quiet."""
        self._talk(self._paint("warning: ", "33") + clean(text))

    def error(self, error: LlamacliError) -> None:
        """What went wrong and what to do next."""
        if self.json_output:
            body = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
            self.err.write(json.dumps(body, ensure_ascii=False) + "\n")
            self.err.flush()
            return
        self._talk(self._paint("error: ", "31") + clean(error.message))
        if error.hint:
            self._talk("  " + clean(error.hint).replace("\n", "\n  "))

    def _talk(self, text: str) -> None:
        """Lines on stderr; a terminal would break them in the middle of words, so we do it between them."""
        if self.err_is_terminal:
            from llamacli.cli.screen.look import width_of
            from llamacli.cli.screen.wrap import Wrap

            wrap = Wrap(lambda: width_of(self.err, self.env))
            text = wrap.feed(text) + wrap.flush()
        self.err.write(text + "\n")
        self.err.flush()

    @contextlib.contextmanager
    def progress(self, title: str, total: int | None, unit: str = "bytes") -> Iterator[Progress]:
        """A bar on a terminal; elsewhere at most one line every ten seconds."""
        if self.quiet:
            yield Silent()
        elif self.err_is_terminal:
            with _bar(self.rich_err(), title, total, unit) as bar:
                yield bar
        else:
            yield _Lines(self.err, title, total)

    # -- what the streams can do -------------------------------------------------------------------------------

    @property
    def out_is_terminal(self) -> bool:
        """Whether a person reads stdout."""
        return is_terminal(self.out)

    @property
    def err_is_terminal(self) -> bool:
        """Whether a person reads stderr on a terminal that can redraw a line."""
        return self._draws(self.err)

    def colored(self, stream: TextIO) -> bool:
        """Whether colour may be written to `stream` (NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, TERM, --color)."""
        if self.color != "auto":
            return self.color == "always"
        if self.env.get("NO_COLOR"):
            return False
        if self.env.get("FORCE_COLOR") or self.env.get("CLICOLOR_FORCE", "0") != "0":
            return True
        return self._draws(stream)

    def _draws(self, stream: TextIO) -> bool:
        return is_terminal(stream) and self.env.get("TERM") != "dumb" and obeys_escapes(stream)

    def rich_err(self) -> rich.console.Console:
        """A Rich console on stderr that obeys the same rules."""
        from rich.console import Console as RichConsole

        colored = self.colored(self.err)
        return RichConsole(
            file=self.err,
            force_terminal=self.err_is_terminal,
            no_color=not colored,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colored(self.err) else text


def clean(text: str) -> str:
    """Text from files and models without anything that could move the cursor (newline and tab stay)."""
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def standard_console() -> Console:
    """The console of the real program: UTF-8 with replacement whatever the locale says."""
    out, err = (stream if stream is not None else nowhere("w") for stream in (sys.stdout, sys.stderr))
    for stream in (out, err):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace", newline="\n")
    return Console(out, err, os.environ)


def nowhere(mode: Literal["r", "w"]) -> TextIO:
    """A stream in place of one that was closed before the program began."""
    return open(os.devnull, mode, encoding="utf-8")


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    return bool(rows) and all(row[column][:1].isdigit() or row[column] in ("", "-", "–") for row in rows)


class _Lines:
    """Progress for a log file: one line every ten seconds, and none for short work."""

    def __init__(self, err: TextIO, title: str, total: int | None) -> None:
        self.err, self.title, self.total = err, title, total
        self.done, self.text, self.last = 0, "", time.monotonic()

    def advance(self, amount: int) -> None:
        self.done += amount
        self._write()

    def describe(self, text: str) -> None:
        self.text = text
        self._write()

    def _write(self) -> None:
        if time.monotonic() - self.last >= 10:
            self.last = time.monotonic()
            share = f" {100 * self.done // self.total} %" if self.total else f" {self.done}"
            self.err.write(f"{self.title}{share} {clean(self.text)}".rstrip() + "\n")
            self.err.flush()


@contextlib.contextmanager
def _bar(console: rich.console.Console, title: str, total: int | None, unit: str) -> Iterator[Progress]:
    from rich import progress as rp

    rate: tuple[rp.ProgressColumn, ...] = (
        (rp.DownloadColumn(), rp.TransferSpeedColumn()) if unit == "bytes" else (rp.MofNCompleteColumn(),)
    )
    columns = (
        rp.TextColumn("{task.description}", markup=False),
        rp.BarColumn(bar_width=None),
        rp.TaskProgressColumn(),
        *rate,
        rp.TimeRemainingColumn(),
        rp.TextColumn("{task.fields[text]}", markup=False),
    )
    with rp.Progress(*columns, console=console, transient=True, refresh_per_second=8) as progress:
        task = progress.add_task(title, total=total, text="")

        class Bar:
            def advance(self, amount: int) -> None:
                progress.advance(task, amount)

            def describe(self, text: str) -> None:
                progress.update(task, text=clean(text))

        yield Bar()

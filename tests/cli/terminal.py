"""A program on a pseudo-terminal whose screen is emulated, driven as a person would drive it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import pyte

CTRL_C, CTRL_D, CTRL_G, CTRL_J, CTRL_R, ESC, ENTER, TAB, UP = (
    "\x03",
    "\x04",
    "\x07",
    "\n",
    "\x12",
    "\x1b",
    "\r",
    "\t",
    "\x1b[A",
)


class Terminal:
    """`llamacli ARGUMENTS` with stdin, stdout and stderr on one terminal."""

    def __init__(self, *arguments: str, home: Path, columns: int = 80, lines: int = 24, **env: str) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.screen = pyte.HistoryScreen(columns, lines, history=1000, ratio=0.01)
        self.screen.write_process_input = self._reply  # type: ignore[method-assign]
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
            "LLAMACLI_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            **env,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llamacli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=home,
            env=environment,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            start_new_session=True,
        )
        os.close(slave)

    def _reply(self, text: str) -> None:
        os.write(self._master, text.encode())

    @property
    def text(self) -> str:
        """What is on the screen, lines without the space at their end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def keys(self, *keys: str) -> None:
        """Type."""
        for key in keys:
            os.write(self._master, key.encode())

    def wait(self, wanted: str, *, times: int = 1, seconds: float = 60) -> str:
        """Read until `wanted` is on the screen so many times; the screen."""
        deadline = time.monotonic() + seconds
        while self.text.count(wanted) < times:
            if time.monotonic() > deadline or not self._read(deadline):
                raise AssertionError(f"{wanted!r} did not come {times} times within {seconds} s:\n{self.text}")
        return self.text

    def gone(self, unwanted: str, *, seconds: float = 60) -> None:
        """Read until `unwanted` is off the screen, and whatever else comes at once."""
        deadline = time.monotonic() + seconds
        while unwanted in self.text:
            assert time.monotonic() < deadline and self._read(deadline), self.text
        self._read(time.monotonic() + 0.2)

    def resize(self, columns: int, lines: int) -> None:
        """As when a window changes its size."""
        import fcntl
        import struct
        import termios

        self.screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def end(self, seconds: float = 60) -> int:
        """Read until the program ends; its exit code."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._read(deadline):
            continue
        return self.process.wait(timeout=10)

    def _read(self, deadline: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, min(0.2, deadline - time.monotonic())))[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

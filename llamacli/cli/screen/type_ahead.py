"""What is typed while nothing is asked: unseen, and kept for the next prompt as it was typed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def unseen_typing(stdin: TextIO) -> Iterator[None]:
    """Within this block a terminal does not echo, and hands over Enter as the key it is. Ctrl-C stays a signal.

    For prompts that edit the line themselves; where there is no such terminal nothing happens.
    """
    if sys.platform == "win32":  # which echoes only while a line is read
        yield
        return
    import termios

    try:
        handle = stdin.fileno()
        before = termios.tcgetattr(handle)
    except (OSError, ValueError, termios.error):
        yield
        return
    quiet = [*before]
    quiet[0] &= ~termios.ICRNL  # else a waiting Enter would read as Ctrl-J, a new line
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(handle, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)

"""What a stream leads to: a terminal, one that obeys escape sequences, or a pipe whose reader is gone."""

from __future__ import annotations

import errno
import sys
from typing import TextIO

_ESCAPES = 4
"""Windows' ENABLE_VIRTUAL_TERMINAL_PROCESSING."""


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person is at the other end; on Windows only a console is, not the null device, which calls itself one."""
    try:
        return stream is not None and stream.isatty() and (sys.platform != "win32" or _console_mode(stream) is not None)
    except (OSError, ValueError):  # closed
        return False


def obeys_escapes(stream: TextIO) -> bool:
    """Whether a terminal takes escape sequences for what they are; a console of Windows is told to."""
    if sys.platform != "win32":
        return True
    mode = _console_mode(stream)
    return mode is not None and (bool(mode & _ESCAPES) or _set_console_mode(stream, mode | _ESCAPES))


def reader_is_gone(error: BaseException, system: str = sys.platform) -> bool:
    """Whether writing failed because nobody reads any more; Windows says "invalid argument" for it."""
    if isinstance(error, BrokenPipeError):
        return True
    named = getattr(error, "filename", None) is not None or getattr(error, "winerror", None) is not None
    return system == "win32" and isinstance(error, OSError) and error.errno == errno.EINVAL and not named


def _console_mode(stream: TextIO) -> int | None:
    """The mode of the console that a stream leads to; None where it is none."""
    if sys.platform != "win32":
        return None
    import ctypes
    import msvcrt

    mode = ctypes.c_uint32()
    try:
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(stream.fileno()))
    except (OSError, ValueError):
        return None
    return mode.value if ctypes.windll.kernel32.GetConsoleMode(handle, ctypes.byref(mode)) else None


def _set_console_mode(stream: TextIO, mode: int) -> bool:
    if sys.platform != "win32":
        return False
    import ctypes
    import msvcrt

    handle = ctypes.c_void_p(msvcrt.get_osfhandle(stream.fileno()))
    return bool(ctypes.windll.kernel32.SetConsoleMode(handle, ctypes.c_uint32(mode)))

"""Reading macOS's `sysctl` values by name. Everywhere else, and for names it does not know, there is no value."""

from __future__ import annotations

import sys


def sysctl_text(name: str) -> str:
    """A text value, or an empty string."""
    return _value(name).split(b"\0", 1)[0].decode(errors="replace").strip()


def sysctl_number(name: str) -> int:
    """A number (32 or 64 bits, as the system stores it), or 0."""
    return int.from_bytes(_value(name)[:8], sys.byteorder)


def _value(name: str) -> bytes:
    if sys.platform != "darwin":
        return b""
    import ctypes  # 3 ms that `list` does not need elsewhere

    library = ctypes.CDLL(None)
    size = ctypes.c_size_t(0)
    if library.sysctlbyname(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return b""
    buffer = ctypes.create_string_buffer(size.value)
    if library.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return b""
    return buffer.raw[: size.value]

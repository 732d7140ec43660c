"""SHA-256 whose state can be kept in a file, so that another process goes on hashing where this one was killed.

Python's hashlib cannot give its state away. The library below it can: OpenSSL's SHA256_CTX (112 bytes) and macOS's
CC_SHA256_CTX (104 bytes) are plain memory without pointers, and copying the memory copies the hash. Which of them can be
called is found out by trying; where neither can (Windows, a Python with OpenSSL linked in), `state` is None and an
interrupted file is hashed again from its first byte.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import sys
from typing import Any

_ROOM = 256
"""Bytes of memory for a state, more than any of the libraries needs."""


class Sha256:
    """A hash in progress; give `state` to start from one that was kept."""

    def __init__(self, state: bytes | None = None) -> None:
        self._calls = _library()
        if self._calls is None:
            if state is not None:
                raise ValueError("this Python cannot resume a hash")
            self._plain = hashlib.sha256()
            return
        self._memory = ctypes.create_string_buffer(_ROOM)
        if state is None:
            self._calls[0](self._memory)
        else:
            ctypes.memmove(self._memory, state, len(state))

    def update(self, data: bytearray) -> None:
        """Take in more bytes; other threads run meanwhile."""
        if self._calls is None:
            self._plain.update(data)
        elif data:
            self._calls[1](self._memory, (ctypes.c_char * len(data)).from_buffer(data), len(data))

    def hexdigest(self) -> str:
        """The digest of all bytes so far; the hash can go on after it."""
        if self._calls is None:
            return self._plain.hexdigest()
        out, copy = ctypes.create_string_buffer(32), ctypes.create_string_buffer(self._memory.raw, _ROOM)
        self._calls[2](out, copy)
        return out.raw.hex()

    @property
    def state(self) -> bytes | None:
        """What to keep, or None where this Python cannot."""
        return None if self._calls is None else self._memory.raw.rstrip(b"\0").ljust(112, b"\0")


def can_resume() -> bool:
    """Whether `state` is of use here."""
    return _library() is not None


@functools.cache
def _library() -> tuple[Any, Any, Any] | None:
    """(init, update, final) of a library that passes a test, or None."""
    for found in _candidates():
        if _works(found):
            return found
    return None


def _candidates() -> list[tuple[Any, Any, Any]]:
    found = []
    names = ("CC_SHA256_Init", "CC_SHA256_Update", "CC_SHA256_Final") if sys.platform == "darwin" else ()
    for handle, functions in ((_self(), names), (_openssl(), ("SHA256_Init", "SHA256_Update", "SHA256_Final"))):
        try:
            init, update, final = (getattr(handle, name) for name in functions)
        except (AttributeError, ValueError):
            continue
        init.argtypes = [ctypes.c_void_p]
        wide = ctypes.c_uint32 if functions == names else ctypes.c_size_t  # CC_LONG is 32 bits wide
        update.argtypes = [ctypes.c_void_p, ctypes.c_void_p, wide]
        final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        found.append((init, update, final))
    return found


def _self() -> Any:
    try:
        return ctypes.CDLL(None) if sys.platform != "win32" else None
    except OSError:
        return None


def _openssl() -> Any:
    """The OpenSSL that Python's own hashlib has loaded."""
    try:
        import _hashlib

        return ctypes.CDLL(_hashlib.__file__)
    except (ImportError, AttributeError, OSError, TypeError):
        return None


def _works(calls: tuple[Any, Any, Any]) -> bool:
    """Half a text hashed, the memory moved, the other half hashed there: is it the digest that hashlib gives?"""
    text = bytes(range(251)) * 3
    memory = ctypes.create_string_buffer(_ROOM)
    calls[0](memory)
    calls[1](memory, text[:100], 100)
    moved, out = ctypes.create_string_buffer(memory.raw, _ROOM), ctypes.create_string_buffer(32)
    calls[1](moved, text[100:], len(text) - 100)
    calls[2](out, moved)
    return out.raw == hashlib.sha256(text).digest()

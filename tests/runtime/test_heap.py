"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from llamacli.formats.gguf_reader import Strings
from llamacli.runtime.heap import give_back, keep_little


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows it")
def test_what_is_freed_leaves_the_process() -> None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("not the C library that keeps so much")
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    keep_little()
    blocks = [library.malloc(4000) for _ in range(10_000)]
    for block in blocks:
        ctypes.memset(block, 1, 4000)
    full = resident()
    last = blocks.pop()  # in use, above all the others
    for block in blocks:
        library.free(block)
    give_back()
    assert full - resident() > 30_000_000
    library.free(last)


def test_texts_are_taken_apart_again_when_they_are_wanted() -> None:
    raw = b"".join(len(text).to_bytes(8, "little") + text for text in (b"one", b"two", b"\xff"))
    strings = Strings(raw, 3)
    assert strings[:] == ("one", "two", b"\xff")
    strings.forget()
    assert "decoded" not in strings.__dict__ and "byte_strings" not in strings.__dict__
    assert strings[:] == ("one", "two", b"\xff")

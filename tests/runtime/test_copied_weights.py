"""Weights that the engine lays out anew are not held twice."""

from __future__ import annotations

import mmap
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamacli.formats.gguf_reader import read_gguf
from llamacli.runtime.copied_weights import READ_BY_ROWS, CopiedWeights, joined


@pytest.mark.skipif(sys.platform != "linux", reason="what is resident can be looked up on Linux")
def test_the_pages_of_copied_tensors_leave_and_come_back_when_somebody_reads_them(
    converted: Callable[..., Path],
) -> None:
    path = converted("tinystories-656k-wide256", "Q4_K_M")
    gguf, content = read_gguf(path), path.read_bytes()
    copied = CopiedWeights()
    for tensor in gguf.tensors:
        copied.hear(f"repack: repack tensor {tensor.name} with q4_K_8x8")
    assert copied.names == {tensor.name for tensor in gguf.tensors}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == content
        before = resident(path)
        gone = copied.let_go(gguf)
        assert 0 < gone == before - resident(path)
        assert mapped[:] == content and resident(path) == before
    kept = next(tensor for tensor in gguf.tensors if tensor.name == READ_BY_ROWS)
    assert gone <= len(content) - kept.size_bytes


def test_a_model_of_which_nothing_is_copied_stays_as_it_is(converted: Callable[..., Path]) -> None:
    copied = CopiedWeights()
    copied.hear("load_tensors:   CPU_Mapped model buffer size =   512.73 MiB")
    assert not copied.names
    assert copied.let_go(read_gguf(converted("tinystories-656k-wide256", "Q4_K_M"))) == 0


def test_neighbours_are_let_go_as_one() -> None:
    assert joined([(0, 10), (12, 20), (60, 70)], 32) == [(0, 20), (60, 70)]
    assert joined([], 32) == []


def resident(path: Path) -> int:
    """Bytes of `path` that are mapped into this process and present."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = re.findall(rf"r--s \S+ \S+ {path.stat().st_ino} [^\n]*\nSize:.*?\nRss: +(\d+) kB", text, re.S)
    return sum(int(kilobytes) * 1024 for kilobytes in found)

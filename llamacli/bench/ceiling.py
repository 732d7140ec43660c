"""The machine's own limit: how fast its memory is, and how much of it a token must read.

Generating one token reads every active weight once, so on a processor the memory's speed divided by those bytes is the
most that any software can reach. Per cent of that tells whether there is still something to gain.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamacli.formats.gguf_reader import GGUF, TensorInfo
from llamacli.formats.tensor_types import BY_NAME
from llamacli.runtime.cache_size import cache_bytes

MOST_BYTES = 512 << 20
LEAST_BYTES = 64 << 20
SECONDS = 0.3
PIECE = 4 << 20
"""Bytes that are compared in one call."""

LOOKED_UP = ("token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")
"""Tables of which a token reads one row, not all."""


def bytes_per_token(gguf: GGUF, position: int, type_k: str = "f16", type_v: str = "f16") -> int:
    """Bytes that generating the token at `position` reads: active weights, and the KV cache of what stands before it.

    Of experts those that are used count; embeddings count only where they are the output matrix too.
    """
    names = {tensor.name for tensor in gguf.tensors}
    weights = sum(_read(gguf, tensor, tied="output.weight" not in names) for tensor in gguf.tensors)
    return int(weights) + cache_bytes(gguf, position, BY_NAME[type_k.upper()], BY_NAME[type_v.upper()], swa_full=False)


def _read(gguf: GGUF, tensor: TensorInfo, *, tied: bool) -> float:
    if tensor.name in LOOKED_UP and not (tied and tensor.name == "token_embd.weight"):
        return 0
    if _beyond(gguf, tensor.name):
        return 0
    if "_exps." in tensor.name:
        count = int(gguf.get("{arch}.expert_count", 0) or 0)
        used = int(gguf.get("{arch}.expert_used_count", 0) or 0)
        return tensor.size_bytes * used / count if 0 < used <= count else tensor.size_bytes
    return tensor.size_bytes


def _beyond(gguf: GGUF, name: str) -> bool:
    """Whether a tensor belongs to the blocks that only predict further tokens."""
    extra = int(gguf.get("{arch}.nextn_predict_layers", 0) or 0)
    parts = name.split(".")
    if not extra or parts[0] != "blk" or not parts[1].isdigit():
        return False
    return int(parts[1]) >= int(gguf.get("{arch}.block_count", 0)) - extra


# -- the memory's speed ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """Two equal regions of `size` bytes for one thread to compare."""

    first: int
    second: int
    size: int


def memory_speed(threads: int, available: int) -> float:
    """Bytes per second that `threads` threads together read at best; 0 if there is no room to try. Takes half a second.

    Each thread compares two regions of equal content with the C library's memcmp, which reads both, writes nothing and
    is vectorised everywhere. Together the regions are larger than the caches, but no more than 512 MiB nor an eighth of
    the `available` bytes.
    """
    total = min(MOST_BYTES, available // 8)
    if total < LEAST_BYTES:
        return 0.0
    threads = max(1, min(threads, total // (2 * PIECE)))
    size = total // (2 * threads) // PIECE * PIECE
    regions = [_region(size) for _ in range(2 * threads)]
    works = [_Work(_address(regions[2 * i]), _address(regions[2 * i + 1]), size) for i in range(threads)]
    try:
        _together(works, lambda work: ctypes.memset(work.first, 1, size) and ctypes.memset(work.second, 1, size))
        return 2 * size * threads / _best_pass(works)
    finally:
        for region in regions:
            region.close()


def _best_pass(works: list[_Work]) -> float:
    """Seconds of the fastest of the passes that fit the time; the first is not counted if there is another."""
    compare = _memcmp()

    def read(work: _Work) -> None:
        for at in range(0, work.size, PIECE):
            compare(work.first + at, work.second + at, PIECE)

    passes = [_together(works, read)]
    started = time.perf_counter()
    while len(passes) < 3 or time.perf_counter() - started < SECONDS:
        passes.append(_together(works, read))
    return min(passes[1:])


def _together(works: list[_Work], job: Callable[[_Work], object]) -> float:
    """Let a thread do `job` for each of `works`, all starting at once; seconds until the last is done."""
    barrier = threading.Barrier(len(works) + 1)

    def run(work: _Work) -> None:
        barrier.wait()
        job(work)

    workers = [threading.Thread(target=run, args=(work,)) for work in works]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started


def _region(size: int) -> mmap.mmap:
    region = mmap.mmap(-1, size)
    if hasattr(region, "madvise") and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            region.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without huge pages
            return region
    return region


def _address(region: mmap.mmap) -> int:
    view = ctypes.c_char.from_buffer(region)
    address = ctypes.addressof(view)
    del view  # it would keep the region from closing
    return address


def _memcmp() -> Any:
    """The C library's memcmp; called through ctypes it lets other threads run."""
    library: Any = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return prototype(("memcmp", library))

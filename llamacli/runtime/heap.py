"""Memory that was freed goes back to the system, so that what a loaded model takes is what it needs.

Loading a model allocates and frees tens of megabytes of texts in small pieces. glibc keeps such memory for later, and the
more large blocks it has seen freed, the more it keeps: two runs of the same differ by as much. Elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's numbers for `mallopt`."""

LARGE = 1 << 20
"""Bytes from which on a block is the system's own and goes back as soon as it is freed."""


def keep_little() -> None:
    """From now on large blocks are returned when they are freed, however many came before."""
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, LARGE)
        library.mallopt(_TRIM_THRESHOLD, LARGE)


def give_back() -> None:
    """Return every page that holds nothing any more; it takes a millisecond or two."""
    if library := _glibc():
        library.malloc_trim(0)


@functools.cache
def _glibc() -> Any:
    """The C library, if it has both functions."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None

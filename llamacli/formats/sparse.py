"""Files that have a size and hold almost nothing: the header of a model, for those who ask no more of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

_SET_SPARSE = 0x900C4
"""Windows' FSCTL_SET_SPARSE; elsewhere what was never written takes no room anyway."""


def write_sparse(path: Path, front: bytes | bytearray, size: int) -> None:
    """A file of `size` bytes that begins with `front`; the rest reads as zeros and takes no room on the disk."""
    with path.open("wb") as file:
        _allow_holes(file)
        file.write(front)
        file.truncate(size)


def _allow_holes(file: BinaryIO) -> None:
    if sys.platform != "win32":
        return
    import ctypes
    import msvcrt

    handle = ctypes.c_void_p(msvcrt.get_osfhandle(file.fileno()))
    done = ctypes.c_uint32()
    # Where the disk cannot do it, the file takes room like any other: no reason to fail here.
    ctypes.windll.kernel32.DeviceIoControl(handle, _SET_SPARSE, None, 0, None, 0, ctypes.byref(done), None)

"""One process at a time: a lock that the kernel releases when its holder dies, however it dies.

`flock` on the same file that huggingface_hub locks (`.locks/<repository>/<etag>.lock`), so that `hf download` and we never
fetch the same blob at once. On a file system without locks we go on without: two processes then waste work, but what
they end up with is still verified before it gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK)
_TRIES = 20
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def only_one(path: Path, waiting: Callable[[], None], pause: float = 0.2) -> Iterator[None]:
    """Hold the lock at `path`; while another process has it, call `waiting` every `pause` seconds.

    Raises OSError if the lock's folder cannot be written.
    """
    descriptor = _acquire(path, waiting, pause)
    try:
        yield
    finally:
        _unlock(descriptor)
        os.close(descriptor)


def _acquire(path: Path, waiting: Callable[[], None], pause: float) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(path)
        try:
            if _locked(descriptor) and _still(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        waiting()
        time.sleep(pause)


def _opened(path: Path) -> int:
    """The file of the lock. Windows refuses for a moment to open one that another process is removing."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    for _ in range(_TRIES) if sys.platform == "win32" else ():
        try:
            return os.open(path, flags, 0o664)
        except PermissionError:
            time.sleep(0.05)
    return os.open(path, flags, 0o664)


def _still(path: Path, descriptor: int) -> bool:
    """Whether `path` is still the file that we locked: another program may remove its lock files."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _locked(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
        if error.errno in _BUSY:
            return False
        raise
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)

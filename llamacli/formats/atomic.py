"""A file at its final name is complete: temporary name beside it, fsync, verify, rename, fsync the folder.

Whatever happens on the way (an exception, Ctrl-C, a full disk), the final name holds what it held before. A process
that is killed outright leaves at most its temporary file, which the next writer of the same target removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llamacli.errors import CannotWrite
from llamacli.formats.durable import folder_to_disk, replace, to_disk

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or name an output on another disk"),
    errno.EROFS: ("the file system is read-only", "name an output in a folder that you may write"),
    errno.EACCES: ("permission denied", "name an output in a folder that you may write"),
    errno.EPERM: ("permission denied", "name an output in a folder that you may write"),
    errno.ENAMETOOLONG: ("the name is too long", "name a shorter output"),
    errno.EFBIG: ("the file is too large for this file system", "name an output on another disk"),
    errno.EIO: ("the device reported an error", "the disk may be failing; name an output on another disk"),
    **({errno.EDQUOT: ("the disk quota is used up", "free some space")} if hasattr(errno, "EDQUOT") else {}),
}


@dataclass
class AtomicFile:
    """A file that is being written under a temporary name.

    `file` is open for reading and writing, so that blocks may be written in any order. `verify`, where set, is called
    with the temporary file's path after everything is on disk; what it raises keeps the file from its final name.
    """

    path: Path
    file: BinaryIO
    verify: Callable[[Path], object] | None = None


@contextlib.contextmanager
def atomic_file(target: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> Iterator[AtomicFile]:
    """Write `target` as a whole or not at all.

    Raises `CannotWrite` where the target exists and `force` is not set, where it is one of `inputs` by whatever name
    (link or hard link, even with `force`), and where the folder or the disk refuses.
    """
    target = check_target(target, force=force, inputs=inputs)
    _sweep(target)
    part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    with translated(target):
        file = part.open("x+b")
    try:
        with translated(target):
            writing = AtomicFile(part, file)
            yield writing
            _finish(writing, target, force=force)
    except BaseException:
        with contextlib.suppress(OSError):  # what waits to be written on a full disk
            file.close()
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def resumable_file(target: Path, part: Path, size: int, *, force: bool = False) -> Iterator[AtomicFile]:
    """As `atomic_file`, under the name `part`, which stays when the writing is interrupted.

    A `part` of `size` bytes that is there already is gone on with; any other is begun anew. It is removed only by
    whoever knows that its content is of no use.
    """
    with translated(target):
        known = part.is_file() and not part.is_symlink() and part.stat().st_size == size
        if not known:
            part.unlink(missing_ok=True)
        with part.open("r+b" if known else "x+b") as file:
            file.truncate(size)
            writing = AtomicFile(part, file)
            yield writing
            _finish(writing, target, force=force)


def check_target(target: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """The path that writing `target` would replace, links followed; raises `CannotWrite` where that is not allowed."""
    target = Path(os.path.realpath(target))  # a link stays a link: what it points to is replaced
    with translated(target):
        for source in inputs:
            if _same(source, target):
                raise CannotWrite(
                    f"the output is the input: {target}", "name another output; inputs are never written to"
                )
        if target.is_dir():
            raise CannotWrite(f"the output is a folder: {target}", "name a file")
        if target.exists() and not target.is_file():
            raise CannotWrite(f"the output is not a regular file: {target}", "name a file")
        if target.exists() and not force:
            raise CannotWrite(f"the output exists: {target}", "name another output, or overwrite it with --force")
    folder = target.parent
    if not folder.is_dir():
        raise CannotWrite(f"no such folder: {folder}", "create it first, or name another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"cannot write in {folder}: permission denied", "name an output in a folder you may write")
    return target


def free_space_check(folder: Path, needed_bytes: int) -> None:
    """Raise `CannotWrite` with both numbers where `folder` has less than `needed_bytes` free."""
    with translated(folder):
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise CannotWrite(
            f"the disk is too small: {needed_bytes:,} bytes are needed and {free:,} are free in {folder}",
            "free some space, or name an output on another disk",
        )


@contextlib.contextmanager
def translated(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into `CannotWrite`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        reason, hint = _REASONS[error.errno]
        raise CannotWrite(f"cannot write {target}: {reason}", hint) from error


def _finish(writing: AtomicFile, target: Path, *, force: bool) -> None:
    writing.file.flush()
    to_disk(writing.file.fileno())
    writing.file.close()
    if writing.verify is not None:
        writing.verify(writing.path)
    _rename(writing.path, target, force=force)
    folder_to_disk(target.parent)


def _rename(part: Path, target: Path, *, force: bool) -> None:
    """Give the file its name. Without `force`, a file that another process put there meanwhile stays."""
    if force:
        try:
            replace(part, target)
        except PermissionError as error:
            if sys.platform == "win32" and target.exists():
                raise CannotWrite(
                    f"cannot replace {target}: another program has it open", "close that, or name another output"
                ) from error
            raise
        return
    try:
        _rename_unless_it_exists(part, target)
    except FileExistsError:
        raise CannotWrite(
            f"the output appeared meanwhile: {target}", "name another output, or overwrite it with --force"
        ) from None


def _rename_unless_it_exists(part: Path, target: Path) -> None:
    if sys.platform == "win32":
        part.rename(target)  # refuses by itself
        return
    try:
        os.link(part, target)  # the only portable call that creates a name or fails
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        part.rename(target)
    else:
        part.unlink()


def _same(source: Path, target: Path) -> bool:
    try:
        return source.samefile(target)
    except FileNotFoundError:
        return Path(os.path.realpath(source)) == target


def _sweep(target: Path) -> None:
    """Remove temporary files of `target` whose process is gone."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d+)\.[0-9a-f]{8}\.part")
    with contextlib.suppress(OSError):
        for entry in target.parent.iterdir():
            match = pattern.fullmatch(entry.name)
            if match and not _alive(int(match[1])):
                with contextlib.suppress(OSError):
                    entry.unlink()


def _alive(pid: int) -> bool:
    """Whether a process of that number runs here; where that cannot be asked, yes."""
    if sys.platform == "win32":
        return _alive_on_windows(pid)  # os.kill would end it there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _alive_on_windows(pid: int) -> bool:
    """Whether such a process can be opened and has not ended; one of another user counts as alive."""
    if sys.platform != "win32":
        return True
    import ctypes

    ask_only, no_such, running = (
        0x1000,
        87,
        259,
    )  # PROCESS_QUERY_LIMITED_INFORMATION, ERROR_INVALID_PARAMETER, STILL_ACTIVE
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.OpenProcess.restype = ctypes.c_void_p
    kernel32.OpenProcess.argtypes = [ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32]
    kernel32.GetExitCodeProcess.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    kernel32.CloseHandle.argtypes = [ctypes.c_void_p]
    handle = kernel32.OpenProcess(ask_only, 0, pid & 0xFFFFFFFF)
    if not handle:
        return ctypes.get_last_error() != no_such
    code = ctypes.c_uint32(running)
    kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel32.CloseHandle(handle)
    return code.value == running

"""One file from the Hub to its place: wait for whoever is at it, resume, verify, and only then give it its name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from llamacli.errors import CannotWrite, CorruptFile
from llamacli.formats.durable import folder_to_disk, replace, to_disk
from llamacli.library.adding import link, make_inside, make_repo_folders, set_ref
from llamacli.library.digest import file_matches
from llamacli.library.http import BadStatus
from llamacli.library.hub import Hub, RemoteFile, RemoteRepo
from llamacli.library.lock import only_one
from llamacli.library.part import Part, bytes_here, cannot_write, discard
from llamacli.library.store import HubCache
from llamacli.library.transfer import Settings, transfer
from llamacli.progress import Progress

PART = ".llamacli-part"
SPARE = 64 << 20
"""Bytes of the disk that a download leaves to others."""


@dataclass(frozen=True)
class Fetched:
    """A file that is here, whole and verified."""

    path: Path
    repo: str
    commit: str
    file: RemoteFile
    seconds: float
    resumed_from: int
    """Bytes that an earlier run had left; the file's size if it was here already."""


@dataclass(frozen=True)
class _Place:
    """Where a file is to end up."""

    final: Path
    part: Path
    lock: Path


def fetch_to_cache(
    hub: Hub, cache: HubCache, repo: RemoteRepo, revision: str, file: RemoteFile, progress: Progress, settings: Settings
) -> Fetched:
    """Put `file` of `repo` into the Hub cache.

    Raises what `transfer` raises, with the Hub's refusals explained, and CannotWrite.
    """
    began = time.monotonic()
    pointer = cache.pointer(repo.name, repo.commit, file.name)
    if _is_whole(pointer, file.size):
        with contextlib.suppress(CannotWrite):  # a cache that cannot be written still serves
            set_ref(cache, repo.name, revision or "main", repo.commit)
        progress.advance(file.size)
        return Fetched(pointer, repo.name, repo.commit, file, 0.0, file.size)
    make_repo_folders(cache, repo.name)
    blob = cache.blob(repo.name, file.digest)
    place = _Place(blob, blob.with_name(blob.name + PART), cache.lock(repo.name, file.digest))
    try:
        resumed = _fetch(hub, repo, file, place, progress, settings)
    except BaseException:
        _leave_nothing_empty(cache.repo_folder(repo.name))
        raise
    path = link(cache, repo.name, repo.commit, file.name, file.digest)
    set_ref(cache, repo.name, revision or "main", repo.commit)
    return Fetched(path, repo.name, repo.commit, file, time.monotonic() - began, resumed)


def fetch_to_folder(
    hub: Hub,
    cache: HubCache,
    repo: RemoteRepo,
    file: RemoteFile,
    folder: Path,
    locks: Path,
    progress: Progress,
    settings: Settings,
) -> Fetched:
    """Put `file` of `repo` into `folder` under its own name; an equal file that is there already is taken as it is.

    Raises CannotWrite if another file is in its place, else as `fetch_to_cache`.
    """
    began = time.monotonic()
    final = folder.joinpath(*file.name.split("/"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder / "x", error) from None
    make_inside(folder, final.parent.relative_to(folder))
    if final.exists() or final.is_symlink():
        if not (_is_whole(final, file.size) and file_matches(final, file.digest)):
            raise CannotWrite(f"{final} exists and is another file", "move it away, or name another folder")
        progress.advance(file.size)
        return Fetched(final, repo.name, repo.commit, file, 0.0, file.size)
    name = hashlib.sha256(os.fsencode(final.absolute())).hexdigest()[:32]
    place = _Place(final, final.with_name(f".{final.name}{PART}"), locks / f"{name}.lock")
    blob = cache.blob(repo.name, file.digest)
    if _is_whole(blob, file.size):
        _copy(blob, file, place, progress)
        return Fetched(final, repo.name, repo.commit, file, time.monotonic() - began, file.size)
    resumed = _fetch(hub, repo, file, place, progress, settings)
    return Fetched(final, repo.name, repo.commit, file, time.monotonic() - began, resumed)


def _leave_nothing_empty(folder: Path) -> None:
    """Without a byte there is nothing to go on from, and other programs call a repository without a snapshot damaged."""
    with contextlib.suppress(OSError):
        (folder / "blobs").rmdir()
        folder.rmdir()


def _fetch(hub: Hub, repo: RemoteRepo, file: RemoteFile, place: _Place, progress: Progress, settings: Settings) -> int:
    """Bytes to `place.final`, under its lock; how many of them were here before."""
    follower = _Follower(place.part, progress)
    try:
        with only_one(place.lock, follower.look):
            follower.done()
            if _is_whole(place.final, file.size):
                progress.advance(file.size)
                return file.size
            return _fetch_locked(hub, repo, file, place, progress, settings)
    except BadStatus as error:
        raise hub.explain(error, repo.name, repo.commit, file.name) from None
    except OSError as error:
        raise cannot_write(place.lock, error) from None


def _fetch_locked(
    hub: Hub, repo: RemoteRepo, file: RemoteFile, place: _Place, progress: Progress, settings: Settings
) -> int:
    part = Part(place.part, file.size, file.digest)
    try:
        resumed = part.total
        check_space(place.final.parent, file.size - resumed)
        transfer(hub.client, hub.file_url(repo, file), part, file.name, progress, settings)
    finally:
        part.close()
        if part.size and not part.total:  # nothing to go on from
            discard(place.part)
    settle(place.part, place.final)
    return resumed


def settle(part: Path, final: Path) -> None:
    """Give verified bytes that are on disk their name, and make the name last through a power cut."""
    try:
        replace(part, final)
        folder_to_disk(final.parent)
    except OSError as error:
        raise cannot_write(final, error) from None
    with contextlib.suppress(OSError):  # the file is here; a map that is left over does no harm
        discard(part)


def check_space(folder: Path, count: int) -> None:
    """Raise CannotWrite if the disk of `folder` has no room for `count` more bytes."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if count > 0 and free < count + SPARE:
        raise CannotWrite(
            f"the disk is too small: {_megabytes(count)} are needed and {_megabytes(SPARE)} kept free, "
            f"{_megabytes(free)} are free in {folder}",
            "free some space, or choose another disk with HF_HUB_CACHE or --to",
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 10**9 else f"{count / 1e9:.1f} GB"


def _copy(blob: Path, file: RemoteFile, place: _Place, progress: Progress) -> None:
    """From the cache instead of the network; verified all the same."""
    check_space(place.final.parent, file.size)
    try:
        shutil.copyfile(blob, place.part)
        with place.part.open("rb+") as copied:
            to_disk(copied.fileno())
    except OSError as error:
        raise cannot_write(place.part, error) from None
    if not file_matches(place.part, file.digest, progress):
        discard(place.part)
        raise CorruptFile(f"{blob} is damaged: its hash is not the one the Hub promises", "remove it and try again")
    settle(place.part, place.final)


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


class _Follower:
    """Shows how far another process is with the file that we wait for."""

    def __init__(self, part: Path, progress: Progress) -> None:
        self.part, self.progress, self.seen = part, progress, 0

    def look(self) -> None:
        """Called again and again while the lock is another's."""
        here = bytes_here(self.part)
        self.progress.describe("another process is downloading it; waiting")
        self.progress.advance(here - self.seen)
        self.seen = here

    def done(self) -> None:
        """It is our turn: what was counted is counted anew."""
        self.progress.advance(-self.seen)
        self.seen = 0
        self.progress.describe("")

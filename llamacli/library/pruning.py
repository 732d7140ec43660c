"""What unfinished and forgotten downloads have left in the Hub cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llamacli.errors import CannotWrite
from llamacli.library.fetch import PART
from llamacli.library.lock import only_one
from llamacli.library.part import bytes_here, discard
from llamacli.library.store import HubCache


@dataclass(frozen=True)
class Unfinished:
    """One download that stopped on its way."""

    repo: str
    path: Path
    here: int
    """Bytes that have come."""
    changed: float
    """When it last grew, in seconds since 1970."""

    @property
    def digest(self) -> str:
        """What the file was to become."""
        return self.path.name.removesuffix(PART)


def unfinished(cache: HubCache) -> list[Unfinished]:
    """Every unfinished download of ours, largest first."""
    found = []
    for repo in cache.repos():
        try:
            entries = list(os.scandir(cache.repo_folder(repo) / "blobs"))
        except OSError:
            continue
        for entry in entries:
            if entry.name.endswith(PART) and entry.is_file(follow_symlinks=False):
                path = Path(entry.path)
                found.append(Unfinished(repo, path, bytes_here(path), entry.stat().st_mtime))
    return sorted(found, key=lambda u: -u.here)


def prune(cache: HubCache, item: Unfinished) -> bool:
    """Remove it; False if a process is at it right now. Raises CannotWrite."""

    def busy() -> None:
        raise _Busy

    try:
        with only_one(cache.lock(item.repo, item.digest), busy):
            discard(item.path)
    except _Busy:
        return False
    except OSError as error:
        raise CannotWrite(f"cannot remove {item.path}: {(error.strerror or '').lower()}") from None
    return True


class _Busy(Exception):
    """The lock is another's."""

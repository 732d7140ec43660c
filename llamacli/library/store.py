"""The standard Hub cache on this computer: what is in it, and taking things out of it.

Layout (huggingface_hub's, shared with transformers, hf and llama.cpp):

    models--owner--repo/blobs/<etag>                  the bytes; <etag> is the SHA-256 (LFS) or the git SHA-1
    models--owner--repo/snapshots/<commit>/<file>     a relative symlink to ../../blobs/<etag>, or the file itself
    models--owner--repo/refs/<branch>                 the commit a branch stood at
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Snapshot:
    """One commit of one repository, as far as it is here."""

    repo: str
    commit: str
    folder: str

    @property
    def path(self) -> Path:
        """Its folder."""
        return Path(self.folder)

    def files(self) -> dict[str, int]:
        """Name (with /) -> bytes of every file that is whole here; a link to nothing is not."""
        return {name: status.st_size for name, status in self.entries().items()}

    def entries(self) -> dict[str, os.stat_result]:
        """As `files`, with all that the system knows of them."""
        return dict(_walk(self.folder, ""))


class HubCache:
    """A folder of models--* folders; it need not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def repo_folder(self, repo: str) -> Path:
        """Where `owner/repo` lives."""
        return Path(self._folder(repo))

    def _folder(self, repo: str) -> str:
        """As `repo_folder`, as text: making paths takes most of the time of a list of hundreds of models."""
        return f"{self.root}{os.sep}models--{repo.replace('/', '--')}"

    def repos(self) -> list[str]:
        """owner/repo of every model repository here, sorted."""
        try:
            entries = list(os.scandir(self.root))
        except OSError:
            return []
        return sorted(e.name[8:].replace("--", "/") for e in entries if e.name.startswith("models--") and e.is_dir())

    def snapshots(self, repo: str, revision: str = "") -> list[Snapshot]:
        """The commits of `repo` that are here: all, the branch's own first, then newest; or those `revision` means."""
        try:
            entries = [e for e in os.scandir(f"{self._folder(repo)}/snapshots") if e.is_dir()]
        except OSError:
            return []
        if len(entries) < 2 and not revision:
            return [Snapshot(repo, e.name, e.path) for e in entries]
        current = self.ref(repo, revision or "main")
        if revision:
            entries = [e for e in entries if e.name == current or (len(revision) >= 7 and e.name.startswith(revision))]
        entries.sort(key=lambda e: (e.name != current, -e.stat().st_mtime))
        return [Snapshot(repo, e.name, e.path) for e in entries]

    def blob(self, repo: str, digest: str) -> Path:
        """Where bytes with `digest` are or would be."""
        return self.repo_folder(repo) / "blobs" / digest

    def blobs_by_identity(self, repo: str) -> dict[tuple[int, int], Path]:
        """(device, inode) -> blob, for names in snapshots that are no links because the system has none to give."""
        found = {}
        with contextlib.suppress(OSError):
            for path in (self.repo_folder(repo) / "blobs").iterdir():
                status = path.stat()
                if status.st_ino:  # some network shares have none
                    found[status.st_dev, status.st_ino] = path
        return found

    def lock(self, repo: str, digest: str) -> Path:
        """The lock that huggingface_hub takes for the same blob."""
        return self.root / ".locks" / self.repo_folder(repo).name / f"{digest}.lock"

    def pointer(self, repo: str, commit: str, name: str) -> Path:
        """Where `name` of `commit` is or would be."""
        return self.repo_folder(repo).joinpath("snapshots", commit, *name.split("/"))

    def ref(self, repo: str, branch: str) -> str:
        """The commit that `branch` stood at, or an empty string."""
        try:
            with open(f"{self._folder(repo)}/refs/{branch}", encoding="utf-8") as file:  # pathlib is slow for hundreds
                return file.read().strip()
        except (OSError, UnicodeDecodeError):
            return ""


def bytes_of(path: Path) -> Path:
    """The file that holds a model's bytes: where a link leads, or in a cache without links the blob that it equals."""
    real = path.resolve()
    for parent in real.parents:
        if parent.parent.name == "snapshots" and (blobs := parent.parent.parent / "blobs").is_dir():
            cache = HubCache(blobs.parent.parent)
            status = real.stat()
            repo = blobs.parent.name.removeprefix("models--").replace("--", "/")
            return cache.blobs_by_identity(repo).get((status.st_dev, status.st_ino), real)
    return real


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    for entry in os.scandir(folder):
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, name + "/")
        else:
            try:
                status = entry.stat()
            except OSError:  # a link whose blob is gone
                continue
            if stat.S_ISREG(status.st_mode):
                yield name, status if status.st_ino else os.stat(entry.path)  # noqa: PTH116 - Windows leaves it out

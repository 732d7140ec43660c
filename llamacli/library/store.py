"""The standard Hub cache on this computer: what is in it, and taking things out of it.

Layout (huggingface_hub's, shared with transformers, hf and llama.cpp):

    models--owner--repo/blobs/<etag>                  the bytes; <etag> is the SHA-256 (LFS) or the git SHA-1
    models--owner--repo/snapshots/<commit>/<file>     a relative symlink to ../../blobs/<etag>, or the file itself
    models--owner--repo/refs/<branch>                 the commit a branch stood at
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Snapshot:
    """One commit of one repository, as far as it is here."""

    repo: str
    commit: str
    path: Path

    def files(self) -> dict[str, int]:
        """Name (with /) -> bytes of every file that is whole here; a link to nothing is not."""
        return {name: size for name, size, _ in _walk(self.path, "")}


class HubCache:
    """A folder of models--* folders; it need not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def repo_folder(self, repo: str) -> Path:
        """Where `owner/repo` lives."""
        return self.root / ("models--" + repo.replace("/", "--"))

    def repos(self) -> list[str]:
        """owner/repo of every model repository here, sorted."""
        try:
            entries = list(os.scandir(self.root))
        except OSError:
            return []
        return sorted(e.name[8:].replace("--", "/") for e in entries if e.name.startswith("models--") and e.is_dir())

    def snapshots(self, repo: str, revision: str = "") -> list[Snapshot]:
        """The commits of `repo` that are here: all, the branch's own first, then newest; or those `revision` means."""
        folder = self.repo_folder(repo)
        try:
            entries = [e for e in os.scandir(folder / "snapshots") if e.is_dir()]
        except OSError:
            return []
        current = self.ref(repo, revision or "main")
        if revision:
            entries = [e for e in entries if e.name == current or (len(revision) >= 7 and e.name.startswith(revision))]
        entries.sort(key=lambda e: (e.name != current, -e.stat().st_mtime))
        return [Snapshot(repo, e.name, Path(e.path)) for e in entries]

    def blob(self, repo: str, digest: str) -> Path:
        """Where bytes with `digest` are or would be."""
        return self.repo_folder(repo) / "blobs" / digest

    def lock(self, repo: str, digest: str) -> Path:
        """The lock that huggingface_hub takes for the same blob."""
        return self.root / ".locks" / self.repo_folder(repo).name / f"{digest}.lock"

    def pointer(self, repo: str, commit: str, name: str) -> Path:
        """Where `name` of `commit` is or would be."""
        return self.repo_folder(repo).joinpath("snapshots", commit, *name.split("/"))

    def ref(self, repo: str, branch: str) -> str:
        """The commit that `branch` stood at, or an empty string."""
        try:
            return (self.repo_folder(repo) / "refs" / branch).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""


def _walk(folder: Path | str, prefix: str) -> Iterator[tuple[str, int, os.DirEntry[str]]]:
    for entry in os.scandir(folder):
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, name + "/")
        else:
            try:
                size = entry.stat().st_size
            except OSError:  # a link whose blob is gone
                continue
            if entry.is_file():
                yield name, size, entry

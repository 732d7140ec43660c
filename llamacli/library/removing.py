"""Taking models out of the Hub cache: first the whole plan, then the deed.

A blob goes only when no name in any snapshot of its repository points at it any more. Other tools' stores are never touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llamacli.errors import CannotWrite, NotFound, UsageError
from llamacli.library.lock import only_one
from llamacli.library.names import ModelName
from llamacli.library.store import HubCache, Snapshot
from llamacli.library.variants import matching, variants


@dataclass(frozen=True)
class Removal:
    """What goes and what stays."""

    repo: str
    pointers: tuple[Path, ...]
    """Names in snapshots."""
    blobs: tuple[Path, ...]
    """Files that nothing else points at, unfinished downloads included."""
    kept: tuple[Path, ...]
    """Blobs that another name still needs."""
    freed: int
    """Bytes on disk."""
    whole: bool
    """Whether nothing of the repository stays."""


def plan_removal(cache: HubCache, name: ModelName) -> Removal:
    """What removing `name` (a repository, a quantization or file of it, at one revision or all) would do.

    Raises NotFound if none of it is here, UsageError for a name that is not of the Hub.
    """
    if name.kind != "hub":
        raise UsageError(f"{name} is not in the Hub cache", "llamacli rm removes what llamacli download brought")
    snapshots = cache.snapshots(name.name, name.revision)
    everything = not name.selector and not name.revision
    parts = _parts(cache.repo_folder(name.name)) if everything else []
    chosen = {p for s in snapshots for p in _chosen(s, name)}
    if not chosen and not parts and not (everything and cache.repo_folder(name.name).is_dir()):
        raise NotFound(f"{name} is not on this computer", "see: llamacli list")
    others = {p for s in cache.snapshots(name.name) for p in _files(s.path)} - chosen
    same = cache.blobs_by_identity(name.name)
    needed = {_target(p, same) for p in others}
    targets = {_target(p, same) for p in chosen}
    blobs = sorted({t for t in targets - needed if t not in chosen and t.exists()} | set(parts))
    return Removal(
        repo=name.name,
        pointers=tuple(sorted(chosen)),
        blobs=tuple(blobs),
        kept=tuple(sorted(targets & needed)),
        freed=_freed({*blobs, *chosen}),
        whole=not others and (everything or not _parts(cache.repo_folder(name.name))),
    )


def removal_of_made(path: Path, repo: str) -> Removal:
    """For a file that was made from `repo` and lies outside the cache."""
    return Removal(repo=repo, pointers=(path,), blobs=(), kept=(), freed=_freed([path]), whole=False)


def carry_out(cache: HubCache, removal: Removal) -> None:
    """Do it. Raises CannotWrite if another process is downloading one of the blobs, or the system refuses."""
    folder = cache.repo_folder(removal.repo)
    try:
        for pointer in removal.pointers:
            pointer.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                pointer.parent.rmdir()  # if it was the last one there
        for blob in removal.blobs:
            digest = blob.name.partition(".")[0]
            with only_one(cache.lock(removal.repo, digest), partial(_busy, removal.repo)):
                blob.unlink(missing_ok=True)
        _sweep(cache, folder, removal)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        hint = "" if error.errno == errno.EROFS else "is it in use?"
        raise CannotWrite(f"cannot remove {error.filename or folder}: {reason}", hint) from None


def _busy(repo: str) -> None:
    raise CannotWrite(f"{repo} is being downloaded by another process", "wait for it, or stop it first")


def _sweep(cache: HubCache, folder: Path, removal: Removal) -> None:
    """Empty folders, branches that point at nothing, and the repository itself when nothing is left."""
    if removal.whole:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(cache.root / ".locks" / folder.name, ignore_errors=True)
        return
    for snapshot in cache.snapshots(removal.repo):
        for path, _, _ in os.walk(snapshot.path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106
    commits = {s.commit for s in cache.snapshots(removal.repo)}
    for ref in _files(folder / "refs"):
        if cache.ref(removal.repo, ref.relative_to(folder / "refs").as_posix()) not in commits:
            ref.unlink()


def _chosen(snapshot: Snapshot, name: ModelName) -> Iterable[Path]:
    """The files of `snapshot` that `name` means; all of them without a selector."""
    files = {p.relative_to(snapshot.path).as_posix(): p for p in _files(snapshot.path)}
    if not name.selector:
        return files.values()
    if name.selector in files and not name.selector.lower().endswith(".gguf"):
        return [files[name.selector]]
    try:
        found = matching(name.selector, variants(files), name.name)
    except NotFound:
        return [files[name.selector]] if name.selector in files else []
    return [files[file] for variant in found for file in variant.files]


def _files(folder: Path) -> list[Path]:
    """Files and links below `folder`, broken ones too."""
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]


def _target(pointer: Path, same: Mapping[tuple[int, int], Path]) -> Path:
    """The blob a name points at, one step away: a blob may itself be a link into a store that others share.

    Without links a name is the blob under a second name (`same` tells which), or the file itself.
    """
    if pointer.is_symlink():
        return Path(os.path.normpath(pointer.parent / pointer.readlink()))
    status = pointer.stat()
    return same.get((status.st_dev, status.st_ino), pointer)


def _parts(folder: Path) -> list[Path]:
    return [p for p in _files(folder / "blobs") if ".llamacli-part" in p.name or p.name.endswith(".incomplete")]


def _freed(paths: Iterable[Path]) -> int:
    """Bytes that deleting `paths` gives back: of hard links only when the last one goes."""
    links: dict[tuple[int, int], list[os.stat_result]] = defaultdict(list)
    for path in paths:
        if not path.is_symlink():
            status = path.stat()
            links[status.st_dev, status.st_ino].append(status)
    return sum(group[0].st_size for group in links.values() if len(group) >= group[0].st_nlink)

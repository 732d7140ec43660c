"""Putting verified files into the Hub cache, so that every program that shares it finds them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from llamacli.errors import CannotWrite
from llamacli.formats.durable import replace, write_whole
from llamacli.library.part import cannot_write
from llamacli.library.store import HubCache

TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder can be made again by downloading; backups may leave it out (https://bford.info/cachedir/).\n"
)


def make_repo_folders(cache: HubCache, repo: str) -> None:
    """The cache's and the repository's folders. Raises CannotWrite."""
    try:
        cache.root.mkdir(parents=True, exist_ok=True)
        tag = cache.root / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(TAG, encoding="utf-8")
        cache.repo_folder(repo).mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(cache.root / "x", error) from None
    make_inside(cache.repo_folder(repo), Path("blobs"))


def make_inside(root: Path, relative: Path) -> None:
    """Folders below `root`, none of them a symbolic link that somebody planted. Raises CannotWrite."""
    folder = root
    for part in relative.parts:
        folder = folder / part
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(folder / "x", error) from None
        if folder.is_symlink():
            raise CannotWrite(
                f"{folder} is a symbolic link where a folder should be", "somebody put it there; remove it"
            )


def link(cache: HubCache, repo: str, commit: str, name: str, digest: str) -> Path:
    """Make `name` of `commit` point at the blob; the path to use. Raises CannotWrite.

    A relative symbolic link; where the system has none, a hard link; where there is none either, the blob moves there.
    """
    blob, pointer = cache.blob(repo, digest), cache.pointer(repo, commit, name)
    repo_folder = cache.repo_folder(repo)
    if _same(pointer, blob):
        return pointer
    make_inside(repo_folder, pointer.parent.relative_to(repo_folder))
    temporary = pointer.with_name(f".{secrets.token_hex(6)}.new")
    try:
        _point(temporary, blob, pointer)
        replace(temporary, pointer)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise cannot_write(pointer, error) from None
    return pointer


def _same(pointer: Path, blob: Path) -> bool:
    try:
        return pointer.samefile(blob)
    except OSError:
        return False


def _point(temporary: Path, blob: Path, pointer: Path) -> None:
    try:
        temporary.symlink_to(os.path.relpath(blob, pointer.parent))
        return
    except (OSError, NotImplementedError, ValueError):
        pass
    try:
        temporary.hardlink_to(blob)
    except (OSError, NotImplementedError):
        replace(blob, temporary)


def set_ref(cache: HubCache, repo: str, revision: str, commit: str) -> None:
    """Remember where the branch or tag `revision` stands; a commit needs no such note. Raises CannotWrite."""
    if re.fullmatch(r"[0-9a-f]{40}", revision) or cache.ref(repo, revision) == commit:
        return
    repo_folder = cache.repo_folder(repo)
    path = repo_folder / "refs" / revision
    make_inside(repo_folder, path.parent.relative_to(repo_folder))
    try:
        write_whole(path, commit)
    except OSError as error:
        raise cannot_write(path, error) from None

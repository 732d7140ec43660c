"""`llamacli df`, `dedupe` and the FITS column: what is here, what is here twice, what fits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Result

from llamacli.cli.commands import list as list_module
from llamacli.library.fetch import PART
from llamacli.library.part import VERSION, map_of
from llamacli.runtime.memory import Memory

Invoke = Callable[..., Result]


@pytest.fixture
def twice(tmp_path: Path, converted: Callable[..., Path]) -> tuple[Path, Path]:
    """The same real model in the Hub cache and in Ollama's store, over the size below which nobody looks."""
    content = converted("tinystories-chat-2m", "BF16").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    blob = tmp_path / "hf" / "hub" / "models--a--M-GGUF" / "blobs" / digest
    pointer = blob.parent.parent / "snapshots" / ("b" * 40) / "M-BF16.gguf"
    ollama = tmp_path / ".ollama" / "models"
    other = ollama / "blobs" / f"sha256-{digest}"
    for path in (blob, other):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    pointer.parent.mkdir(parents=True)
    pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    manifest = ollama / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": len(content)}
    manifest.write_text(json.dumps({"layers": [layer]}))
    return blob, other


def test_what_is_here_twice_is_found_and_linked_only_when_asked(invoke: Invoke, twice: tuple[Path, Path]) -> None:
    blob, other = twice
    size, content = blob.stat().st_size, blob.read_bytes()
    data = invoke("df", "--json").json
    assert data["stores"] == {"hf": size, "ollama": size}
    assert [d["wasted"] for d in data["duplicates"]] == [size]
    shown = invoke("dedupe")
    assert shown.code == 0 and str(other) in shown.out and "dedupe --apply" in shown.err
    assert blob.stat().st_ino != other.stat().st_ino
    assert invoke("dedupe", "--apply").code == 0
    assert blob.read_bytes() == other.read_bytes() == content
    assert {m["name"] for m in invoke("list", "--all", "--json").json} >= {"a/M-GGUF:BF16"}
    if blob.stat().st_ino == other.stat().st_ino:  # a hard link; a clone keeps its inode
        assert not invoke("df", "--json").json["duplicates"]
    assert not [p for p in other.parent.iterdir() if p.name.endswith(".new")]


def test_a_damaged_copy_with_the_right_name_is_not_linked(invoke: Invoke, twice: tuple[Path, Path]) -> None:
    blob, other = twice
    damaged = bytearray(other.read_bytes())
    damaged[-1] ^= 1
    other.write_bytes(damaged)
    assert invoke("dedupe", "--apply").code == 9
    assert other.read_bytes() == damaged and blob.stat().st_ino != other.stat().st_ino


def test_files_without_a_telling_name_are_hashed_once(
    invoke: Invoke, tmp_path: Path, converted: Callable[..., Path]
) -> None:
    content = converted("tinystories-chat-2m", "BF16").read_bytes()
    for name in ("one", "two", "three"):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content if name != "three" else content[:-1] + b"\x01")
        assert invoke("alias", name, path).code == 0
    (found,) = invoke("dedupe", "--json").json
    assert [Path(f["path"]).stem for f in found["files"]] == ["one", "two"]
    assert (tmp_path / "home" / "cache" / "digests.json").is_file()


def test_the_list_says_what_fits(invoke: Invoke, twice: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for free, answer in ((1 << 40, True), (1 << 20, False), (0, None)):
        monkeypatch.setattr(list_module, "memory", lambda free=free: Memory(free, free))
        assert [m["fits"] for m in invoke("list", "--json").json] == [answer]


def test_nothing_twice_is_no_table(invoke: Invoke) -> None:
    shown = invoke("dedupe")
    assert (shown.code, shown.out) == (0, "") and "nothing is here twice" in shown.err
    assert invoke("df").out == ""


def test_unfinished_downloads_take_room_too(invoke: Invoke, tmp_path: Path) -> None:
    blobs = tmp_path / "hf" / "hub" / "models--a--B" / "blobs"
    blobs.mkdir(parents=True)
    path, digest = blobs / ("0" * 64 + PART), "0" * 64
    path.write_bytes(b"x" * 2_000_000)
    state = {
        "version": VERSION,
        "digest": digest,
        "size": 5_000_000,
        "done": [[0, 2_000_000]],
        "host": "",
        "validator": "",
    }
    map_of(path).write_text(json.dumps(state))
    assert invoke("df", "--json").json["unfinished"] == 2_000_000
    shown = invoke("df")
    assert shown.out == "" and "2.0 MB of unfinished downloads" in shown.err and "no models" not in shown.err

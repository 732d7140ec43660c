"""Quantizing straight from the Hub: the local result, nothing else on the disk, and what breaks on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_hub import HubFile, LocalHub, local_hub
from support import MODELS, Result

Invoke = Callable[..., Result]
REPO = "maker/tinystories-chat-2m"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with local_hub() as hub:
        folder = MODELS["tinystories-chat-2m"]
        files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        hub.add(REPO, {name: HubFile(data, name.endswith(".safetensors")) for name, data in files.items()})
        yield hub


@pytest.fixture
def llamacli(invoke: Invoke, hub: LocalHub) -> Invoke:
    def run(*arguments: object, **env: str) -> Result:
        return invoke(*arguments, env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **env})

    return run


@pytest.fixture
def local(invoke: Invoke, tmp_path: Path) -> bytes:
    path = tmp_path / "local.gguf"
    result = invoke("quantize", MODELS["tinystories-chat-2m"], path, "-q", "Q8_0", "--kernel", "ggml")
    assert result.code == 0, result.err
    return path.read_bytes()


def quantize(llamacli: Invoke, *more: object) -> Result:
    return llamacli("quantize", REPO, "out.gguf", "-q", "Q8_0", "--kernel", "ggml", *more)


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(".out"))


def test_the_result_is_the_local_one_and_nothing_else_is_written(
    llamacli: Invoke, hub: LocalHub, local: bytes, tmp_path: Path
) -> None:
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    result = quantize(llamacli)
    assert result.code == 0, result.err
    out = tmp_path / "out.gguf"
    assert out.read_bytes() == local and result.out.strip() == str(out)
    assert {p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"} - before == {out}
    assert not any("authorization" in r.headers for r in hub.asked("cdn"))


def test_one_flipped_bit_is_refused_and_nothing_is_kept(llamacli: Invoke, hub: LocalHub, tmp_path: Path) -> None:
    size = len(hub.repos[REPO].files[WEIGHTS].content)
    hub.flip = {size - 1001}
    result = quantize(llamacli)
    assert result.code == 9 and "hash differs" in result.err, result.err
    assert not (tmp_path / "out.gguf").exists() and not leftovers(tmp_path)


def test_a_flipped_bit_in_a_small_file_is_refused(llamacli: Invoke, hub: LocalHub, tmp_path: Path) -> None:
    hub.flip = {40}
    assert quantize(llamacli).code == 9
    assert not (tmp_path / "out.gguf").exists()


def test_the_header_that_was_read_first_must_be_the_one_that_passes_later(
    llamacli: Invoke, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamacli.library.checkpoint_stream import CheckpointStream

    begin = CheckpointStream.begin

    def tampered(self: CheckpointStream, *arguments: object) -> None:
        offset, data = self.shards[0].before[-1]
        self.shards[0].before[-1] = (offset, bytes([data[0] ^ 1]) + data[1:])
        begin(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CheckpointStream, "begin", tampered)
    result = quantize(llamacli)
    assert result.code == 9 and "changed while it was read" in result.err


def test_drops_and_busy_servers_are_outlived(llamacli: Invoke, hub: LocalHub, local: bytes, tmp_path: Path) -> None:
    drops = iter([1000, 5, 100_000, 0])
    hub.cut = lambda length: next(drops, None) if length > 200_000 else None
    hub.answers["cdn"].extend([(503, {"Retry-After": "0"}), (429, {"Retry-After": "0"})])
    assert quantize(llamacli).code == 0
    assert (tmp_path / "out.gguf").read_bytes() == local


def test_a_gated_repository_names_the_two_steps(llamacli: Invoke, hub: LocalHub) -> None:
    hub.repos[REPO].gated = True
    result = quantize(llamacli)
    assert result.code == 7 and "accept the licence" in result.err
    assert quantize(llamacli, "--force").code == 7
    assert llamacli("quantize", REPO, "out.gguf", HF_TOKEN=hub.token).code == 0
    assert not any("authorization" in r.headers for r in hub.asked("cdn"))


def test_a_snapshot_that_is_here_is_not_fetched_again(
    llamacli: Invoke, hub: LocalHub, local: bytes, tmp_path: Path
) -> None:
    assert llamacli("download", REPO, "--source", "safetensors").code == 0
    asked = len(hub.asked("cdn"))
    assert quantize(llamacli).code == 0 and len(hub.asked("cdn")) == asked
    assert (tmp_path / "out.gguf").read_bytes() == local
    assert quantize(llamacli, "--offline", "--force").code == 0


def test_a_plan_fetches_no_weights(llamacli: Invoke, hub: LocalHub, tmp_path: Path) -> None:
    hub.sent = 0
    result = quantize(llamacli, "--dry-run")
    weights = len(hub.repos[REPO].files[WEIGHTS].content)
    others = sum(len(f.content) for f in hub.repos[REPO].files.values()) - weights
    assert result.code == 0 and hub.sent < others + weights // 4
    assert not (tmp_path / "out.gguf").exists() and not leftovers(tmp_path)


def test_after_a_failure_only_what_is_missing_is_fetched(
    llamacli: Invoke, hub: LocalHub, local: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamacli.library import checkpoint_stream, resumable_hash
    from llamacli.quantize import run

    monkeypatch.setattr(checkpoint_stream, "PIECE", 1 << 16)
    monkeypatch.setattr(checkpoint_stream, "AHEAD", 1 << 18)
    monkeypatch.setattr(run, "BLOCK_WEIGHTS", 1 << 15)
    size = len(hub.repos[REPO].files[WEIGHTS].content)
    hub.sent, allowed = 0, size // 2
    hub.cut = lambda length: 0 if hub.sent > allowed else None
    hub.answers["cdn"].extend([(503, {"Retry-After": "0"})] * 2)
    monkeypatch.setattr(checkpoint_stream, "CONNECTIONS", 2)
    monkeypatch.setattr("llamacli.library.patience.Patience.wait", lambda *_: 0.0)
    assert quantize(llamacli).code == 7
    assert len(leftovers(tmp_path)) == 2, "the unfinished file and its journal stay"
    hub.calm()
    hub.sent = 0
    assert quantize(llamacli).code == 0
    assert (tmp_path / "out.gguf").read_bytes() == local and not leftovers(tmp_path)
    texts = sum(len(f.content) for f in hub.repos[REPO].files.values()) - size
    if resumable_hash.can_resume():
        assert hub.sent - texts < 0.75 * size


def test_another_plan_begins_anew(llamacli: Invoke, hub: LocalHub, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / ".out.gguf.0123456789abcdef.unfinished").write_bytes(b"old")
    (tmp_path / ".out.gguf.0123456789abcdef.journal").write_bytes(b"{}")
    assert quantize(llamacli).code == 0 and not leftovers(tmp_path)


def test_a_damaged_journal_is_as_good_as_none(llamacli: Invoke, hub: LocalHub, local: bytes, tmp_path: Path) -> None:
    from llamacli.quantize.resuming import Journal

    path = tmp_path / "out.gguf"
    for text in ("", "[]", '{"version": 1, "done": [[0, "x"]], "stream": {}}', '{"version": 9}'):
        (tmp_path / ".out.gguf.0123456789abcdef.journal").write_text(text)
        assert not Journal.of(path, "0123456789abcdef", fresh=False).done


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_killed_again_and_again_it_goes_on_where_it_stopped(hub: LocalHub, local: bytes, tmp_path: Path) -> None:
    content = hub.repos[REPO].files[WEIGHTS].content
    hub.rate = len(content) // 3
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    command = [
        sys.executable,
        "-m",
        "llamacli",
        "quantize",
        REPO,
        "out.gguf",
        "-q",
        "Q8_0",
        "--kernel",
        "ggml",
        "--quiet",
    ]
    for _ in range(3):
        before = hub.sent
        process = subprocess.Popen(command, env=env, cwd=tmp_path)
        deadline = time.monotonic() + 60
        while hub.sent < before + len(content) // 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out.gguf").exists()
    hub.rate = 0
    subprocess.run(command, env=env, cwd=tmp_path, check=True)
    assert (tmp_path / "out.gguf").read_bytes() == local
    assert not leftovers(tmp_path)

"""Quantizing straight from the Hub under torture, against a Hub on this machine.

    python benchmarks/hub_quantize.py FOLDER [--type Q4_K_M] [--kills 20] [--rate 100] [--kernel auto]

FOLDER is a checkpoint; `make_checkpoint.py --shards 4` makes one of any size. Without it the project's demo model is used.

    same       the result is the local one, byte for byte; the most disk that was used beyond it
    kills      kill -9 again and again: the same result, and how many bytes came twice
    flip       one wrong bit is refused, and nothing is left
    time       on a link of --rate MB/s: from the Hub, and a download followed by quantizing
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "demo" / "tinystories-chat-2m"
sys.path.insert(0, str(ROOT / "tests" / "library"))

from local_hub import HubFile, Link, LocalHub, local_hub  # noqa: E402

MB = 1_000_000
SPARE = 64 * MB
TEXTS = 10 * MB
"""About what a tokenizer has."""


@dataclass
class Scene:
    """What all scenes share."""

    hub: LocalHub
    folder: Path
    source: Path
    options: argparse.Namespace

    @property
    def repo(self) -> str:
        return f"maker/{self.source.name}"

    @property
    def read(self) -> int:
        """Bytes of the weights."""
        return sum(len(f.content) for n, f in self.hub.repos[self.repo].files.items() if n.endswith(".safetensors"))

    def command(self, source: object, target: Path) -> list[str]:
        kind, kernel = self.options.type, self.options.kernel
        return [
            sys.executable, "-m", "llamacli", "quantize", str(source), str(target), "-q", kind, "--kernel", kernel,
            "--quiet",
        ]  # fmt: skip

    def start(self, source: object, target: Path) -> subprocess.Popen[str]:
        return self.popen(self.command(source, target))

    def popen(self, command: list[str]) -> subprocess.Popen[str]:
        env = {
            **os.environ,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "hf"),
            "LLAMACLI_HOME": str(self.folder / "home"),
            "HF_HUB_OFFLINE": "0",
        }
        return subprocess.Popen(
            command, env=env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, command: list[str]) -> float:
        began = time.monotonic()
        process = self.popen(command)
        _, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}\n{err}")
        return time.monotonic() - began


def served(path: Path) -> HubFile:
    """A file of the Hub; the bytes of weights stay on disk."""
    if path.suffix != ".safetensors":
        return HubFile(path.read_bytes(), lfs=False)
    with path.open("rb") as file:
        content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return HubFile(content)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _digest(path)


def _digest(path: Path) -> str:
    check = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            check.update(block)
    return check.hexdigest()


def used(folder: Path) -> int:
    """Bytes on disk of everything below `folder`."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue
    return total


def watched(folder: Path, work: Callable[[], None]) -> int:
    """The most bytes on disk below `folder` while `work` runs, beyond those at its start."""
    before, most, done = used(folder), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, used(folder) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return max(most, used(folder) - before)


def same(scene: Scene) -> bool:
    local, remote = scene.folder / "local.gguf", scene.folder / "remote.gguf"
    seconds = scene.run(scene.command(scene.source, local))
    took = 0.0

    def work() -> None:
        nonlocal took
        took = scene.run(scene.command(scene.repo, remote))

    most = watched(scene.folder, work)
    equal, size = digest(local) == digest(remote), remote.stat().st_size
    print(
        f"same:  {'equal' if equal else 'DIFFERENT'} ({size / MB:.0f} MB); from the Hub {took:.1f} s, local {seconds:.1f} s"
    )
    print(f"       disk at most {(most - size) / MB:+.1f} MB beyond the result (allowed {SPARE / MB:.0f})")
    remote.unlink()
    return equal and most <= size + SPARE


def kills(scene: Scene) -> bool:
    """The moments are spread over the bytes that come, so that each life of the process sees some of them."""
    target, chance = scene.folder / "killed.gguf", random.Random(1)
    scene.hub.link = Link(scene.options.rate * MB)
    scene.hub.sent, count, finished = 0, 0, False
    for _ in range(scene.options.kills):
        process = scene.start(scene.repo, target)
        goal = scene.hub.sent + chance.randrange(
            scene.read // (2 * scene.options.kills), scene.read // scene.options.kills
        )
        while scene.hub.sent < goal + TEXTS and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.random() * 0.3)
        finished = finished or process.poll() == 0
        process.kill()
        process.communicate()
        count += not finished
        if target.exists() and not finished:
            raise SystemExit("a name before its bytes")
    if not finished:
        scene.run(scene.command(scene.repo, target))
    equal = digest(target) == digest(scene.folder / "local.gguf")
    again = scene.hub.sent - scene.read
    print(f"kills: {count} kill -9, then {'equal' if equal else 'DIFFERENT'}; {scene.hub.sent / MB:.0f} MB came for")
    print(
        f"       {scene.read / MB:.0f} MB of weights: {again / MB / max(1, count):.1f} MB more for each kill, texts included"
    )
    target.unlink()
    return equal


def flip(scene: Scene) -> bool:
    target, refused = scene.folder / "flipped.gguf", 0
    scene.hub.rate = 0
    shards = [f.content for n, f in scene.hub.repos[scene.repo].files.items() if n.endswith(".safetensors")]
    scene.hub.flip = {random.Random(2).randrange(len(min(shards, key=len)))}
    process = scene.start(scene.repo, target)
    _, err = process.communicate()
    left = [p.name for p in scene.folder.glob(".flipped*")]
    refused = process.returncode == 9 and not target.exists() and not left
    print(f"flip:  one bit: exit {process.returncode}, {err.strip().splitlines()[-2:]}; left: {left or 'nothing'}")
    return bool(refused)


def used_by_children() -> float:
    """Seconds of processor time."""
    used = os.times()
    return used.children_user + used.children_system


def timing(scene: Scene) -> bool:
    hub, options = scene.hub, scene.options
    scene.run(scene.command(DEMO, scene.folder / "small.gguf"))  # compiles the kernels, once for a machine
    hub.link = Link(options.rate * MB)
    busy, served = used_by_children(), time.process_time()
    straight = scene.run(scene.command(scene.repo, scene.folder / "straight.gguf"))
    busy, served = used_by_children() - busy, time.process_time() - served
    began = time.monotonic()
    scene.run([sys.executable, "-m", "llamacli", "download", scene.repo, "--source", "safetensors", "--quiet"])
    fetched = time.monotonic() - began
    scene.run([*scene.command(scene.repo, scene.folder / "after.gguf"), "--offline"])
    both = time.monotonic() - began
    print(
        f"time:  at {options.rate} MB/s from the Hub {straight:.1f} s; download {fetched:.1f} s, then quantize: {both:.1f} s"
    )
    print(f"       {scene.read / MB / options.rate:.1f} s is what the link alone takes; from the Hub the processors")
    print(f"       were busy for {busy:.1f} s with us and {served:.1f} s with the test Hub")
    return straight < both


def main() -> None:
    scenes = {"same": same, "kills": kills, "flip": flip, "time": timing}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--scene", action="append", choices=[*scenes], help="default: all; `kills` needs `same` first")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=int, default=100, help="MB/s of the limited link")
    parser.add_argument("--tmp", type=Path, help="a folder on the disk to use")
    options = parser.parse_args()
    good = True
    folder = Path(tempfile.mkdtemp(prefix="hub-quantize-", dir=options.tmp))
    try:
        with local_hub() as hub:
            source = options.source.resolve()
            repo = f"maker/{source.name}"
            hub.add(repo, {p.name: served(p) for p in sorted(source.iterdir()) if p.is_file()})
            wanted = options.scene or list(scenes)
            for name in dict.fromkeys([*(["same"] if "kills" in wanted else []), *wanted]):
                hub.calm()
                began = time.monotonic()
                good = scenes[name](Scene(hub, folder, source, options)) and good
                print(f"       {time.monotonic() - began:.0f} s", flush=True)
    finally:
        shutil.rmtree(folder)
    sys.exit(not good)


if __name__ == "__main__":
    main()

"""Downloads under torture: drops, kill -9, flipped bits, many processes; against a Hub on this machine.

    python benchmarks/download_torture.py            everything, a few minutes
    python benchmarks/download_torture.py drops --size 200
    python benchmarks/download_torture.py flips --count 100
    python benchmarks/download_torture.py crowd --rounds 50
    python benchmarks/download_torture.py speed --size 1000

Each scene prints what was asked for and what came out, and ends the program with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "library"))

from local_hub import LocalHub, local_hub, noise  # noqa: E402

from llamacli.cli.app import invoke  # noqa: E402
from llamacli.cli.console import Console  # noqa: E402
from llamacli.cli.context import Context  # noqa: E402

MB = 1_000_000
FILE = "Model-Q4_K_M.gguf"


def environment(hub: LocalHub, folder: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "LLAMACLI_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "0",
    }


def start(hub: LocalHub, folder: Path, repo: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "llamacli", "download", f"{repo}:Q4_K_M", "-q"]
    return subprocess.Popen(
        command,
        env={**os.environ, **environment(hub, folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def named(folder: Path) -> list[Path]:
    return list(folder.rglob("*.gguf"))


def wait_until(condition: object, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.002)


def drops(hub: LocalHub, folder: Path, options: argparse.Namespace) -> bool:
    """One file, many cut connections and killed processes; how much was fetched twice?"""
    size, chance = options.size * MB, random.Random(1)
    content = noise(size, 1)
    hub.add("t/Drops", {FILE: content})
    hub.rate = 40 * MB // 8
    left = options.drops

    def cut(length: int) -> int | None:
        nonlocal left
        if left and length > 100_000 and chance.random() < 0.5:
            left -= 1
            return chance.randrange(length)
        return None

    hub.cut, hub.sent = cut, 0
    for number in range(options.kills):
        process = start(hub, folder, "t/Drops")
        goal = hub.sent + chance.randrange(size // (2 * options.kills), size // options.kills)
        wait_until(lambda p=process, g=goal: hub.sent >= g or p.poll() is not None)
        process.kill()
        process.communicate()
        assert not named(folder) or process.returncode == 0, f"a name before its bytes, after kill {number}"
    process = start(hub, folder, "t/Drops")
    out, err = process.communicate(timeout=600)
    good = process.returncode == 0 and Path(out.strip()).read_bytes() == content
    again = hub.sent - size
    allowed = size // 100 + (options.drops - left + options.kills) * (8 << 20)
    print(
        f"drops: {options.size} MB, {options.drops - left} drops, {options.kills} kill -9: {'right' if good else err}"
    )
    print(f"       sent twice {again / MB:.1f} MB ({100 * again / size:.1f} %), allowed {allowed / MB:.0f} MB")
    return good and again <= allowed


def flips(hub: LocalHub, folder: Path, options: argparse.Namespace) -> bool:
    """Right size, one wrong bit, at random places."""
    chance, refused = random.Random(2), 0
    for number in range(options.count):
        repo = f"t/Flip{number}"
        hub.add(repo, {FILE: noise(MB, number)})
        hub.flip = {chance.randrange(MB)}
        env = environment(hub, folder)
        console = Console(io.StringIO(), io.StringIO(), env)
        refused += invoke(["download", f"{repo}:Q4_K_M"], Context(console=console, env=env)) == 9
    print(f"flips: {refused} of {options.count} flipped bits refused; {len(named(folder))} files have a name")
    return refused == options.count and not named(folder)


def crowd(hub: LocalHub, folder: Path, options: argparse.Namespace) -> bool:
    """Several processes want the same model; in every fifth round the one that downloads is killed."""
    size, good, twice = 10 * MB, 0, 0
    for number in range(options.rounds):
        hub.calm()
        hub.repos.clear()
        hub.add("t/Crowd", {FILE: noise(size, number)})
        hub.rate, hub.sent = 5 * MB, 0
        crowd = [start(hub, folder, "t/Crowd") for _ in range(options.processes)]
        victim = None
        if number % 5 == 4:
            wait_until(lambda: hub.sent > size // 3, 30)
            victim = holder(folder, crowd)
            if victim:
                victim.kill()
        hub.rate = 0
        results = [(p, *p.communicate(timeout=120)) for p in crowd]
        survivors = [(p, out, err) for p, out, err in results if p is not victim]
        right = all(p.returncode == 0 for p, _, _ in survivors) and len({out for _, out, _ in survivors}) == 1
        blobs = [p for p in folder.rglob("blobs/*") if p.is_file()]
        right = right and len(blobs) == 1 and blobs[0].read_bytes() == noise(size, number)
        good += right
        twice += hub.sent - size
        if not right:
            print([(p.returncode, err) for p, _, err in results], blobs)
        shutil.rmtree(folder / "hf")
    print(
        f"crowd: {good} of {options.rounds} rounds of {options.processes} processes right; sent twice {twice / MB:.1f} MB"
    )
    return good == options.rounds


def holder(folder: Path, crowd: list[subprocess.Popen[str]]) -> subprocess.Popen[str] | None:
    """The process that has the unfinished file open (Linux tells)."""
    for process in crowd:
        try:
            files = [f.readlink().name for f in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if any(name.endswith(".llamacli-part") for name in files):
            return process
    return None


def speed(hub: LocalHub, folder: Path, options: argparse.Namespace) -> bool:
    """Wall and processor time for one large file, beside curl."""
    hub.add("t/Speed", {FILE: noise(10 * MB) * (options.size // 10)})
    for name, command in {
        "llamacli": [sys.executable, "-m", "llamacli", "download", "t/Speed:Q4_K_M", "-q"],
        "curl": ["curl", "-sLo", str(folder / "curl.out"), f"{hub.url}/t/Speed/resolve/main/{FILE}"],
    }.items():
        if shutil.which(command[0]) is None:
            continue
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env={**os.environ, **environment(hub, folder)}, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        wall = time.monotonic() - began
        print(
            f"speed: {name:8} {options.size} MB in {wall:.1f} s = {options.size / wall:.0f} MB/s, {busy:.1f} s of processor"
        )
    return True


def main() -> None:
    scenes = {"drops": drops, "flips": flips, "crowd": crowd, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", nargs="*", choices=[*scenes, []], help="default: all")
    parser.add_argument("--size", type=int, default=200, help="MB")
    parser.add_argument("--drops", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    good = True
    for scene in options.scene or scenes:
        with local_hub() as hub, tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            good = scenes[scene](hub, Path(folder), options) and good
            print(f"       {time.monotonic() - began:.0f} s")
    sys.exit(not good)


if __name__ == "__main__":
    main()

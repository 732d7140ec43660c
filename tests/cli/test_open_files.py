"""No file is renamed, replaced or removed while this program has it open or mapped: Windows refuses that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import MODELS

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what a process has open")

WATCHED = """
import os, sys, traceback

def opened():
    for number in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass
    with open("/proc/self/maps", errors="replace") as maps:
        yield from (line.rstrip("\\n").partition("/")[2].join(("/", "")) for line in maps if "/" in line)

def watch(event, arguments):
    if event not in ("os.rename", "os.remove"):
        return
    names = [os.fsdecode(a) for a in arguments[:1 + (event == "os.rename")]]
    folder = arguments[-1] if isinstance(arguments[-1], int) and arguments[-1] >= 0 else None
    here = f"/proc/self/fd/{folder}" if folder is not None else "."
    real = {os.path.join(os.path.realpath(os.path.join(here, os.path.dirname(n))), os.path.basename(n)) for n in names}
    count["seen"] += 1
    if held := sorted(real.intersection(opened())):
        print("HELD", event, held, "".join(traceback.format_stack(limit=6)), file=sys.stderr)

count = {"seen": 0}
sys.addaudithook(watch)
from llamacli.cli.app import main
try:
    main()
finally:
    print("SEEN", count["seen"], file=sys.stderr)
"""


def watched(folder: Path, *arguments: str, stdin: bytes = b"") -> int:
    """Run a command; how many files it renamed or removed, none of them open."""
    own = {name: str(folder / name) for name in ("LLAMACLI_HOME", "HF_HOME")}
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **own,
    }
    command = [sys.executable, "-c", WATCHED, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, env=env, cwd=folder, check=False)
    said = done.stderr.decode()
    assert done.returncode == 0 and "HELD" not in said, said
    return int(said.rpartition("SEEN ")[2])


def test_the_watch_sees_what_is_open(tmp_path: Path) -> None:
    code = WATCHED.partition("from llamacli")[0] + "file = open('a', 'w'); os.rename('a', 'b')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, check=True, timeout=60)
    assert b"HELD os.rename" in done.stderr


def test_quantizing_over_a_file(tmp_path: Path) -> None:
    command = ("quantize", str(MODELS["stories260K-hf"]), "out.gguf", "-q", "Q8_0", "--kernel", "ggml", "--force")
    (tmp_path / "out.gguf").write_bytes(b"old")
    assert watched(tmp_path, *command) >= 1
    assert (tmp_path / "out.gguf").read_bytes()[:4] == b"GGUF"


def test_measuring_with_a_checkpoint_in_a_temporary_file(converted: Callable[..., Path], tmp_path: Path) -> None:
    model, source = str(converted("stories260K-hf", "Q8_0")), str(MODELS["stories260K-hf"])
    (tmp_path / "t.txt").write_text("Once upon a time there was a little girl. " * 20, encoding="utf-8")
    assert watched(tmp_path, "evaluate", model, "t.txt", "--against", source, "-c", "64", "--chunks", "2") >= 3
    assert watched(tmp_path, "imatrix", source, "t.txt", "-o", "m.gguf", "-c", "64", "--chunks", "1") >= 3


def test_prompts_that_are_kept(converted: Callable[..., Path], tmp_path: Path) -> None:
    model = str(converted("stories260K-hf", "Q8_0"))
    text = b"Once upon a time there was a little girl. " * 30
    for _ in range(2):
        watched(tmp_path, "run", "-m", model, "-n", "1", "--raw", "--allow-truncated", "-t", "1", stdin=text)
    assert list(tmp_path.glob("LLAMACLI_HOME/cache/**/*.kv"))
    assert watched(tmp_path, "cache", "clear") >= 1

"""From a checkpoint to a conversation on the model that ships with the project: what `make demo` shows.

Every line that begins with `$` is a command that you can type yourself.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKPOINT = "demo/tinystories-chat-2m"
MODEL = "demo-out/tinystories-chat-2m-Q4_K_M.gguf"

STEPS: tuple[tuple[str, list[str], str], ...] = (
    ("The plan: every tensor's type and the exact size, before anything is read",
     ["quantize", CHECKPOINT, "demo-out", "-q", "Q4_K_M", "--dry-run"], ""),
    ("One pass from the checkpoint to the quantized file", ["quantize", CHECKPOINT, "demo-out", "-q", "Q4_K_M", "--force"], ""),
    ("What it is, and whether it is whole", ["show", MODEL], ""),
    ("", ["verify", MODEL], ""),
    ("One prompt, one answer", ["run", "-m", MODEL, "--seed", "1", "Tell me a story about a dog."], ""),
    ("In a pipe", ["run", "-m", MODEL, "--seed", "3"], "Hello"),
    ("A chat", ["chat", MODEL, "--no-save", "--seed", "7"], "Hello\nTell me a story about a bird.\n/stats\n/exit\n"),
    ("How fast this machine runs it", ["bench", MODEL, "-p", "256", "-n", "64", "-r", "3"], ""),
)  # fmt: skip


def main() -> int:
    """Run the steps one after another; the first that fails ends the demo with its exit code."""
    (ROOT / "demo-out").mkdir(exist_ok=True)
    program = Path(sys.executable).with_name("llamacli")
    for title, arguments, typed in STEPS:
        if title:
            print(f"\n— {title}")
        shown = shlex.join(["llamacli", *arguments])
        print(f"$ {f'printf {typed!r} | {shown}' if typed else shown}", flush=True)
        started = time.perf_counter()
        done = subprocess.run(
            [str(program), *arguments], cwd=ROOT, input=typed, text=True, encoding="utf-8", check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            return done.returncode
        print(f"  ({time.perf_counter() - started:.1f} s)", flush=True)
    print(f"\nThe file is yours: {MODEL}. Talk to it: .venv/bin/llamacli chat {MODEL}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How long commands take to start, and how long `run` takes to its first token beside llama-completion.

    python benchmarks/start_up.py MODEL [--llama-completion CMD] [--rounds 10]

Wall and processor time of whole processes, in turn, medians. The first token is timed from outside: from the start of the
process to the first byte of the answer on its stdout.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def whole(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a process that ends by itself."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def first_byte(command: list[str], skip: int) -> float:
    """Seconds until byte number `skip` of stdout; the process is then ended."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.read(skip + 1)
        seconds = time.perf_counter() - started
        process.kill()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-completion")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    llamacli = str(Path(sys.executable).with_name("llamacli"))
    model = str(arguments.model)
    print("| command | wall, median | processor, median |\n|---|---|---|")
    for words in (["--version"], ["--help"], ["list"], ["show", model], ["verify", model]):
        times = [whole([llamacli, *words]) for _ in range(arguments.rounds)]
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"| `llamacli {' '.join(Path(w).name if w == model else w for w in words)}` | {wall:.3f} s | {cpu:.3f} s |"
        )
    prompt = "Once upon a time"
    ours = [llamacli, "run", "-m", model, "--raw", "--temp", "0", "-n", "32", "-p", prompt]
    print("\n| to the first byte of the answer | median | all |\n|---|---|---|")
    found: dict[str, list[float]] = {"llamacli run": []}
    peer = [
        arguments.llama_completion,
        "-m",
        model,
        "-no-cnv",
        "--no-display-prompt",
        "--temp",
        "0",
        "-n",
        "32",
        "-p",
        prompt,
    ]
    for _ in range(arguments.rounds):
        found["llamacli run"].append(first_byte(ours, 0))
        if arguments.llama_completion:
            found.setdefault("llama-completion", []).append(first_byte(peer, 0))
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.3f} s | {', '.join(f'{t:.3f}' for t in times)} |")


if __name__ == "__main__":
    main()

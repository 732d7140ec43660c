"""Our one pass against llama.cpp's two steps on the same checkpoint, in turn, several rounds.

    python benchmarks/quantize_vs_llama_cpp.py CHECKPOINT --convert CMD --llama-quantize CMD
        [--types Q4_K_M,Q6_K] [--kernel auto|ggml] [--rounds 3] [--threads 2] [--scratch FOLDER]

CMD are the peer's programs, built at the commit that the bindings run. Wall time and peak memory are the operating
system's for the whole process; bytes written are the sizes of all files left behind. The converter's step is timed once
per round and counted for every type, as a user who wants one type pays it. Prints a Markdown table of medians and the
ratio round by round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Run:
    """One finished process."""

    seconds: float
    peak_bytes: int
    cpu_seconds: float


def timed(command: list[str]) -> Run:
    """Run a command to its end; its output is thrown away."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit {process.returncode}: {' '.join(command)}")
    scale = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_maxrss * scale, usage.ru_utime + usage.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--convert", required=True)
    parser.add_argument("--llama-quantize", required=True)
    parser.add_argument("--types", default="Q4_K_M")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scratch", type=Path, default=None)
    arguments = parser.parse_args()
    llamacli = str(Path(sys.executable).with_name("llamacli"))
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        between, theirs, ours = (Path(scratch) / name for name in ("between.gguf", "theirs.gguf", "ours.gguf"))
        rows: dict[str, list[tuple[Run, Run, Run, int, int]]] = {kind: [] for kind in arguments.types.split(",")}
        warm = [llamacli, "quantize", str(arguments.checkpoint), str(ours), "-q", arguments.types.split(",")[0]]
        first = timed([*warm, "--kernel", arguments.kernel])
        print(f"first run of ours (page cache and kernel cache as they were): {first.seconds:.1f} s")
        for number in range(arguments.rounds):
            between.unlink(missing_ok=True)
            converting = timed(
                [arguments.convert, str(arguments.checkpoint), "--outtype", "bf16", "--outfile", str(between)]
            )
            for kind in rows:
                theirs.unlink(missing_ok=True)
                ours.unlink(missing_ok=True)
                peer = timed([arguments.llama_quantize, str(between), str(theirs), kind, str(arguments.threads)])
                mine = timed([
                    llamacli, "quantize", str(arguments.checkpoint), str(ours), "-q", kind, "--kernel", arguments.kernel,
                    "-t", str(arguments.threads),
                ])  # fmt: skip
                written = between.stat().st_size + theirs.stat().st_size
                rows[kind].append((converting, peer, mine, written, ours.stat().st_size))
                print(f"round {number + 1} {kind}: {converting.seconds:.1f} + {peer.seconds:.1f} s, ours {mine.seconds:.1f} s "
                      f"({mine.cpu_seconds:.1f} s of processor)", flush=True)  # fmt: skip
    print("\n| type | convert + llama-quantize | peak | written | ours | peak | written | ours / theirs (rounds) |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, found in rows.items():
        both = [c.seconds + q.seconds for c, q, *_ in found]
        mine = [m.seconds for _, _, m, *_ in found]
        ratios = [m / b for m, b in zip(mine, both, strict=True)]
        peak = max(max(c.peak_bytes, q.peak_bytes) for c, q, *_ in found)
        print(
            f"| {kind} | {statistics.median(both):.1f} s | {peak / 1e9:.2f} GB | {found[0][3] / 1e9:.2f} GB "
            f"| {statistics.median(mine):.1f} s | {max(m.peak_bytes for _, _, m, *_ in found) / 1e9:.2f} GB "
            f"| {found[0][4] / 1e9:.2f} GB | {statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)}) |"
        )


if __name__ == "__main__":
    main()

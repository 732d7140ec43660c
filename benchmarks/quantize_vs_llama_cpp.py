"""Our one pass against llama.cpp's two steps on the same checkpoint, in turn, several rounds.

    python benchmarks/quantize_vs_llama_cpp.py CHECKPOINT --convert CMD --llama-quantize CMD
        [--types Q4_K_M,Q6_K] [--imatrix FILE] [--kernel auto|ggml] [--rounds 3] [--threads 2] [--scratch FOLDER]
        [--keep FILE] [--page docs/quantizing.md] [--plot docs/quantizing-models.svg]

A type written as Q4_K_M+ is made with the importance matrix FILE, which both programs are given. CMD are the peer's
programs, built at the commit that the bindings run. Wall time and peak memory are the operating system's for the whole
process; bytes written are the sizes of all files left behind. The converter's step is timed once per round and counted
for every type, as a user who wants one type pays it. Prints a Markdown table of medians and the ratio round by round;
the last column compares processor time, which other work on the machine disturbs less. With --page the table replaces
the one between that page's marks `models`; with --keep, rounds are added to those in FILE and the table is of all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bars import Bars, bars_svg, put


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


Round = tuple[Run, Run, Run, int, int]
"""Converter, llama-quantize, ours; bytes that they and we wrote."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--convert", required=True)
    parser.add_argument("--llama-quantize", required=True)
    parser.add_argument("--types", default="Q4_K_M")
    parser.add_argument("--imatrix", default="")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    found = kept(arguments.keep)
    for kind, runs in rounds(arguments, warmed=set(found)).items():
        found.setdefault(kind, []).extend(runs)
    if arguments.keep:
        plain = {kind: [[*map(vars, runs[:3]), *runs[3:]] for runs in every] for kind, every in found.items()}
        arguments.keep.write_text(json.dumps(plain), encoding="utf-8")
    table = markdown(found)
    print(f"\n{table}")
    if arguments.page:
        put(arguments.page, "models", table)
    if arguments.plot:
        lines = [
            Bars(shown(kind), (median(m for _, _, m, *_ in runs), median(both(runs)))) for kind, runs in found.items()
        ]
        names = ("llamacli", "convert + llama-quantize")
        picture = bars_svg(lines, names, "A whole model", "seconds (logarithmic)")
        arguments.plot.write_text(picture, encoding="utf-8")


def kept(path: Path | None) -> dict[str, list[Round]]:
    """The rounds of earlier calls."""
    if path is None or not path.exists():
        return {}
    every = json.loads(path.read_text(encoding="utf-8"))
    return {
        kind: [(Run(**first), Run(**second), Run(**third), *written) for first, second, third, *written in runs]
        for kind, runs in every.items()
    }


def rounds(arguments: argparse.Namespace, *, warmed: set[str]) -> dict[str, list[Round]]:
    """All runs, by type; before them one of ours of each type that is not `warmed`."""
    llamacli = str(Path(sys.executable).with_name("llamacli"))
    kinds = arguments.types.split(",")
    found: dict[str, list[Round]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        between, theirs, ours = (Path(scratch) / name for name in ("between.gguf", "theirs.gguf", "ours.gguf"))

        def mine(kind: str) -> list[str]:
            ours.unlink(missing_ok=True)
            return [
                llamacli, "quantize", str(arguments.checkpoint), str(ours), "-q", kind.rstrip("+"),
                "--kernel", arguments.kernel, "-t", str(arguments.threads), *matrix(kind, arguments.imatrix),
            ]  # fmt: skip

        for kind in [kind for kind in kinds if kind not in warmed]:
            first = timed(mine(kind))
            print(f"first run of ours, {kind} (page cache and kernel cache as they were): {first.seconds:.1f} s")
        for number in range(arguments.rounds):
            between.unlink(missing_ok=True)
            converting = timed(
                [arguments.convert, str(arguments.checkpoint), "--outtype", "bf16", "--outfile", str(between)]
            )
            for kind in kinds:
                theirs.unlink(missing_ok=True)
                peer = timed([
                    arguments.llama_quantize, *matrix(kind, arguments.imatrix), str(between), str(theirs),
                    kind.rstrip("+"), str(arguments.threads),
                ])  # fmt: skip
                our = timed(mine(kind))
                written = between.stat().st_size + theirs.stat().st_size
                found[kind].append((converting, peer, our, written, ours.stat().st_size))
                print(f"round {number + 1} {kind}: {converting.seconds:.1f} + {peer.seconds:.1f} s, ours {our.seconds:.1f} s "
                      f"(of processor {converting.cpu_seconds:.1f} + {peer.cpu_seconds:.1f}, {our.cpu_seconds:.1f} s)",
                      flush=True)  # fmt: skip
    return found


def matrix(kind: str, path: str) -> list[str]:
    """What a type marked with + adds to either command."""
    return ["--imatrix", path] if kind.endswith("+") else []


def shown(kind: str) -> str:
    return f"{kind[:-1]}, matrix" if kind.endswith("+") else kind


def both(runs: list[Round]) -> list[float]:
    return [converting.seconds + peer.seconds for converting, peer, *_ in runs]


def median(values: Iterable[float | Run]) -> float:
    return statistics.median(value.seconds if isinstance(value, Run) else value for value in values)


def markdown(found: dict[str, list[Round]]) -> str:
    """The table of medians."""
    lines = [
        "| type | convert + llama-quantize | peak | written | ours | peak | written | ratio (rounds) | of processor time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, runs in found.items():
        ratios = [our.seconds / two for (_, _, our, *_), two in zip(runs, both(runs), strict=True)]
        busy = median(our.cpu_seconds / (one.cpu_seconds + two.cpu_seconds) for one, two, our, *_ in runs)
        peak = max(max(converting.peak_bytes, peer.peak_bytes) for converting, peer, *_ in runs)
        lines.append(
            f"| {shown(kind)} | {median(both(runs)):.1f} s | {peak / 1e9:.2f} GB | {runs[0][3] / 1e9:.2f} GB "
            f"| {median(our for _, _, our, *_ in runs):.1f} s | {max(our.peak_bytes for _, _, our, *_ in runs) / 1e9:.2f} GB "
            f"| {runs[0][4] / 1e9:.2f} GB | {statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)}) "
            f"| {busy:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

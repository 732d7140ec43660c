"""Our `bench` against llama-bench on the same file: alternating rounds, the median of the rounds' ratios.

    python benchmarks/run_vs_llama_bench.py MODEL.gguf --llama-bench PATH/llama-bench [--rounds 5] [-p 512] [-n 128]

Both run as fresh processes with the same settings; who goes first changes from round to round, so that drift (heat,
other programs) hits both. Exit 1 if a median ratio is below --least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

OURS, THEIRS = "llamacli", "llama-bench"


def main() -> int:
    """Run the rounds and print the table."""
    arguments = parse()
    settings = ["-p", arguments.prompt, "-n", arguments.generate, "-r", str(arguments.repetitions), "-o", "json"]
    settings += ["-t", str(arguments.threads)] if arguments.threads else []
    commands = {
        OURS: [sys.executable, "-m", "llamacli", "bench", "-m", arguments.model, *settings, "--quiet"],
        THEIRS: [arguments.llama_bench, "-m", arguments.model, *settings],
    }
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: {OURS: [], THEIRS: []})
    for number in range(arguments.rounds):
        order = [OURS, THEIRS] if number % 2 == 0 else [THEIRS, OURS]
        for who in order:
            for record in run(commands[who]):
                rates[test_name(record)][who].append(statistics.median(record["samples_ts"]))
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    ratios = show(rates)
    return 0 if all(ratio >= arguments.least for ratio in ratios) else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--llama-bench", required=True, help="the peer's program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-p", "--prompt", default="512")
    parser.add_argument("-n", "--generate", default="128")
    parser.add_argument("-r", "--repetitions", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=0)
    parser.add_argument("--least", type=float, default=0.0, help="smallest ratio that is good enough")
    found = parser.parse_args()
    found.model = str(Path(found.model).resolve())
    return found


def run(command: list[str]) -> list[dict[str, Any]]:
    """The JSON that a benchmark prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_name(record: dict[str, Any]) -> str:
    """The test of a record as llama-bench names it."""
    return f"pp{record['n_prompt']}" if record["n_prompt"] else f"tg{record['n_gen']}"


def show(rates: dict[str, dict[str, list[float]]]) -> list[float]:
    """Print one line per test; return the median ratios."""
    print(f"{'test':<8} {OURS + ' t/s':>14} {THEIRS + ' t/s':>16} {'ratio':>7}   of the rounds")
    medians = []
    for test, both in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(both[OURS], both[THEIRS], strict=True)]
        medians.append(statistics.median(ratios))
        ours, theirs = statistics.median(both[OURS]), statistics.median(both[THEIRS])
        spread = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{test:<8} {ours:>14.2f} {theirs:>16.2f} {medians[-1]:>7.3f}   {spread}")
    return medians


if __name__ == "__main__":
    sys.exit(main())

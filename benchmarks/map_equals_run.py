"""`map`'s rows decoded together against the same rows one by one, with --temp 0: what differs, and how much faster.

    python benchmarks/map_equals_run.py MODEL.gguf [--rows 1000] [-np 16] [-n 24] [-t 2] [--cache-type f16] [--processes 20]

Rows are stories begun in many ways behind a beginning that all share. A row that differs is looked at where it first
does: the difference of the two best logits there, in the single run, must be below --near (batched arithmetic differs
in the last bits). Exit 1 if it is not. Every row of the single run has a cache of its own, as `run` has; it is not a process
of its own, though: --processes times so many of those too, loading included.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.jobs import Job
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.parallel import Parallel

START = "Once upon a time there was a small town by the sea where everybody was kind. One day "
WORDS = ("Tom", "Lily", "a cat", "the dog", "a bird", "two balls", "the park", "happy", "sad", "little", "and", "saw")


def main() -> int:
    """Compare, and print what was found."""
    arguments = parse()
    settings = EngineSettings(
        threads=arguments.threads, cache_type_k=arguments.cache_type, cache_type_v=arguments.cache_type
    )
    with open_engine(arguments.model, settings) as engine:
        rows = [engine.tokens((Span(text, False),)) for text in texts(arguments.rows)]
        sampling = Sampling(temp=0, predict=arguments.predict)
        alone, took_alone = one_by_one(engine, rows, sampling)
        together, took_together = in_batches(engine, rows, sampling, arguments.slots, exact=False)
        exact, took_exact = in_batches(engine, rows, sampling, 1, exact=True)
        pairs = zip(rows, alone, together, strict=True)
        gaps = [gap(engine, row, one, other) for row, one, other in pairs if one != other]
    wrong = sum(one != other for one, other in zip(alone, exact, strict=True))
    print(f"{len(rows)} rows, {sum(map(len, alone))} tokens of answers, {arguments.slots} sequences")
    print(f"one by one {took_alone}; together {took_together}; with --exact {took_exact}")
    faster, less = took_alone.wall / took_together.wall, took_alone.processor / took_together.processor
    print(f"together is {faster:.2f} times as fast, {less:.2f} times by processor time")
    print(f"rows a second: {len(rows) / took_alone.wall:.1f} one by one, {len(rows) / took_together.wall:.1f} together")
    if arguments.processes:
        each = as_processes(arguments)
        ratio = each * len(rows) / took_together.wall
        print(f"as processes of their own {each:.2f} s a row: map is {ratio:.1f} times as fast")
    print(f"differ: {len(gaps)} rows ({100 * len(gaps) / len(rows):.1f} %), with --exact {wrong}")
    if gaps:
        print(
            f"where they part, the two best logits are at most {max(gaps):.4f} apart, median {statistics.median(gaps):.4f}"
        )
    return int(bool(wrong) or max(gaps, default=0.0) >= arguments.near)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("-np", "--slots", type=int, default=16)
    parser.add_argument("-n", "--predict", type=int, default=24)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--cache-type", default="f16")
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--near", type=float, default=0.25)
    return parser.parse_args()


def texts(count: int) -> list[str]:
    """The rows."""
    numbers = random.Random(8)
    return [START + " ".join(numbers.choice(WORDS) for _ in range(numbers.randrange(1, 12))) for _ in range(count)]


def as_processes(arguments: argparse.Namespace) -> float:
    """Seconds that a row takes as a `run` of its own."""
    settings = [
        "-m",
        str(arguments.model),
        "--raw",
        "--temp",
        "0",
        "-n",
        str(arguments.predict),
        "-t",
        str(arguments.threads),
    ]
    command = [sys.executable, "-m", "llamacli", "run", *settings, "--allow-truncated", "-q", "-p"]
    started = time.perf_counter()
    for text in texts(arguments.processes):
        subprocess.run([*command, text], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return (time.perf_counter() - started) / arguments.processes


Answers = list[tuple[int, ...]]


@dataclass
class Took:
    """Wall and processor seconds of a block."""

    wall: float = 0.0
    processor: float = 0.0

    def __enter__(self) -> Took:
        self.wall, self.processor = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wall += time.perf_counter()
        self.processor += time.process_time()

    def __str__(self) -> str:
        return f"{self.wall:.1f} s (processor {self.processor:.1f} s)"


def one_by_one(engine: LlamaEngine, rows: list[list[int]], sampling: Sampling) -> tuple[Answers, Took]:
    """Each row as `run` answers it."""
    answers = []
    with Took() as took:
        for row in rows:
            engine.forget()
            answers.append(tuple(piece.token for piece in engine.generate(row, sampling) if piece.token is not None))
    return answers, took


def in_batches(
    engine: LlamaEngine, rows: list[list[int]], sampling: Sampling, slots: int, *, exact: bool
) -> tuple[Answers, Took]:
    """The rows as `map` answers them."""
    with Took() as took, Parallel(engine, slots, exact=exact) as parallel:
        jobs = (Job(number, row, sampling) for number, row in enumerate(rows))
        found = {outcome.number: outcome.tokens for outcome in parallel.run(jobs)}
    return [found[number] for number in range(len(rows))], took


def gap(engine: LlamaEngine, row: list[int], one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """How far apart the two best logits were in the single run where the answers part."""
    place = next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
    engine.forget()
    first = engine.logits_after(row)
    for length in range(place):  # token by token, as the answer was made
        first = engine.logits_after([*row, *one[: length + 1]])
    best, second = sorted(first)[-2:][::-1]
    return best - second


if __name__ == "__main__":
    sys.exit(main())

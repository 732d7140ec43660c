"""`imatrix` and `evaluate` against llama-imatrix and llama-perplexity: the same figures, files either side reads, time.

    python benchmarks/evaluate_vs_llama_cpp.py CHECKPOINT TEXT --peers FOLDER [--type Q4_K_M] [--chunks 40]
        [--threads 2] [--rounds 3] [--experts CHECKPOINT_WITH_EXPERTS]

FOLDER holds llama-imatrix, llama-perplexity and llama-quantize, built at the commit that the bindings run. Both sides
read the same BF16 file and the same quantized file, in windows of 512 tokens, as many at a time as the peer takes by
default (for matrices one: llama-imatrix leaves out what a small batch sees). Programs are run in turn, and timed as
whole processes. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from equal_to_llama_cpp import compared

from llamacli.quantize.importance import ImportanceMatrix
from llamacli.quantize.importance_file import read_importance

WINDOW = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--experts", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Comparison(options, Path(folder)).report()


class Comparison:
    """Files and programs of one run."""

    def __init__(self, options: argparse.Namespace, place: Path) -> None:
        self.options, self.place, self.text = options, place, options.text
        self.limits = ("--chunks", options.chunks, "-t", options.threads)

    def report(self) -> None:
        """Everything, as Markdown."""
        source = self.made(self.options.checkpoint, "BF16")
        model = self.made(self.options.checkpoint, self.options.type)
        matrices = self.matrices(source, self.options.rounds)
        print(f"## Importance matrix of {self.options.checkpoint.name}, {self.options.chunks} windows of {WINDOW}\n")
        self.matrix_lines(*matrices)
        for line in self.interchange(source, *matrices[:2]):
            print(line)
        print(f"\n## {self.options.type} beside BF16, {self.options.chunks} windows of {WINDOW}\n")
        self.quality(source, model)
        if self.options.experts:
            print(f"\n## Importance matrix of {self.options.experts.name}, experts counted apart\n")
            self.matrix_lines(*self.matrices(self.made(self.options.experts, "BF16"), 1))

    def made(self, checkpoint: Path, kind: str) -> Path:
        path = self.place / f"{checkpoint.name}-{kind}.gguf"
        self.ours("quantize", checkpoint, path, "-q", kind)
        return path

    # -- matrices ----------------------------------------------------------------------------------------------

    def matrices(self, source: Path, rounds: int) -> tuple[Path, Path, list[tuple[float, float]]]:
        """Theirs, ours, and the seconds of both in each round."""
        theirs, ours = self.place / "theirs.gguf", self.place / "ours.gguf"
        seconds = []
        for _ in range(rounds):
            peer, _ = self.peer("llama-imatrix", "-m", source, "-f", self.text, "-o", theirs, "-c", WINDOW, "-b", WINDOW,
                                *self.limits)  # fmt: skip
            mine, _ = self.ours("imatrix", source, self.text, "-o", ours, "-c", WINDOW, "--force", *self.limits)
            seconds.append((peer, mine))
        return theirs, ours, seconds

    def matrix_lines(self, theirs: Path, ours: Path, seconds: list[tuple[float, float]]) -> None:
        one, other = read_importance(ours), read_importance(theirs)
        counts = sum(entry.counts.size for entry in one.entries.values())
        print(f"- {len(one.entries)} tensors ({len(other.entries)} in the peer's), {counts} counts of tokens")
        print(f"- same names: {one.entries.keys() == other.entries.keys()}; same counts: {same_counts(one, other)}")
        print(f"- largest relative difference of a value: {largest_difference(one, other):.1e}")
        print(f"- time of ours over llama-imatrix: {ratios(seconds)}")

    def interchange(self, source: Path, theirs: Path, ours: Path) -> Iterator[str]:
        """Each side's quantizer with each side's matrix, in both formats."""
        peer_dat, our_dat = self.place / "theirs.dat", self.place / "ours.dat"
        self.peer("llama-imatrix", "-m", source, "-f", self.text, "-o", peer_dat, "-c", WINDOW, "-b", WINDOW,
                  "--output-format", "dat", *self.limits)  # fmt: skip
        self.ours("imatrix", source, self.text, "-o", our_dat, "-c", WINDOW, "--form", "dat", *self.limits)
        for name, matrix in (("our GGUF", ours), ("their GGUF", theirs), ("our dat", our_dat), ("their dat", peer_dat)):
            a, b = self.place / "a.gguf", self.place / "b.gguf"
            self.peer("llama-quantize", "--imatrix", matrix, source, a, "IQ3_S", 1)
            self.ours("quantize", source, b, "-q", "IQ3_S", "--imatrix", matrix, "--kernel", "ggml", "--force")
            yield f"- IQ3_S by llama-quantize and by llamacli --kernel ggml with {name}: {same_weights(b, a)}"

    # -- perplexity and divergence -----------------------------------------------------------------------------

    def quality(self, source: Path, model: Path) -> None:
        base = self.place / "base.kld"
        common = ("-f", self.text, "-c", WINDOW, *self.limits)
        peer_seconds, our_seconds, alone = [], [], []
        for _ in range(self.options.rounds):
            one, _ = self.peer("llama-perplexity", "-m", source, "--kl-divergence-base", base, *common)
            two, said = self.peer(
                "llama-perplexity", "-m", model, "--kl-divergence-base", base, "--kl-divergence", *common
            )
            three, _ = self.peer("llama-perplexity", "-m", model, *common)
            mine, found = self.ours(
                "evaluate", model, self.text, "--against", source, "--json", "-c", WINDOW, *self.limits
            )
            mine_alone, _ = self.ours("evaluate", model, self.text, "--json", "-c", WINDOW, *self.limits)
            peer_seconds.append(one + two)
            our_seconds.append(mine)
            alone.append((three, mine_alone))
        print("| figure | llama-perplexity | llamacli | difference |")
        print("|---|---|---|---|")
        quality = json.loads(found)[0]
        for name, theirs, ours in figures(said, quality):
            print(f"| {name} | {theirs:.6f} | {ours:.6f} | {100 * (ours / theirs - 1):+.3f} % |")
        print(
            f"\n- time of ours over llama-perplexity's two runs: {ratios(list(zip(peer_seconds, our_seconds, strict=True)))}"
        )
        print(f"- time of ours over llama-perplexity, one model alone: {ratios(alone)}")

    # -- programs ----------------------------------------------------------------------------------------------

    def peer(self, program: str, *arguments: object) -> tuple[float, str]:
        """Seconds, and everything that was said."""
        return run(self.options.peers / program, *arguments)

    def ours(self, *arguments: object) -> tuple[float, str]:
        """Seconds, and stdout."""
        return run(sys.executable, "-m", "llamacli", *arguments, "--quiet", mixed=False)


def run(*command: object, mixed: bool = True) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return seconds, done.stdout + (done.stderr if mixed else "")


def same_counts(one: ImportanceMatrix, other: ImportanceMatrix) -> bool:
    return all(entry.counts.tolist() == other.entries[name].counts.tolist() for name, entry in one.entries.items())


def largest_difference(one: ImportanceMatrix, other: ImportanceMatrix) -> float:
    """The largest difference of two values, as a part of the peer's."""
    found = 0.0
    for name, entry in one.entries.items():
        peer = other.entries[name].sums
        some = peer > 0
        found = max(
            found, float(np.abs(entry.sums[some] / peer[some] - 1).max(initial=0)), float(entry.sums[~some].any())
        )
    return found


def same_weights(ours: Path, theirs: Path) -> str:
    return "; ".join(compared(ours, theirs)) or "the same bytes in every tensor"


def figures(said: str, quality: dict) -> Iterator[tuple[str, float, float]]:
    """Name, the peer's figure and ours."""
    far = quality["divergence"]
    for name, pattern, ours in (
        ("perplexity", r"Mean PPL\(Q\)\s*:", quality["perplexity"]["value"]),
        ("perplexity of the source", r"Mean PPL\(base\)\s*:", far["source_perplexity"]["value"]),
        ("ratio of perplexities", r"Mean PPL\(Q\)/PPL\(base\)\s*:", far["perplexity_ratio"]["value"]),
        ("mean KL divergence", r"Mean\s+KLD:", far["mean"]["value"]),
        ("its standard error", r"Mean\s+KLD:\s*[-\d.]+ ±", far["mean"]["error"]),
        ("median", r"Median\s+KLD:", far["median"]),
        ("90 %", r"90.0%\s+KLD:", far["percent_90"]),
        ("99 %", r"99.0%\s+KLD:", far["percent_99"]),
        ("99.9 %", r"99.9%\s+KLD:", far["percent_99_9"]),
        ("largest", r"Maximum KLD:", far["largest"]),
        ("same top token (%)", r"Same top p:", 100 * far["same_top"]["value"]),
        ("RMS change of probability (%)", r"RMS Δp\s*:", 100 * far["probability_rms"]["value"]),
    ):
        found = re.search(pattern + r"\s*([-\d.]+)", said)
        if found is None:
            sys.exit(f"llama-perplexity did not say {name}:\n{said[-3000:]}")
        yield name, float(found[1]), ours


def ratios(seconds: list[tuple[float, float]]) -> str:
    """Ours over theirs, round by round."""
    found = [mine / peer for peer, mine in seconds]
    peers, mine = (statistics.median(column) for column in zip(*seconds, strict=True))
    return (
        f"{statistics.median(found):.2f} ({', '.join(f'{one:.2f}' for one in found)}); {peers:.2f} s and {mine:.2f} s"
    )


if __name__ == "__main__":
    main()

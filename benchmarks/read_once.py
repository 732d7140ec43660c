"""What a prompt costs the second time: `run`, `run -C` and a resumed chat, with and without the prompt cache.

    python benchmarks/read_once.py MODEL.gguf TEXT [--tokens 2000] [--rounds 1] [-n 16]

A document of about --tokens tokens is cut from TEXT. Every command is a process of its own with `--temp 0`, and is timed from
outside: from its start to the first byte of the answer on its stdout, loading included. Each round begins with an empty
cache. `run` answers with the cache as without it; a resumed chat answers as the same chat that was never left, and the last
column says so. Exit 1 if a second reading takes --most of the first or more, or if an answer differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

FIRST = "Summarize this."
"""The first question; the document goes with it."""
SECOND = "And what comes next?"

RUN, RUN_ON, CHAT = "run", "run -C", "chat -C"


class Round:
    """One round in a folder of its own, which holds conversations and cache."""

    def __init__(self, model: str, document: Path, predict: int, folder: Path) -> None:
        self.model, self.document, self.folder = model, str(document), folder
        self.common = ["-m", model, "--temp", "0", "-n", str(predict)]
        self.equal: dict[str, bool] = {}
        self.seconds: dict[str, tuple[float, float]] = {}
        self.last = b""

    def measure(self) -> Round:
        """All three ways."""
        self._run()
        self._resumed()
        return self

    def _run(self) -> None:
        words = ["run", *self.common, "-f", self.document, "--allow-truncated", FIRST]
        first, fresh = self._timed(words)
        second, again = self._timed(words)
        self.seconds[RUN] = first, second
        self.equal[RUN] = fresh == again == self._timed([*words, "--cache", "off"])[1]

    def _resumed(self) -> None:
        """A chat is begun, saved and left; then it is gone on with in copies of its folder."""
        self._clear()
        begin = ["chat", *self.common, "-f", self.document]
        begun, _ = self._timed(begin, FIRST)
        on = ["run", *self.common, "-C", "--allow-truncated", SECOND]
        self.seconds[RUN_ON], self.equal[RUN_ON] = self._gone_on_with(begun, on, "")
        self.seconds[CHAT], same = self._gone_on_with(begun, ["chat", *self.common, "-C"], SECOND)
        unbroken = self._copied([*begin, "--no-save", "--cache", "off"], f"{FIRST}\n{SECOND}")[1]
        self.equal[CHAT] = unbroken.endswith(self.last)
        print(
            f"  {CHAT}: the answer is {'also' if same else 'not'} the one of a conversation read anew", file=sys.stderr
        )

    def _gone_on_with(self, begun: float, words: list[str], typed: str) -> tuple[tuple[float, float], bool]:
        """The times of the first and the second reading, and whether the answer is the one without the cache."""
        seconds, self.last = self._copied(words, typed)
        without, anew = self._copied([*words, "--cache", "off"], typed)
        print(f"  {words[0]} -C: read anew in {without:.2f} s", file=sys.stderr)
        return (begun, seconds), anew == self.last

    def _copied(self, words: list[str], typed: str) -> tuple[float, bytes]:
        kept = self.folder.with_name("kept")
        shutil.copytree(self.folder, kept)
        try:
            return self._timed(words, typed)
        finally:
            shutil.rmtree(self.folder)
            kept.rename(self.folder)

    def _timed(self, words: list[str], typed: str = "") -> tuple[float, bytes]:
        """Seconds to the first byte of the answer, and the whole answer."""
        command = [sys.executable, "-m", "llamacli", *words]
        environment = {**os.environ, "LLAMACLI_HOME": str(self.folder)}
        started = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{typed}\n".encode() if typed else b"")
            process.stdin.close()
            start = process.stdout.read(1)
            seconds = time.perf_counter() - started
            answer = start + process.stdout.read()
        if process.returncode or not start:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}")
        return seconds, answer

    def _clear(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()


def main() -> int:
    """Run the rounds and print the table."""
    arguments = parse()
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    equal: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        document = document_of(arguments.model, arguments.text, arguments.tokens, Path(scratch))
        for number in range(arguments.rounds):
            folder = Path(scratch) / f"round{number}" / "home"
            folder.mkdir(parents=True)
            found = Round(arguments.model, document, arguments.predict, folder).measure()
            for name, times in found.seconds.items():
                seconds[name].append(times)
                equal[name] = equal.get(name, True) and found.equal[name]
    return 0 if show(seconds, equal, arguments.most) else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=lambda name: str(Path(name).resolve()))
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("-n", "--predict", type=int, default=16)
    parser.add_argument("--most", type=float, default=0.1, help="share of the first time that the second may take")
    return parser.parse_args()


def document_of(model: str, text: Path, wanted: int, scratch: Path) -> Path:
    """The beginning of `text`, about `wanted` tokens long for this model."""
    document = scratch / "document.txt"
    whole = text.read_text(encoding="utf-8", errors="replace")[: 16 * wanted]
    length = len(whole)
    for _ in range(3):  # a text is not of one piece: the first guess is a tenth off
        document.write_text(whole[:length], encoding="utf-8")
        found = counted(model, document)
        length = min(len(whole), length * wanted // max(found, 1))
    print(f"the document has {found:,} tokens", file=sys.stderr)
    return document


def counted(model: str, file: Path) -> int:
    """Tokens of a file."""
    command = [sys.executable, "-m", "llamacli", "tokens", "-m", model, "-f", str(file)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def show(seconds: dict[str, list[tuple[float, float]]], equal: dict[str, bool], most: float) -> bool:
    """Print one line per way; whether all is as it should be."""
    print("| | first reading | second | ratio, median | of the rounds | the same answer |")
    print("|---|---|---|---|---|---|")
    good = True
    for name, rounds in seconds.items():
        ratios = [second / first for first, second in rounds]
        first, second = (statistics.median(column) for column in zip(*rounds, strict=True))
        middle = statistics.median(ratios)
        spread = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(
            f"| `{name}` | {first:.2f} s | {second:.2f} s | {middle:.3f} | {spread} | {'yes' if equal[name] else 'NO'} |"
        )
        good = good and middle < most and equal[name]
    return good


if __name__ == "__main__":
    sys.exit(main())

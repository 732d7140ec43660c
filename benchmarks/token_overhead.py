"""What our loop adds to each token, in microseconds of processor time, over the same loop in C on the same libraries.

    python benchmarks/token_overhead.py MODEL.gguf --include LLAMA_CPP/include --include LLAMA_CPP/ggml/include

Needs a C compiler and the headers of the llama.cpp that the engine was built from. Fresh processes in turn, one thread;
the fastest rounds are compared, because whatever else the machine does only adds. Take a small model: nothing is hidden
behind its weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Build the loop, run both, compare."""
    arguments = parse()
    if arguments.ours:
        print(f"{ours(arguments):.2f}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder) / "bare_loop", arguments.include)
        numbers = [arguments.model, "1", str(arguments.tokens), str(arguments.repetitions)]
        again = [sys.executable, __file__, arguments.model, "--tokens", str(arguments.tokens)]
        again += ["--repetitions", str(arguments.repetitions), "--ours"]
        commands = {"C": [str(program), *numbers], "ours": again, "ours, drafts watching": [*again, "--drafts"]}
        found: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(arguments.rounds):
            for name, command in sorted(commands.items(), reverse=number % 2 == 1):
                found[name].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    least = {name: min(times) for name, times in found.items()}
    for name, times in found.items():
        print(f"{name:<24}{least[name]:8.1f} us/token, {least[name] - least['C']:+6.1f}   rounds {times}")
    return int(max(least.values()) - least["C"] >= arguments.most)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--include", action="append", default=[], help="a folder of the engine's headers")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--most", type=float, default=40.0, help="microseconds that may be added")
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--drafts", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def build(program: Path, include: list[str]) -> Path:
    """The C loop, linked with the libraries that our engine loads."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None and spec.origin is not None
    libraries = Path(spec.origin).parent / "lib"
    folders = [f"-I{folder}" for folder in include]
    link = [f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}"]
    subprocess.run(["cc", "-O2", *folders, str(HERE / "bare_loop.c"), "-o", str(program), *link], check=True)
    return program


def ours(arguments: argparse.Namespace) -> float:
    """Microseconds of the fastest round in this process."""
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.llama import open_engine
    from llamacli.runtime.messages import Sampling
    from llamacli.runtime.speculate import Costs, Drafts

    sampling = Sampling(temp=0, predict=arguments.tokens, ignore_eos=True)
    times = []
    with open_engine(Path(arguments.model), EngineSettings(threads=1, ctx_size=512)) as engine:
        engine.drafts = Drafts(Costs(None)) if arguments.drafts else None
        for _ in range(arguments.repetitions):
            engine.forget()
            pieces = engine.generate([1], sampling)
            next(pieces)
            started = time.process_time()
            for _ in pieces:
                pass
            times.append((time.process_time() - started) / (arguments.tokens - 1) * 1e6)
        engine.drafts = None
    return min(times)


if __name__ == "__main__":
    sys.exit(main())

"""Is the memory that `llamacli fit` predicts the memory that the program takes? Shapes of real families, three contexts.

    python benchmarks/check_fit.py [--threads N] [--contexts 4096,8192,32768] [--runs N] [--cache-type q8_0]

The files are sparse: right in header, vocabulary and size. Each run is a process of its own that loads the program as
`llamacli run` does, opens the model in the usual way (mapped) and fills the context: it reads some tokens, takes up a saved
conversation that leaves room for one more batch, reads that and answers with a few tokens. Measured is the most that was
resident from then on, everything counted: code, vocabulary, cache, buffers, and the pages of the mapped file. While a file
is being loaded, pages of it may be resident that are not needed later and that the system may take back at once; the most
that was resident then is the last column.

With flash attention: plain attention, which x86 takes where it is faster, keeps its cache in an order that is not
stretched here.

Ends with 1 if a prediction is off by more than 3 %.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fit_shapes import SHAPES, write
from long_states import stretch

from llamacli.runtime.fit import memory_needed

ALLOWED = 0.03
FIRST, LAST, ANSWER = 256, 128, 8
"""Tokens: read before the conversation is taken up, read after it, answered with."""
FIRST_PLAIN = 16
"""Read before, where nothing is recurrent: a state is kept after whole steps only."""


def measure(path: Path, context: int, threads: int, caches: int, kind: str) -> tuple[int, int]:
    """Bytes resident at most once the model was loaded, and while it was being loaded."""
    import llamacli.cli.app
    import llamacli.cli.commands.run  # noqa: F401
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.llama import open_engine
    from llamacli.runtime.messages import Sampling

    settings = EngineSettings(ctx_size=context, flash_attn="on", threads=threads, cache_type_k=kind, cache_type_v=kind)
    with open_engine(path, settings) as engine:
        loading = peak()
        compute = engine._compute
        compute.grow(context, context)
        first = FIRST_PLAIN if compute.drops_tail else FIRST
        compute.read([n % 1000 for n in range(first)])
        short, long = path.with_suffix(".short"), path.with_suffix(".long")
        assert compute.write_state(bytes(short), first)
        stretch(short, long, context - LAST - ANSWER - 1, caches)
        assert compute.read_state(bytes(long), 0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak, of loading and of taking up
        tokens = [*compute.cells, *range(LAST)]
        pieces = list(engine.generate(tokens, Sampling(predict=ANSWER, temp=0)))
        assert (
            pieces[-1].usage and pieces[-1].usage.cached >= context - LAST - ANSWER - 1 and pieces[-1].usage.completion
        )
        return peak(), loading


def peak() -> int:
    """The most bytes that were resident (Linux' VmHWM)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contexts", default="4096,8192,32768")
    parser.add_argument("--shape", default="", help="only those whose title has this")
    parser.add_argument("--cache-type", default="f16", help="of keys and values")
    parser.add_argument("--runs", type=int, default=1, help="of each; the highest and the lowest are shown")
    parser.add_argument("--measure", nargs=3, metavar=("FILE", "CONTEXT", "CACHES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    kind = options.cache_type
    if options.measure:
        file, context, caches = options.measure
        print(json.dumps(measure(Path(file), int(context), options.threads, int(caches), kind)))
        return
    worst = 0.0
    print(f"{'model':48} {'tokens':>7} {'predicted':>12} {'measured':>12} {'off':>8} {'loading':>12}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shape.gguf"
        for shape in SHAPES:
            if options.shape not in shape.title:
                continue
            write(shape, path)
            for context in map(int, options.contexts.split(",")):
                need = memory_needed(path, context, flash_attn="on", type_k=kind, type_v=kind)
                command = [sys.executable, __file__, "--threads", str(options.threads), "--cache-type", kind]
                command += ["--measure", str(path), str(context), "2" if shape.window else "1"]
                runs = [
                    json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                    for _ in range(options.runs)
                ]
                low, high = min(taken for taken, _ in runs), max(taken for taken, _ in runs)
                loading = max(loading for _, loading in runs)
                off = max((need.total / low - 1, need.total / high - 1), key=abs)
                worst = max(worst, abs(off))
                between = f" to {high / 1e6:.1f}" if high - low > 5e4 else ""
                sizes = f"{need.total / 1e6:9.1f} MB {low / 1e6:9.1f}{between} MB {100 * off:+7.2f}% {loading / 1e6:9.1f} MB"
                print(f"{shape.title:48} {context:7} {sizes}", flush=True)
    print(f"worst {100 * worst:.2f} %, allowed {100 * ALLOWED:.0f} %")
    sys.exit(worst > ALLOWED)


if __name__ == "__main__":
    main()

"""Show a picture to damaged projectors, each in a process of its own, and count how they end (POSIX only).

    python benchmarks/fuzz_projector.py MODEL.gguf [--kind mlp] [--count 500] [--seed 1]

MODEL is a small model with vectors of 64 numbers, such as tests/data/models/stories260K-hf converted. Every mutant of a tiny
projector must be read or refused with a documented exit code. Exit 1 if one ended a process.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "runtime"))

from projectors import png, write_projector

from llamacli.errors import LlamacliError
from llamacli.formats.gguf_reader import read_gguf
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Span

NUMBERS = (0, 1, 2, 7, 33, 64, 255, 2**31, 2**32 - 1)
PICTURE = png(40, 30, lambda x, y: (x * 6, y * 8, 99))
SURPRISE = 77


def main() -> int:
    """Make the mutants and try each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--kind", default="mlp")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ends: Counter[int] = Counter()
    dice = random.Random(arguments.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_engine(arguments.model, EngineSettings(threads=1, ctx_size=512)) as engine,
    ):
        whole = write_projector(Path(folder) / "mmproj.gguf", arguments.kind, 64)
        data, header = whole.read_bytes(), read_gguf(whole).data_offsets[0]
        for _ in range(arguments.count):
            mutant = Path(folder) / "mmproj-mutant.gguf"
            mutant.write_bytes(damaged(data, header, dice))
            ends[tried(engine, mutant)] += 1
    print(dict(sorted(ends.items())), "negative: a signal ended it")
    return int(any(end < 0 or end == SURPRISE for end in ends))


def damaged(data: bytes, header: int, dice: random.Random) -> bytes:
    """A copy with one or two faults in its header."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2))):
        place, kind = dice.randrange(24, header), dice.random()
        if kind < 0.5:
            out[place] ^= 1 << dice.randrange(8)
        elif kind < 0.8:
            out[place : place + 4] = dice.choice(NUMBERS).to_bytes(4, "little")
        else:
            out[place] = dice.randrange(256)
    return bytes(out)


def tried(engine: LlamaEngine, projector: Path) -> int:
    """The exit code of a process that shows the picture, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            mark = engine.add_picture(PICTURE, projector)
            list(engine.generate(engine.tokens((Span(f"a {mark} b", False),)), Sampling(temp=0, predict=2)))
        except LlamacliError as error:
            os._exit(error.exit_code)
        except BaseException:
            traceback.print_exc()
            os._exit(SURPRISE)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())

"""How long `llamacli list` takes with hundreds of models.

    python benchmarks/list_many.py [--models 300] [--rounds 10]

A Hub cache of its own in a temporary folder: repositories with one GGUF each, sparse, with the header and vocabulary of a
real model (0.6 MB). Wall and processor time of whole processes: the first list, which reads every header, then the median
of those that find them in the index; and one after a model has come and one has been replaced.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fit_shapes import SHAPES, write
from start_up import whole

COMMIT = "c" * 40


def add(cache: Path, number: int, content: Path) -> Path:
    """One repository with a file of its own."""
    folder = cache / f"models--maker--Model-{number}-GGUF"
    blob = folder / "blobs" / f"{number:064x}"
    pointer = folder / "snapshots" / COMMIT / f"Model-{number}-Q4_K_M.gguf"
    for path in (blob, pointer, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.unlink(missing_ok=True)
    header = 1 << 20
    with content.open("rb") as source, blob.open("wb") as target:
        target.write(source.read(header))
        target.truncate(content.stat().st_size)
    if not pointer.is_symlink():
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    (folder / "refs" / "main").write_text(COMMIT)
    return blob


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    llamacli = str(Path(sys.executable).with_name("llamacli"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.update(HF_HOME=str(folder / "hf"), LLAMACLI_HOME=str(folder / "own"), HOME=temporary)
        os.environ.pop("HF_HUB_CACHE", None)
        model = folder / "model.gguf"
        write(next(shape for shape in SHAPES if shape.vocabulary == 32000), model)
        for number in range(options.models):
            add(folder / "hf" / "hub", number, model)

        def listed(title: str, *words: str, rounds: int = 1) -> None:
            times = [whole([llamacli, "list", *words]) for _ in range(rounds)]
            wall, busy = (statistics.median(column) for column in zip(*times, strict=True))
            out = subprocess.run([llamacli, "list", "-q", *words], capture_output=True, text=True, check=True).stdout
            print(f"{title:44} {len(out.split()):4} models  wall {wall:.3f} s  processor {busy:.3f} s", flush=True)

        listed("first, every header is read")
        listed("again", rounds=options.rounds)
        listed("again, --all", "--all", rounds=options.rounds)
        add(folder / "hf" / "hub", options.models, model)
        add(folder / "hf" / "hub", 0, model)
        listed("one has come, one was replaced")
        listed("again", rounds=options.rounds)


if __name__ == "__main__":
    main()

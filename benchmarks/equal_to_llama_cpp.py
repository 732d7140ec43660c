"""Are our files llama-quantize's to the last byte, and are our choices of types llama.cpp's?

    python benchmarks/equal_to_llama_cpp.py --llama-quantize CMD [--convert CMD] [--text FILE]
        [--types Q4_K_M,...] CHECKPOINT...
    python benchmarks/equal_to_llama_cpp.py --snapshots LLAMA.CPP/tests/snapshots

First form: every checkpoint is converted by the peer to BF16 and quantized by it to every file type, without and (given a
text) with an importance matrix of that text; `llamacli quantize --kernel ggml` does the same from
the checkpoint in one step. Compared are the names, shapes, types and bytes of all tensors.
Second form: the types that llama.cpp's own test expects for twelve real models in every file type. Ends with exit code 1
if anything differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llamacli.formats.gguf_reader import read_gguf
from llamacli.quantize.choose import choose_types
from llamacli.quantize.place import Model
from llamacli.quantize.recipes import RECIPES
from llamacli.quantize.roles import Shape

NEED_A_MATRIX = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XS", "IQ3_XXS", "Q2_K_S"}
MODELS = Path(__file__).parent.parent / "tests" / "data" / "recipes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--convert", default="", help="without it, llamacli makes the BF16 file that is quantized")
    parser.add_argument("--llama-quantize", default="llama-quantize")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--types", default=",".join(RECIPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--snapshots", type=Path)
    options = parser.parse_args()
    different = snapshots(options.snapshots) if options.snapshots else 0
    for checkpoint in options.checkpoints:
        different += files(options, checkpoint)
    sys.exit(different > 0)


# -- bytes -----------------------------------------------------------------------------------------------------------


def files(options: argparse.Namespace, checkpoint: Path) -> int:
    """Compare every type of one checkpoint; how many files differ."""
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source, matrix = place / "source.gguf", place / "matrix.gguf"
        if options.convert:
            run(options.convert, checkpoint, "--outtype", "bf16", "--outfile", source)
        else:
            run(sys.executable, "-m", "llamacli", "quantize", checkpoint, source, "-q", "BF16", "--quiet")
        weightings = [False]
        if options.text:
            run(sys.executable, "-m", "llamacli", "imatrix", source, options.text, "-o", matrix, "--chunks", 4)
            weightings.append(True)
        for weighted in weightings:
            kinds = [kind for kind in options.types.split(",") if weighted or kind not in NEED_A_MATRIX]
            wrong = [
                kind for kind in kinds if not same(options, checkpoint, source, matrix if weighted else None, kind)
            ]
            how = "with an importance matrix" if weighted else "without an importance matrix"
            print(f"{checkpoint.name}, {how}: {len(kinds)} types, different: {', '.join(wrong) or 'none'}", flush=True)
            different += len(wrong)
    return different


def same(options: argparse.Namespace, checkpoint: Path, source: Path, matrix: Path | None, kind: str) -> bool:
    """Make both files and compare them; what differs is printed."""
    ours, theirs = source.with_name("ours.gguf"), source.with_name("theirs.gguf")
    with_matrix = ("--imatrix", matrix) if matrix else ()
    run(options.llama_quantize, *with_matrix, source, theirs, kind, options.threads)
    run(sys.executable, "-m", "llamacli", "quantize", checkpoint, ours, "-q", kind, "--kernel", "ggml", "--force",
        "--quiet", "-t", options.threads, *with_matrix)  # fmt: skip
    differences = list(compared(ours, theirs))
    if differences:
        print(f"{checkpoint.name} {kind}: {'; '.join(differences[:5])}", flush=True)
    theirs.unlink()
    return not differences


def compared(ours: Path, theirs: Path) -> Iterator[str]:
    """What differs between two files, in words."""
    one, other = read_gguf(ours), read_gguf(theirs)
    peers = {tensor.name: tensor for tensor in other.tensors}
    if strange := {tensor.name for tensor in one.tensors} ^ peers.keys():
        yield f"only one of them has {', '.join(sorted(strange)[:3])}"
        return
    data, peer = ours.read_bytes(), theirs.read_bytes()
    for a in one.tensors:
        b = peers[a.name]
        start, their_start = one.tensor_start(a), other.tensor_start(b)
        if (a.shape, a.type) != (b.shape, b.type):
            yield f"{a.name} is {a.type} {a.shape} where the peer's is {b.type} {b.shape}"
        elif data[start : start + a.size_bytes] != peer[their_start : their_start + b.size_bytes]:
            yield f"other bytes in {a.name}"


def run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")


# -- choices ---------------------------------------------------------------------------------------------------------


def snapshots(folder: Path) -> int:
    """Compare the choices with llama.cpp's snapshots; how many differ."""
    choices = sections = different = 0
    paths = sorted(folder.glob("*.schema"))
    for path in paths:
        data = json.loads((MODELS / f"{path.stem}.json").read_text(encoding="utf-8"))
        shapes = [
            Shape(name, (group["columns"], 64, group["stack"]))
            for group in data["tensors"]
            for pattern in group["names"]
            for name in unpacked(pattern)
        ]
        model = Model(data["architecture"], data["blocks"], data["heads"], data["kv_heads"], data["experts"])
        for kind, default, exceptions in schema(path):
            chosen = choose_types(shapes, model, RECIPES[kind])
            if strange := exceptions.keys() - chosen.keys():
                sys.exit(f"{path.name}: {min(strange)} is not among the tensors of {path.stem}.json")
            wrong = [n for n, c in chosen.items() if c.type.name.lower() != exceptions.get(n, default).lower()]
            sections, choices, different = sections + 1, choices + len(chosen), different + len(wrong)
            if wrong:
                print(f"{path.stem} {kind}: {len(wrong)} of {len(chosen)} differ, such as {wrong[0]}")
    print(f"{len(paths)} models, {sections} pairs of model and file type, {choices:,} choices, {different} different")
    return different


def schema(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """File type, default type and exceptions of each section of a snapshot."""
    kind = default = ""
    exceptions: dict[str, str] = {}
    for line in [*path.read_text(encoding="utf-8").splitlines(), "[] "]:
        if line.startswith("["):
            if kind:
                yield kind, default, exceptions
            kind, default = line[1:].split("] ", 1)
            exceptions = {}
        elif line and not line.startswith("#"):
            name, _, exceptions[name] = line.partition(" ")


def unpacked(pattern: str) -> Iterator[str]:
    """The names behind `blk.0-3,7.attn_v.weight`."""
    if not pattern.startswith("blk."):
        yield pattern
        return
    _, blocks, rest = pattern.split(".", 2)
    for part in blocks.split(","):
        first, _, last = part.partition("-")
        yield from (f"blk.{block}.{rest}" for block in range(int(first), int(last or first) + 1))


if __name__ == "__main__":
    main()

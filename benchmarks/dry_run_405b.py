"""Time the dry run of Llama 3.1 8B, 70B and 405B checkpoints, and compare its sizes with llama.cpp's published table.

    python benchmarks/dry_run_405b.py --tokenizer FOLDER [--llama-quantize PROGRAM]

The checkpoints are sparse files: real headers, real configurations, shards of 5 GB, and no bytes behind them. FOLDER has
the model's tokenizer.json. With --llama-quantize, sizes are compared with its own dry run as well.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from math import prod
from pathlib import Path

import numpy as np
from make_checkpoint import COMMON, SHAPES, tensors

from llamacli.quantize.importance import Entry, ImportanceMatrix
from llamacli.quantize.importance_file import write_importance
from llamacli.quantize.model import open_model

LLAMA = {
    "8B": {**SHAPES["llama-3.1-8b"]},
    "70B": {**SHAPES["llama-3.1-8b"], "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
            "num_attention_heads": 64},
    "405B": {**SHAPES["llama-3.1-8b"], "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
             "num_attention_heads": 128},
}  # fmt: skip
SHARD_BYTES = 5_000_000_000

PUBLISHED_8B = {
    "IQ1_S": 2.0042, "IQ1_M": 2.1460, "IQ2_XXS": 2.3824, "IQ2_XS": 2.5882, "IQ2_S": 2.7403, "IQ2_M": 2.9294,
    "IQ3_XXS": 3.2548, "IQ3_XS": 3.4977, "IQ3_S": 3.6606, "IQ3_M": 3.7628, "IQ4_XS": 4.4597, "IQ4_NL": 4.6818,
    "Q2_K_S": 2.9697, "Q2_K": 3.1593, "Q3_K_S": 3.6429, "Q3_K_M": 3.9960, "Q3_K_L": 4.2979, "Q4_K_S": 4.6672,
    "Q4_K_M": 4.8944, "Q5_K_S": 5.5704, "Q5_K_M": 5.7036, "Q6_K": 6.5633, "Q8_0": 8.5008, "F16": 16.0005,
}  # fmt: skip
"""Bits per weight of Llama-3.1-8B in llama.cpp's tools/quantize/README.md."""
PUBLISHED_Q4_K_M = {"8B": "4.9 GB", "70B": "43.1 GB", "405B": "249.1 GB"}
"""Sizes in the same file's table of requirements."""


def make_sparse(folder: Path, shape: dict, tokenizer: Path) -> None:
    """A checkpoint of holes: only headers and the small files take room."""
    folder.mkdir()
    config = {**COMMON, **shape, "rope_scaling": {**COMMON["rope_scaling"], "factor": 8.0}}
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder / file)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, extents in tensors(config):
        if shards[-1] and size + 2 * prod(extents) > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = extents
        size += 2 * prod(extents)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map.update(dict.fromkeys(shard, file))
        _write_shard(folder / file, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _write_shard(path: Path, shard: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, extents in shard.items():
        header[name] = {"dtype": "BF16", "shape": list(extents), "data_offsets": [end, end + 2 * prod(extents)]}
        end += 2 * prod(extents)
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def make_matrix(folder: Path, path: Path) -> None:
    """An importance matrix that knows every tensor; its values do not matter for sizes."""
    model = open_model(folder)
    entries = {
        name: Entry(np.ones(rows.shape[-1], np.float32), np.ones(1, np.int64))
        for name, rows in model.tensors.items()
        if name.endswith(".weight") and len(rows.shape) == 2
    }
    write_importance(ImportanceMatrix(entries, chunks=1, chunk_size=512), path)


def dry_run(folder: Path, types: list[str], *options: str) -> tuple[float, list[dict]]:
    """Seconds of the whole command, and what it reports of each type."""
    program = [sys.executable, "-m", "llamacli", "quantize", str(folder), "--dry-run", "--json", "-q", ",".join(types)]
    start = time.perf_counter()
    done = subprocess.run([*program, *options], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, json.loads(done.stdout)["outputs"]


def peer_says(program: str, gguf: Path, kind: str, *options: str) -> tuple[str, str]:
    """Gigabytes of weights and bits per weight by llama-quantize's own dry run."""
    command = [program, "--dry-run", *options, str(gguf), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"quant size\s*=\s*([\d.]+) MiB \(([\d.]+) BPW\)", done.stdout + done.stderr)
    return (f"{float(found[1]) * 2**20 / 1e9:.1f}", found[2]) if found else ("?", "?")


def main() -> None:
    """Make the files, time and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--llama-quantize", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        room = Path(scratch)
        program = given.llama_quantize
        print(
            "| model | shards | seconds | Q4_K_M bytes | GB | published | llama-quantize |\n|---|---|---|---|---|---|---|"
        )
        for name, shape in LLAMA.items():
            make_sparse(room / name, shape, given.tokenizer)
            shards = len(list((room / name).glob("*.safetensors")))
            seconds, outputs = min((dry_run(room / name, ["Q4_K_M"]) for _ in range(3)), key=lambda run: run[0])
            size = outputs[0]["bytes"]
            peer = peer_says(program, _holes_as_gguf(room, name), "Q4_K_M")[0] if program else "-"
            row = (name, shards, f"{seconds:.2f}", f"{size:,}", f"{size / 1e9:.1f}", PUBLISHED_Q4_K_M[name], peer)
            print("|", " | ".join(map(str, row)), "|")
        make_matrix(room / "8B", room / "imatrix.gguf")
        _, outputs = dry_run(room / "8B", list(PUBLISHED_8B), "--imatrix", str(room / "imatrix.gguf"))
        print("\n| Llama-3.1-8B | bits per weight | published | llama-quantize --dry-run |\n|---|---|---|---|")
        matrix = ("--imatrix", str(room / "imatrix.gguf"))
        for output in outputs:
            kind, bits = output["type"], output["bits_per_weight"]
            peer = peer_says(program, room / "8B.gguf", kind, *matrix)[1] if program else "-"
            print(f"| {kind} | {bits:.4f} | {PUBLISHED_8B[kind]:.4f} | {peer} |")


def _holes_as_gguf(room: Path, name: str) -> Path:
    """A model as a sparse BF16 GGUF for llama-quantize: a real header, holes for weights."""
    from llamacli.quantize.plan import PlanOptions, make_plan
    from llamacli.quantize.recipes import recipe_named

    path = room / f"{name}.gguf"
    plan = make_plan(open_model(room / name), recipe_named("BF16"), PlanOptions())
    with path.open("wb") as file:
        file.write(plan.layouts[0].header)
        file.truncate(plan.size_bytes)
    return path


if __name__ == "__main__":
    main()

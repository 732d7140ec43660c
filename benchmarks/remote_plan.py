"""How long it takes, and how many bytes come, to know what an 8B model on the Hub would need here.

    python benchmarks/remote_plan.py --tokenizer FOLDER [--rate 100]

The repositories have the names, sizes and headers of Llama 3.1 8B: one as GGUF in three quantizations, one as safetensors
in four shards. Their weights are holes in sparse files, which nobody reads.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import mmap
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / "library"), str(ROOT / "benchmarks")]

from local_hub import HubFile, LocalHub, local_hub  # noqa: E402
from make_checkpoint import COMMON, SHAPES, tensors  # noqa: E402

from llamacli.cli.app import invoke  # noqa: E402
from llamacli.cli.console import Console  # noqa: E402
from llamacli.cli.context import Context  # noqa: E402
from llamacli.quantize.model import open_model  # noqa: E402
from llamacli.quantize.plan import PlanOptions, make_plan  # noqa: E402
from llamacli.quantize.recipes import recipe_named  # noqa: E402

MB = 1_000_000
TYPES = ("Q8_0", "Q6_K", "Q4_K_M")


def sparse(path: Path, header: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return path


def checkpoint(folder: Path, tokenizer: Path) -> Path:
    """config.json, tokenizer and four shards of holes."""
    config = {**COMMON, **SHAPES["llama-3.1-8b"]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    entries = tensors(config)
    weight_map, step = {}, -(-len(entries) // 4)
    for number in range(4):
        name, header, end = f"model-{number + 1:05}-of-00004.safetensors", {}, 0
        for tensor, shape in entries[number * step : (number + 1) * step]:
            size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
            weight_map[tensor] = name
        raw = json.dumps(header).encode()
        sparse(folder / name, len(raw).to_bytes(8, "little") + raw, 8 + len(raw) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def served(path: Path) -> HubFile:
    """A file of the Hub whose bytes stay on disk; the digest of one that nobody reads to its end does not matter."""
    if path.suffix not in (".gguf", ".safetensors"):
        return HubFile(path.read_bytes(), lfs=False)
    with path.open("rb") as file:
        content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return HubFile(content, hashed=(content, hashlib.sha256(path.name.encode()).hexdigest()))


def plan(hub: LocalHub, folder: Path, repo: str) -> None:
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder), "LLAMACLI_HOME": str(folder), "HF_HUB_OFFLINE": "0"}
    here = Context(console=Console(io.StringIO(), io.StringIO(), env), env=env, home=folder, cwd=folder)
    hub.sent, began = 0, time.monotonic()
    code = invoke(["fit", repo], here)
    print(f"{repo}: {time.monotonic() - began:.1f} s, {hub.sent / MB:.1f} MB, exit {code}")
    assert isinstance(here.console.out, io.StringIO) and isinstance(here.console.err, io.StringIO)
    print(here.console.err.getvalue() + here.console.out.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rate", type=int, default=0, help="MB/s of each connection; 0 is no limit")
    options = parser.parse_args()
    with local_hub() as hub, tempfile.TemporaryDirectory() as temporary, contextlib.suppress(BrokenPipeError):
        folder = Path(temporary)
        source = checkpoint(folder / "Shape-8B", options.tokenizer)
        hub.add("maker/Shape-8B", {p.name: served(p) for p in source.iterdir()})
        model = open_model(source)
        found = {}
        for kind in TYPES:
            (layout,) = make_plan(model, recipe_named(kind), PlanOptions()).layouts
            name = f"Shape-8B-{kind}.gguf"
            found[name] = served(sparse(folder / name, layout.header, layout.size_bytes))
        hub.add("maker/Shape-8B-GGUF", found)
        hub.rate = options.rate * MB
        for repo in ("maker/Shape-8B-GGUF", "maker/Shape-8B"):
            plan(hub, folder, repo)


if __name__ == "__main__":
    main()

"""Make a case for tests/families: what transformers computes from a tiny random checkpoint of a family.

    python benchmarks/make_family_case.py CONFIG.json NAME [--llama-cpp FILE.gguf] [--keep FOLDER]

Needs transformers and torch, which nothing else here does: run it in an environment of its own that also has this project.
CONFIG.json is a real configuration made small (vocab_size 320). Names and shapes are those that the transformers class saves,
values are drawn from the names. --keep leaves the checkpoint, so that llama.cpp's own converter can be run on it; its F32 file
is then given with --llama-cpp, and the case holds its digests and keys too. A case without them belongs to tests/data/settings.
"""

from __future__ import annotations

import argparse
import base64
import json
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# In place of this folder, whose kernels.py would hide the package of that name that transformers looks for.
sys.path[:1] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "families")]
_OTHERS = runpy.run_path(str(Path(__file__).parent / "family_twins.py"))
TWINS, WRAPPED = _OTHERS["TWINS"], _OTHERS["WRAPPED"]

import numpy as np  # noqa: E402
import torch  # noqa: E402, TID251
import transformers  # noqa: E402, TID251
from converting import architecture_keys, digests, other_keys, read_gguf  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from synthetic import values_of, write_checkpoint  # noqa: E402

from llamacli.formats.file_access import LocalFile  # noqa: E402
from llamacli.formats.safetensors import read_shard  # noqa: E402

TOKENS = 40
POSITIONS = (20, TOKENS - 1)


def saved_shapes(model: Any, scratch: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes as `save_pretrained` writes them."""
    model.save_pretrained(scratch)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(scratch.glob("*.safetensors")):
        shapes.update({name: tensor.shape for name, tensor in read_shard(LocalFile(path), path.name).tensors.items()})
    return shapes


def answers(model: Any, tokens: list[int]) -> tuple[np.ndarray, bool | str]:
    """Logits, or the last hidden state of an encoder (True), or a classifier's scores ("scores"), in float32."""
    with torch.no_grad():
        output = model.eval()(torch.tensor([tokens]))
    if type(model).__name__.endswith("ForSequenceClassification"):
        return np.asarray(output.logits.numpy(), np.float32), "scores"
    found = output.logits if hasattr(output, "logits") else output.last_hidden_state
    return np.asarray(found[0].numpy(), np.float32), not hasattr(output, "logits")


def computed(config: dict[str, Any], folder: Path, room: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The model with our own weights, and the names and shapes of its checkpoint, which then stands in `folder`."""
    name = config["architectures"][0]
    if name in TWINS:
        return twin_of(TWINS[name], config, folder)
    if name in WRAPPED:
        return inside(WRAPPED[name], config, folder, room)
    kind = getattr(transformers, name)
    settings = transformers.AutoConfig.from_pretrained(folder)
    shapes = saved_shapes(kind._from_config(settings, dtype=torch.float32), room / "saved")
    write_checkpoint(folder, config, shapes)
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"), shapes


def twin_of(twin: Any, config: dict[str, Any], folder: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """As `computed`, for a family that transformers knows by another name."""
    shapes = twin.shapes(config)
    write_checkpoint(folder, config, shapes)
    found = {name: torch.from_numpy(values_of(name, shape)) for name, shape in shapes.items()}
    kind = getattr(transformers, twin.kind)
    model = kind._from_config(
        kind.config_class(**twin.config(config)), dtype=torch.float32, attn_implementation="eager"
    )
    twin.change(config, model)
    model.load_state_dict(twin.state(config, found))
    return model, shapes


def inside(wrapped: Any, config: dict[str, Any], folder: Path, room: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """As `computed`, for a wrapper that transformers does not have: its text model alone, with the wrapper's values."""
    kind, settings = getattr(transformers, wrapped.kind), wrapped.config(config)
    own = saved_shapes(kind._from_config(kind.config_class(**settings), dtype=torch.float32), room / "saved")
    shapes = {f"{wrapped.front}{name}": shape for name, shape in own.items()} | wrapped.others
    write_checkpoint(folder, config, shapes)
    alone = room / "alone"
    alone.mkdir()
    found = {name: torch.from_numpy(values_of(f"{wrapped.front}{name}", shape)) for name, shape in own.items()}
    save_file(found, alone / "model.safetensors", {"format": "pt"})
    (alone / "config.json").write_text(json.dumps({**settings, "architectures": [wrapped.kind]}))
    return kind.from_pretrained(alone, dtype=torch.float32, attn_implementation="eager"), shapes


def main() -> None:
    """Build, save, load again from our own weights, compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("name")
    parser.add_argument("--llama-cpp", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    config = json.loads(given.config.read_text())
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / given.name
        write_checkpoint(folder, config, {})
        model, shapes = computed(config, folder, Path(room))
        tokens = np.random.default_rng(5).integers(3, 250, TOKENS).tolist()
        found, vectors = answers(model, tokens)
        positions = [0] if vectors == "scores" else list(POSITIONS)
        expected = found[positions].astype("<f4")
        if given.keep:
            shutil.copytree(folder, given.keep, dirs_exist_ok=True)
    case = {
        "config": config, "tensors": {name: list(shape) for name, shape in shapes.items()}, "tokens": tokens,
        "positions": positions, "expected": base64.b64encode(expected.tobytes()).decode(),
        "vectors": vectors,
    }  # fmt: skip
    if given.llama_cpp:
        peer = read_gguf(given.llama_cpp)
        case["peer_keys"] = architecture_keys(peer.metadata)
        case["peer_others"] = other_keys(peer.metadata)
        case["peer_tensors"] = {name: [list(shape), digest[:16]] for name, (shape, _, digest) in digests(peer).items()}
    path = ROOT / "tests" / "data" / ("families" if given.llama_cpp else "settings") / f"{given.name}.json"
    path.write_text(json.dumps(case, separators=(",", ":")) + "\n")
    print(path)


if __name__ == "__main__":
    main()

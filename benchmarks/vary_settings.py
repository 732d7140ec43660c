"""Change one setting of every family's tiny checkpoint at a time: is the file still right, or is the checkpoint refused?

    python benchmarks/vary_settings.py --make FOLDER [CASE ...]      with transformers and torch, as make_family_case.py
    python benchmarks/vary_settings.py FOLDER                        with the engine: a line for each, and the sums

Every setting that transformers' configuration has is tried with other values; those that change nothing are left out. `wrong`
is a file whose logits differ and which no warning spoke of, `lost` one that the engine does not load or dies of.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import re
import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WITHOUT_EFFECT = re.compile(
    r"architectures|model_type|transformers_version|d?_?type|torch_dtype|dtype|.*_token_id|id2label|label2id|use_cache|vocab_size"
    r"|.*drop.*|initializer_range|.*loss.*|hidden_size|n_embd|d_model|num_hidden_layers|n_layers?|num_attention_heads|n_heads?"
    r"|max_position_embeddings|n_positions|n_ctx|max_seq_len|.*chunk_size|.*attn_implementation|problem_type|is_decoder|return_dict"
)
ACTIVATIONS = ("silu", "gelu", "relu", "relu2")
ROPES: tuple[dict[str, Any], ...] = (
    {"rope_theta": 777.0},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0, "beta_slow": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.3},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 64},
)  # fmt: skip
WHERE_NOTHING_IS = (("head_dim", 32), ("cap", 20.0), ("clip", 0.3), ("norm", True), ("n_inner", 96), ("window", 8))


def other_values(name: str, value: Any) -> list[Any]:
    """What else a setting could be."""
    if isinstance(value, bool):
        return [not value]
    if "act" in name and isinstance(value, str):
        return [kind for kind in ACTIVATIONS if kind != value]
    if name == "rope_parameters" and isinstance(value, dict):
        if isinstance(full := value.get("full_attention"), dict):
            return [{**value, "full_attention": {**full, **rope}} for rope in ROPES]
        return [{**value, **rope} for rope in ROPES]
    if isinstance(value, list):
        kinds = ("full_attention", "sliding_attention") if name == "layer_types" else ()
        return [value[::-1], *([kind] * len(value) for kind in kinds)]
    if isinstance(value, float):
        return [0.01] if "eps" in name else [value * 1.7 or 0.5]
    if isinstance(value, int):
        return [value + 1, value * 2] if value else [1, 2]
    return [] if value else [number for part, number in WHERE_NOTHING_IS if part in name]


def make(folder: Path, names: list[str]) -> None:
    """A case for every change that transformers can compute and that makes a difference."""
    sys.path[:0] = [str(ROOT / "benchmarks")]
    tools = runpy.run_path(str(ROOT / "benchmarks" / "make_family_case.py"))
    for path in sorted((ROOT / "tests" / "data" / "families").glob("*.json")):
        case = json.loads(path.read_text())
        inner = any(isinstance(value, dict) for name, value in case["config"].items() if name.endswith("_config"))
        if (names and path.stem not in names) or case["vectors"] == "scores" or inner:
            continue
        made = {label: found for label, found in _varied(case, tools) if found}
        usual = made.pop("as it is", None)
        for label, found in made.items():
            if usual and (found["expected"], found["tensors"]) != (usual["expected"], usual["tensors"]):
                target = folder / f"{path.stem} {re.sub(r'[^a-z0-9_.-]+', ' ', label.lower())[:120]}.json"
                target.write_text(json.dumps(found))


def _varied(case: dict[str, Any], tools: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    full = _case(case["config"], case["tokens"], tools)
    if full is None:
        return
    yield "as it is", full
    for name, value in full["config"].items():
        for other in [] if WITHOUT_EFFECT.fullmatch(name) else other_values(name, value):
            yield f"{name} {json.dumps(other)}", _case({**full["config"], name: other}, case["tokens"], tools)


def _case(config: dict[str, Any], tokens: list[int], tools: dict[str, Any]) -> dict[str, Any] | None:
    """What transformers computes with this configuration, written out in full; None where it cannot."""
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "model"
        try:
            tools["write_checkpoint"](folder, config, {})
            model, shapes = tools["computed"](config, folder, Path(room))
            found, vectors = tools["answers"](model, tokens)
        except Exception as error:  # many values are no model at all
            print(f"no model: {type(error).__name__}", file=sys.stderr)
            return None
    expected = found[list(tools["POSITIONS"])].astype("<f4")
    return {
        "config": model.config.to_dict() | {"architectures": config["architectures"]}, "tokens": tokens, "vectors": vectors,
        "tensors": {name: list(shape) for name, shape in shapes.items()}, "positions": list(tools["POSITIONS"]),
        "expected": base64.b64encode(expected.tobytes()).decode(),
    }  # fmt: skip


def judge(path: Path) -> str:
    """`right`, `refused`, `warned`, `wrong` or `lost`, found out in a process of its own."""
    ours, theirs = multiprocessing.Pipe(False)
    process = multiprocessing.Process(target=_judged, args=(path, theirs))
    process.start()
    theirs.close()
    try:
        return str(ours.recv()) if ours.poll(60) else "lost"
    except EOFError:
        return "lost"
    finally:
        process.kill()
        process.join()


def _judged(path: Path, answer: Any) -> None:
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "families")]
    import numpy as np
    from converting import write
    from engine_answers import Engine, computed, nmse
    from synthetic import write_checkpoint

    from llamacli.errors import LlamacliError
    from llamacli.quantize.model import open_model

    case = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as room:
        folder, file = Path(room) / "model", Path(room) / "model.gguf"
        write_checkpoint(folder, case["config"], {name: tuple(shape) for name, shape in case["tensors"].items()})
        try:
            model = open_model(folder)
            write(model, file)
        except LlamacliError:
            answer.send("refused")
            return
        expected = np.frombuffer(base64.b64decode(case["expected"]), "<f4").reshape(len(case["positions"]), -1)
        with Engine(file) as engine:
            found = computed(engine, case)[case["positions"], : expected.shape[1]]
    warned = any("special token" not in warning for warning in model.warnings)
    answer.send("right" if nmse(found, expected) < 2e-6 else "warned" if warned else "wrong")


def main() -> None:
    """Make the cases, or judge them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--make", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.make:
        make(given.folder, given.cases)
        return
    verdicts: Counter[str] = Counter()
    for path in sorted(given.folder.glob("*.json")):
        verdict = judge(path)
        verdicts[verdict] += 1
        print(f"{verdict:8} {path.stem}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))


if __name__ == "__main__":
    main()

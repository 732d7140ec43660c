"""Configurations of real models, with sparse files where the weights would be: planned from headers alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from support import SHARED, Result
from synthetic import write_checkpoint

FOLDER = SHARED / "configs"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
pytestmark = pytest.mark.skipif(not CASES, reason="the larger fixtures are not here")

PARAMETERS = {
    "gemma-2b-it": 2_506_172_416, "llama-2-hf": 6_738_415_616, "llama-3.1-8b-instruct": 8_030_261_248,
    "llama-3.1-70b-instruct": 70_553_706_496,
}  # fmt: skip
"""As the models' cards have them."""


def tensors(config: dict) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama-like block."""
    hidden, ff, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    q, kv = heads * dim, config.get("num_key_value_heads", heads) * dim
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for block in range(config["num_hidden_layers"]):
        for name, shape in (
            ("input_layernorm", (hidden,)), ("mlp.down_proj", (hidden, ff)), ("mlp.gate_proj", (ff, hidden)),
            ("mlp.up_proj", (ff, hidden)), ("post_attention_layernorm", (hidden,)), ("self_attn.k_proj", (kv, hidden)),
            ("self_attn.o_proj", (hidden, q)), ("self_attn.q_proj", (q, hidden)), ("self_attn.v_proj", (kv, hidden)),
        ):  # fmt: skip
            found[f"model.layers.{block}.{name}.weight"] = shape
    found["model.norm.weight"] = (hidden,)
    if config["architectures"] != ["GemmaForCausalLM"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    return found


def write_holes(folder: Path, config: dict) -> None:
    write_checkpoint(folder, config, {})
    header, end = {}, 0
    for name, shape in tensors(config).items():
        size = 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize("name", CASES)
def test_a_real_configuration_is_planned_at_once(name: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    config = json.loads((FOLDER / name / "config.json").read_text())
    write_holes(tmp_path / name, config)
    index = FOLDER / name / "model.safetensors.index.json"
    if index.exists():
        promised = set(json.loads(index.read_text())["weight_map"])
        assert {key for key in promised if "rotary_emb" not in key} == set(tensors(config))
    done = invoke("quantize", tmp_path / name, "--dry-run", "--json", "-q", "Q4_K_M,Q8_0")
    assert done.code == 0, done.err
    outputs = done.json["outputs"]
    assert [output["type"] for output in outputs] == ["Q4_K_M", "Q8_0"]
    assert outputs[0]["weights"] - (0 if "3.1" not in name else config_factors(config)) == PARAMETERS[name]


def config_factors(config: dict) -> int:
    """Rope factors that the file has as a tensor of its own."""
    return config["hidden_size"] // config["num_attention_heads"] // 2

"""Checkpoints that do not fit their family: one line each, which names the tensor; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, Result
from synthetic import write_checkpoint

Case = dict[str, Any]
Break = Callable[[Case], Any]


def moved(old: str, new: str) -> Break:
    def change(case: Case) -> None:
        case["tensors"][new] = case["tensors"].pop(old)

    return change


def lost(name: str) -> Break:
    return lambda case: case["tensors"].pop(name)


def added(name: str, *shape: int) -> Break:
    return lambda case: case["tensors"].update({name: list(shape)})


def configured(**values: object) -> Break:
    return lambda case: case["config"].update(values)


def nothing(case: Case) -> None:
    pass


EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"
CASES: dict[str, tuple[str, Break, int, str]] = {
    "a wrong shape": ("qwen3", configured(intermediate_size=128), 9, "ffn_gate"),
    "a wrong number of heads": ("qwen2", configured(num_attention_heads=8), 9, "attn_k"),
    "a missing tensor": ("qwen3", lost("model.layers.1.self_attn.q_norm.weight"), 9, "blk.1.attn_q_norm"),
    "a missing norm": ("gemma2", lost("model.layers.0.post_feedforward_layernorm.weight"), 9, "blk.0.post_ffw_norm"),
    "an unknown tensor": ("qwen3", added("model.layers.0.mlp.new_proj.weight", 4, 4), 11, "new_proj"),
    "two tensors with one target": ("llama", added("language_model.model.norm.weight", 64), 9, "output_norm.weight"),
    "a missing expert": ("qwen3_moe", lost(EXPERT), 9, "expert 2"),
    "an expert too many": (
        "qwen3_moe", added(EXPERT.replace(".2.", ".4."), 32, 64), 9, "5 experts"),
    "an expert of another shape": ("qwen3_moe", added(EXPERT, 16, 64), 9, "experts.2.up_proj"),
    "all experts of one matrix missing": (
        "mixtral", lambda case: [case["tensors"].pop(f"model.layers.0.block_sparse_moe.experts.{n}.w2.weight")
                                 for n in range(4)], 9, "blk.0.ffn_down_exps"),
    "a fused matrix of the wrong height": ("granite_moe", configured(intermediate_size=64), 9, "input_linear"),
    "long rope of another length": (
        "phi3", lambda case: case["config"]["rope_scaling"].update(long_factor=[1.0] * 7), 9, "long_factor"),
    "an unknown rope": ("qwen3", configured(rope_scaling={"rope_type": "spiral", "factor": 2.0}), 11, "spiral"),
    "a count that is none": ("qwen3", configured(num_hidden_layers="two"), 9, "num_hidden_layers"),
    "more blocks than there are": ("olmo2", configured(num_hidden_layers=3), 9, "blk.2."),
    "fewer blocks than there are": ("olmo2", configured(num_hidden_layers=1), 11, "model.layers.1."),
    "Falcon with alibi": ("falcon_7b", configured(alibi=True), 11, "alibi"),
    "an untied model without its output": ("qwen2", lost("lm_head.weight"), 9, "output.weight"),
    "a vocabulary larger than the embedding": (
        "qwen3", lambda case: case["tensors"].update({"model.embed_tokens.weight": [200, 64]}), 9, "200 rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_line_names_what_does_not_fit(name: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    family, break_it, code, words = CASES[name]
    case = json.loads((ROOT / "tests" / "data" / "families" / f"{family}.json").read_text())
    break_it(case)
    write_checkpoint(tmp_path / "bad", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    done = invoke("quantize", tmp_path / "bad", tmp_path / "out.gguf", "-q", "F32")
    assert (done.code, words in done.err) == (code, True), done.err
    assert len(done.err.splitlines()) <= 2
    assert not (tmp_path / "out.gguf").exists()


def test_an_unknown_architecture_names_its_neighbours(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    case["config"]["architectures"] = ["Qwen33ForCausalLM"]
    write_checkpoint(tmp_path / "bad", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    done = invoke("quantize", tmp_path / "bad", tmp_path / "out.gguf")
    assert done.code == 11
    assert "Qwen3ForCausalLM" in done.err


def test_a_tied_model_may_store_its_matrix_under_the_heads_name(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    moved("model.embed_tokens.weight", "lm_head.weight")(case)
    write_checkpoint(tmp_path / "tied", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    done = invoke("quantize", tmp_path / "tied", tmp_path / "out.gguf", "-q", "F32")
    assert done.code == 0, done.err

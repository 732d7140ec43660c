"""Adapters across families: merged while streaming, and as GGUF adapters beside the base, against sums written out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_answers import Engine, nmse
from support import ROOT, Result
from synthetic import values_of, write_checkpoint
from test_adapters import write_tensors

RANDOM = np.random.default_rng(5)
RANK, ALPHA = 3, 12.0
TOKENS = [5, 300, 17, 42, 9, 120, 77, 3, 51, 64, 80, 11]
NO_MATRICES = ("norm", "embed", "wte", "wpe", "ln_", "router", ".gate.", "mlp.gate.weight")
FAMILIES = (
    "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "phi2", "mixtral", "qwen3_moe", "gpt2", "granite",
    "olmo2", "falcon_7b", "starcoder2", "glm4", "stablelm", "command_r", "nemotron",
)  # fmt: skip
"""Rows permuted (llama, granite, mixtral), matrices fused (phi3, falcon, glm4) or stored as (in, out) (gpt2), experts."""


@lru_cache
def case_of(family: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((ROOT / "tests" / "data" / "families" / f"{family}.json").read_text())
    return value


def matrices(family: str) -> dict[str, tuple[int, int]]:
    """The linear layers of a case: (out, in), whichever way the family stores them."""
    found = {}
    for name, shape in case_of(family)["tensors"].items():
        inside = "layers." in name or ".h." in name
        if inside and name.endswith(".weight") and len(shape) == 2 and not any(part in name for part in NO_MATRICES):
            found[name.removesuffix(".weight")] = (shape[1], shape[0]) if family == "gpt2" else tuple(shape)
    return found


def write_adapter(folder: Path, family: str, **changes: Any) -> dict[str, np.ndarray]:
    """An adapter of every linear layer, and what each adds to its matrix."""
    tensors, added = {}, {}
    for module, (out, columns) in matrices(family).items():
        down = RANDOM.standard_normal((RANK, columns)).astype(np.float32) * 0.1
        up = RANDOM.standard_normal((out, RANK)).astype(np.float32) * 0.1
        tensors[f"base_model.model.{module}.lora_A.weight"], tensors[f"base_model.model.{module}.lora_B.weight"] = (
            down,
            up,
        )
        added[module] = np.float32(ALPHA / RANK) * (up @ down)
    folder.mkdir()
    write_tensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "x/y", "r": RANK,
              "lora_alpha": ALPHA, **changes}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return added


def write_base(folder: Path, family: str) -> None:
    case = case_of(family)
    write_checkpoint(folder, case["config"], {name: tuple(shape) for name, shape in case["tensors"].items()})


def write_summed(folder: Path, family: str, added: dict[str, np.ndarray]) -> None:
    """The base with the changes added by hand, in float32."""
    write_base(folder, family)
    case, tensors = case_of(family), {}
    for name, shape in case["tensors"].items():
        change = added.get(name.removesuffix(".weight"), np.float32(0))
        kind = str(case["config"].get("model_type", ""))
        tensors[name] = values_of(name, tuple(shape), kind) + (change.T if family == "gpt2" else change)
    write_tensors(folder / "model.safetensors", tensors)


def logits(path: Path, adapter: Path | None = None) -> np.ndarray:
    with Engine(path, adapter) as engine:
        return engine.logits(TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_changes_as_the_adapter_says(family: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    added = write_adapter(tmp_path / "adapter", family)
    assert len(added) >= 4
    write_base(tmp_path / "base", family)
    write_summed(tmp_path / "summed", family, added)
    for arguments in (
        ("summed", "expected.gguf", "-q", "F32"), ("base", "base.gguf", "-q", "F32"),
        ("base", "merged.gguf", "-q", "F32", "--lora", tmp_path / "adapter"),
        ("adapter", "adapter.gguf", "--base", tmp_path / "base"),
    ):  # fmt: skip
        done = invoke("quantize", tmp_path / arguments[0], tmp_path / arguments[1], *arguments[2:])
        assert done.code == 0, done.err
    expected = logits(tmp_path / "expected.gguf")
    assert nmse(logits(tmp_path / "base.gguf"), expected) > 1e-4
    assert nmse(logits(tmp_path / "merged.gguf"), expected) < 1e-9
    assert nmse(logits(tmp_path / "base.gguf", tmp_path / "adapter.gguf"), expected) < 1e-6


# -- what is no linear layer of a block --------------------------------------------------------------------------------


def write_special(folder: Path, tensors: dict[str, np.ndarray], **changes: Any) -> None:
    """An adapter of these tensors alone."""
    folder.mkdir()
    write_tensors(folder / "adapter_model.safetensors", {f"base_model.model.{k}": v for k, v in tensors.items()})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "x/y", "r": RANK,
              "lora_alpha": ALPHA, **changes}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


def drawn(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32) * 0.1


def test_embedding_and_output_change_too(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    down, up, head_down, head_up = drawn(RANK, 320), drawn(64, RANK), drawn(RANK, 64), drawn(320, RANK)
    write_special(tmp_path / "adapter", {
        "model.embed_tokens.lora_embedding_A": down, "model.embed_tokens.lora_embedding_B": up,
        "lm_head.lora_A.weight": head_down, "lm_head.lora_B.weight": head_up})  # fmt: skip
    scale = np.float32(ALPHA / RANK)
    added = {"model.embed_tokens": scale * (up @ down).T, "lm_head": scale * (head_up @ head_down)}
    write_base(tmp_path / "base", "llama")
    write_summed(tmp_path / "summed", "llama", added)
    for source, target, *options in (
        ("summed", "expected.gguf", "-q", "F32"), ("base", "base.gguf", "-q", "F32"),
        ("base", "merged.gguf", "-q", "F32", "--lora", tmp_path / "adapter"),
        ("adapter", "adapter.gguf", "--base", tmp_path / "base"),
    ):  # fmt: skip
        assert invoke("quantize", tmp_path / source, tmp_path / target, *options).code == 0
    expected = logits(tmp_path / "expected.gguf")
    assert nmse(logits(tmp_path / "base.gguf"), expected) > 1e-3
    assert nmse(logits(tmp_path / "merged.gguf"), expected) < 1e-9
    assert nmse(logits(tmp_path / "base.gguf", tmp_path / "adapter.gguf"), expected) < 1e-6


def test_whole_tensors_and_trained_biases_take_the_place_of_the_base_s(
    tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    head, bias = drawn(320, 64), drawn(64)
    write_special(tmp_path / "adapter", {
        "lm_head.modules_to_save.weight": head, "lm_head.original_module.weight": drawn(320, 64),
        "model.layers.0.self_attn.q_proj.base_layer.bias": bias,
        "model.layers.0.self_attn.q_proj.lora_A.weight": drawn(RANK, 64),
        "model.layers.0.self_attn.q_proj.lora_B.weight": np.zeros((64, RANK), np.float32)}, bias="all")  # fmt: skip
    write_base(tmp_path / "base", "qwen2")
    write_base(tmp_path / "summed", "qwen2")
    tensors = {name: values_of(name, tuple(shape), "qwen2") for name, shape in case_of("qwen2")["tensors"].items()}
    tensors |= {"lm_head.weight": head, "model.layers.0.self_attn.q_proj.bias": bias}
    write_tensors(tmp_path / "summed" / "model.safetensors", tensors)
    assert invoke("quantize", tmp_path / "summed", tmp_path / "expected.gguf", "-q", "F32").code == 0
    lora = ("--lora", tmp_path / "adapter")
    assert invoke("quantize", tmp_path / "base", tmp_path / "merged.gguf", "-q", "F32", *lora).code == 0
    assert nmse(logits(tmp_path / "merged.gguf"), logits(tmp_path / "expected.gguf")) < 1e-9


EMBEDDING = {
    "model.embed_tokens.lora_embedding_A": drawn(RANK, 320),
    "model.embed_tokens.lora_embedding_B": drawn(64, RANK),
}
QUERY = "model.layers.0.self_attn.q_proj"
PAIR = {f"{QUERY}.lora_A.weight": drawn(RANK, 64), f"{QUERY}.lora_B.weight": drawn(128, RANK)}
EXPERT = "model.layers.0.mlp.experts.1.up_proj"
ONE_EXPERT = {f"{EXPERT}.lora_A.weight": drawn(RANK, 64), f"{EXPERT}.lora_B.weight": drawn(32, RANK)}
REFUSED: dict[str, tuple[str, dict[str, np.ndarray], dict[str, Any], bool, str]] = {
    "an embedding that is the output too": ("qwen3", EMBEDDING, {}, False, "in common with its output"),
    "an output that is the embedding": (
        "qwen3", {"lm_head.modules_to_save.weight": drawn(320, 64)}, {}, True, "in common with its embedding"),
    "one expert of several": ("qwen3_moe", ONE_EXPERT, {}, False, "not every expert"),
    "stacks of experts as parameters": ("qwen3", PAIR, {"target_parameters": ["experts.up"]}, True, "target_parameters"),
    "a bias between the matrices": (
        "qwen3", {**PAIR, f"{QUERY}.lora_B.bias": drawn(128)}, {"lora_bias": True}, True, "lora_B.bias"),
    "a magnitude": ("qwen3", {**PAIR, f"{QUERY}.lora_magnitude_vector": drawn(128)}, {}, True, "lora_magnitude_vector"),
    "a whole tensor beside the base": ("llama", {"lm_head.modules_to_save.weight": drawn(320, 64)}, {}, False, "as a whole"),
    "no alpha": ("qwen3", PAIR, {"lora_alpha": 0}, True, "lora_alpha"),
    "an alpha that is no number": ("qwen3", PAIR, {"lora_alpha": "16"}, True, "lora_alpha"),
    "a pattern that is none": ("qwen3", PAIR, {"rank_pattern": {"(": 3}}, True, "rank_pattern"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_said_is_refused_in_one_line(case: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    family, tensors, changes, merging, words = REFUSED[case]
    write_special(tmp_path / "adapter", tensors, **changes)
    write_base(tmp_path / "base", family)
    lora, beside = ("base", "--lora", tmp_path / "adapter"), ("adapter", "--base", tmp_path / "base")
    source, *options = lora if merging else beside
    done = invoke("quantize", tmp_path / source, tmp_path / "out.gguf", *options)
    assert (done.code in (9, 11), words in done.err) == (True, True), done.err
    assert len(done.err.splitlines()) <= 2
    assert not (tmp_path / "out.gguf").exists()

"""LoRA adapters: merged while rows pass by, or written as GGUF adapters; both against sums written out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converting import plain, read_gguf
from engine_answers import Engine, nmse
from support import MODELS, SHARED, Result

from llamacli.checkpoint.checkpoint import Checkpoint
from llamacli.checkpoint.source import Folder
from llamacli.formats.rows import read_all

BASE = MODELS["tinystories-656k-wide256"]
MODULES = {
    "model.layers.0.self_attn.q_proj": 4, "model.layers.1.self_attn.k_proj": 4, "model.layers.1.self_attn.o_proj": 2,
    "model.layers.0.mlp.gate_proj": 4, "model.layers.1.mlp.down_proj": 8,
}  # fmt: skip
"""Modules that the adapter changes, and their ranks."""
STORY = [1, 300, 5, 700, 42, 9, 1200, 77, 3, 512, 64, 800]
RANDOM = np.random.default_rng(11)


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def base_tensors() -> dict[str, np.ndarray]:
    return {name: read_all(tensor) for name, tensor in Checkpoint.open(Folder(BASE)).tensors.items()}


def write_adapter(
    folder: Path, tensors: Mapping[str, np.ndarray] | None = None, **changes: Any
) -> dict[str, np.ndarray]:
    """A PEFT adapter of the base; returns its tensors."""
    folder.mkdir()
    if tensors is None:
        shapes = {name: values.shape for name, values in base_tensors().items()}
        tensors = {}
        for module, rank in MODULES.items():
            out, columns = shapes[f"{module}.weight"]
            stem = f"base_model.model.{module}"
            tensors[f"{stem}.lora_A.weight"] = RANDOM.standard_normal((rank, columns)).astype(np.float32) * 0.05
            tensors[f"{stem}.lora_B.weight"] = RANDOM.standard_normal((out, rank)).astype(np.float32) * 0.05
    write_tensors(folder / "adapter_model.safetensors", tensors)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(BASE), "r": 4, "lora_alpha": 16,
        "rank_pattern": {"o_proj": 2, "model.layers.1.mlp.down_proj": 8}, "bias": "none", **changes,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return dict(tensors)


def summed(adapter: Mapping[str, np.ndarray], scale: Callable[[str, int], float], folder: Path) -> Path:
    """A checkpoint with the changes added by hand."""
    folder.mkdir()
    tensors = base_tensors()
    for module, rank in MODULES.items():
        stem = f"base_model.model.{module}"
        change = adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
        tensors[f"{module}.weight"] = tensors[f"{module}.weight"] + np.float32(scale(module, rank)) * change
    write_tensors(folder / "model.safetensors", tensors)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((BASE / name).read_bytes())
    return folder


def logits(path: Path, adapter: Path | None = None) -> np.ndarray:
    with Engine(path, adapter) as engine:
        return engine.logits(STORY)


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, lambda module, rank: 16 / rank),
        ({"use_rslora": True}, lambda module, rank: 16 / rank**0.5),
        ({"alpha_pattern": {"q_proj": 40}}, lambda module, rank: (40 if "q_proj" in module else 16) / rank),
    ],
    ids=["alpha over rank", "alpha over the root of the rank", "an alpha of its own"],
)
def test_merged_and_beside_it_both_equal_the_sum(
    changes: dict[str, Any], scale: Callable[[str, int], float], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    adapter = write_adapter(tmp_path / "adapter", **changes)
    by_hand = summed(adapter, scale, tmp_path / "by-hand")
    for arguments in (
        (by_hand, tmp_path / "expected.gguf", "-q", "F32"), (BASE, tmp_path / "base.gguf", "-q", "F32"),
        (BASE, tmp_path / "merged.gguf", "-q", "F32", "--lora", tmp_path / "adapter"),
        (tmp_path / "adapter", tmp_path / "adapter.gguf"),
    ):  # fmt: skip
        done = invoke("quantize", *arguments)
        assert done.code == 0, done.err
    expected = logits(tmp_path / "expected.gguf")
    assert nmse(logits(tmp_path / "base.gguf"), expected) > 1e-3
    assert nmse(logits(tmp_path / "merged.gguf"), expected) < 1e-9
    assert nmse(logits(tmp_path / "base.gguf", tmp_path / "adapter.gguf"), expected) < 1e-9


def test_two_adapters_and_their_weights_add_up(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    first, second = write_adapter(tmp_path / "first"), write_adapter(tmp_path / "second")
    once = summed(first, lambda module, rank: 0.5 * 16 / rank, tmp_path / "once")
    tensors = {name: read_all(tensor) for name, tensor in Checkpoint.open(Folder(once)).tensors.items()}
    for module, rank in MODULES.items():
        stem = f"base_model.model.{module}"
        change = second[f"{stem}.lora_B.weight"] @ second[f"{stem}.lora_A.weight"]
        tensors[f"{module}.weight"] = tensors[f"{module}.weight"] + np.float32(-16 / rank) * change
    write_tensors(once / "model.safetensors", tensors)
    assert invoke("quantize", once, tmp_path / "expected.gguf", "-q", "F32").code == 0
    lora = ("--lora", f"{tmp_path / 'first'}:0.5", "--lora", f"{tmp_path / 'second'}:-1")
    assert invoke("quantize", BASE, tmp_path / "merged.gguf", "-q", "F32", *lora).code == 0
    assert nmse(logits(tmp_path / "merged.gguf"), logits(tmp_path / "expected.gguf")) < 1e-9


def test_the_file_says_that_it_is_an_adapter_and_of_what(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    write_adapter(tmp_path / "adapter", use_rslora=True)
    assert invoke("quantize", tmp_path / "adapter", tmp_path / "adapter.gguf").code == 0
    metadata = read_gguf(tmp_path / "adapter.gguf").metadata
    assert plain(metadata["general.type"]) == "adapter"
    assert plain(metadata["adapter.type"]) == "lora"
    assert plain(metadata["general.architecture"]) == "llama"
    assert plain(metadata["adapter.lora.alpha"]) == 16 * 4**0.5


def other_width(folder: Path) -> None:
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    write_adapter(folder, {f"{stem}.lora_A.weight": np.ones((4, 96)), f"{stem}.lora_B.weight": np.ones((96, 4))})


def other_blocks(folder: Path) -> None:
    stem = "base_model.model.model.layers.9.self_attn.q_proj"
    write_adapter(folder, {f"{stem}.lora_A.weight": np.ones((4, 256)), f"{stem}.lora_B.weight": np.ones((256, 4))})


def half(folder: Path) -> None:
    write_adapter(folder, {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((4, 256))})


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another width": (other_width, "96"),
    "another number of blocks": (other_blocks, "layers.9.self_attn.q_proj"),
    "for classification": (lambda folder: write_adapter(folder, task_type="SEQ_CLS"), "SEQ_CLS"),
    "not LoRA": (lambda folder: write_adapter(folder, peft_type="IA3"), "IA3"),
    "DoRA": (lambda folder: write_adapter(folder, use_dora=True), "DoRA"),
    "an adapter behind some tokens": (lambda folder: write_adapter(folder, alora_invocation_tokens=[5, 6]), "aLoRA"),
    "one matrix of two": (half, "only one of its two matrices"),
    "a rank that is not the configuration's": (lambda folder: write_adapter(folder, rank_pattern={}), "rank"),
    "no weights": (
        lambda folder: (write_adapter(folder), (folder / "adapter_model.safetensors").unlink()), "adapter_model"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("merging", [True, False], ids=["merging", "converting"])
def test_a_bad_adapter_is_refused_in_one_line(
    case: str, merging: bool, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    make, words = BAD[case]
    make(tmp_path / "adapter")
    target = tmp_path / "out.gguf"
    arguments = (BASE, target, "--lora", tmp_path / "adapter") if merging else (tmp_path / "adapter", target)
    done = invoke("quantize", *arguments)
    assert done.code in (9, 11)
    assert words in done.err
    assert len(done.err.splitlines()) <= 2
    assert not target.exists()


def test_an_adapter_without_its_base_says_how_to_name_it(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    write_adapter(tmp_path / "adapter", base_model_name_or_path="/nowhere/at/all")
    done = invoke("quantize", tmp_path / "adapter", tmp_path / "out.gguf")
    assert done.code == 2
    assert "--base" in done.err
    assert invoke("quantize", tmp_path / "adapter", tmp_path / "out.gguf", "--base", BASE).code == 0


@pytest.mark.skipif(not (SHARED / "lora").is_dir(), reason="the larger fixtures are not here")
def test_a_real_adapter_of_another_base_is_refused(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    real = SHARED / "lora" / "qwen2.5-3b-r4-law"
    done = invoke("quantize", BASE, tmp_path / "out.gguf", "--lora", real)
    assert done.code == 9
    assert "Qwen/Qwen2.5-3B-Instruct" in done.err

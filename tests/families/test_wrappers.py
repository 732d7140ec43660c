"""Checkpoints that are more than a text model, or say less than they should: what is converted of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, Result
from synthetic import write_checkpoint

from llamacli.errors import Unsupported
from llamacli.families.config import Config
from llamacli.families.registry import FAMILIES, family_of
from llamacli.families.wrappers import REFUSED, TEXT_MODELS, has_head, text_name, text_prefix


def case(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "tests" / "data" / "families" / f"{name}.json").read_text())
    return loaded


def refused(config: dict[str, Any], tensors: dict[str, Any], folder: Path, invoke: Callable[..., Result]) -> str:
    """What the command says in at most two lines, with the code for what is not supported."""
    write_checkpoint(folder, config, {name: tuple(shape) for name, shape in tensors.items()})
    done = invoke("quantize", folder, folder / "out.gguf", "-q", "F32")
    assert done.code == 11, done.err
    assert len(done.err.splitlines()) <= 2
    return done.err


@pytest.mark.parametrize("architecture", REFUSED)
def test_a_class_that_the_engine_cannot_run_says_why(architecture: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        family_of(Config.of({"architectures": [architecture]}))
    assert architecture in str(refusal.value)


def test_a_wrapper_around_an_unknown_text_model_is_refused(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    llava = case("llava")
    llava["config"]["text_config"]["model_type"] = "unheard_of"
    said = refused(llava["config"], llava["tensors"], tmp_path / "bad", invoke)
    assert "LlavaForConditionalGeneration is not supported" in said
    assert "--list-families" in said


@pytest.mark.parametrize("lost", ["architectures", "model_type"])
def test_without_a_class_the_model_type_tells(lost: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    llama = case("llama")
    del llama["config"][lost]
    write_checkpoint(tmp_path / lost, llama["config"], {name: tuple(shape) for name, shape in llama["tensors"].items()})
    assert invoke("quantize", tmp_path / lost, tmp_path / "out.gguf", "-q", "F32").code == 0


@pytest.mark.parametrize("given", [{}, {"model_type": "unheard_of"}])
def test_a_configuration_that_names_nothing_known_is_refused(
    given: dict[str, Any], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    llama = case("llama")
    config = {name: value for name, value in llama["config"].items() if name not in ("architectures", "model_type")}
    said = refused({**config, **given}, llama["tensors"], tmp_path / "bad", invoke)
    assert given.get("model_type", "config.json names no architecture") in said


def test_a_class_of_ones_own_is_not_taken_for_the_family_of_its_model_type() -> None:
    with pytest.raises(Unsupported, match="MyLlamaForCausalLM"):
        family_of(Config.of({"architectures": ["MyLlamaForCausalLM"], "model_type": "llama"}))


def test_sizes_that_a_nested_configuration_leaves_out_are_those_of_transformers() -> None:
    """The configuration of LLaVA 1.5 7B says no more of its text model than this."""
    raw = {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "vocab_size": 32064},
    }  # fmt: skip
    config = family_of(Config.of(raw)).config(raw)
    assert (config.blocks, config.hidden, config.heads, config.kv_heads) == (32, 4096, 32, 32)
    assert config.get("intermediate_size", "max_position_embeddings") == 11008
    assert config.get("max_position_embeddings") == 4096


def test_the_tensors_of_the_text_model_are_those_beside_its_embedding() -> None:
    names = (
        "vision.embeddings.weight",
        "vision_tower.embeddings.weight",
        "llm.model.embed_tokens.weight",
        "llm.lm_head.weight",
    )
    assert text_prefix(names[1:]) == "llm.model."
    assert text_name("llm.model.layers.0.mlp.up_proj.weight", "llm.model.") == "model.layers.0.mlp.up_proj.weight"
    assert text_name("llm.lm_head.weight", "llm.model.") == "lm_head.weight"
    assert text_name("talker.lm_head.weight", "llm.model.") is None
    assert text_name("projector.weight", "llm.model.") is None
    assert has_head(names[1:])
    assert not has_head(names[1:3])


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("said", [True, False])
def test_the_tensors_say_whether_a_wrapper_is_tied(stored: bool, said: bool) -> None:
    raw = dict(case("llava")["config"])
    raw["text_config"] = {**raw["text_config"], "tie_word_embeddings": said}
    names = ["model.language_model.embed_tokens.weight", *(["lm_head.weight"] if stored else [])]
    assert family_of(Config.of(raw)).config(raw, names).tied is not stored


def test_every_class_of_a_text_model_is_a_familys() -> None:
    known = {name for family in FAMILIES for name in family.architectures}
    assert set(TEXT_MODELS.values()) <= known

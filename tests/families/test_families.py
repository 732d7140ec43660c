"""Every family on a tiny random checkpoint: tensors and keys equal llama.cpp's, logits equal transformers'.

The data files were made with transformers 5.23 (float32, eager attention) and llama.cpp's own converter; the weights are
drawn again from the tensors' names.
"""

from __future__ import annotations

import base64
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converting import architecture_keys, convert, digests, other_keys, read_gguf
from engine_answers import Engine, computed, nmse
from support import ROOT
from synthetic import write_checkpoint

from llamacli.errors import Unsupported
from llamacli.families.config import Config
from llamacli.families.registry import FAMILIES, family_of
from llamacli.formats.gguf_check import check_safe
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine

CASES = {path.stem: path for path in sorted((ROOT / "tests" / "data" / "families").glob("*.json"))}
SETTINGS = {path.stem: path for path in sorted((ROOT / "tests" / "data" / "settings").glob("*.json"))}
"""Families with settings that no published model of theirs has; llama.cpp's converter stops on them or drops the setting."""

INTENDED_KEYS = {
    "bert.pooling_type": "the score is what a classifier's file is for; llama.cpp leaves it to a flag (cases of scores only)",
    "modern-bert.pooling_type": "as bert's",
    "*.rope.freq_base": "written instead of left to the engine's default",
    "chatglm.attention.key_length": "the width of a head, which is not always the residual stream's over the heads",
    "chatglm.attention.value_length": "as key_length",
    "chatglm.attention.layer_norm_rms_epsilon": "the checkpoint's own; llama.cpp writes 1e-5 for all",
    "chatglm.context_length": "max_position_embeddings; llama.cpp writes the residual stream's width",
    "ernie4_5-moe.expert_shared_feed_forward_length": "the shared experts' real width; the engine reads the tensors",
    "modern-bert.attention.layer_norm_epsilon": "norm_eps, without which the engine does not load the file",
    "deepseek2.expert_gating_func": "written instead of left to the engine's guess from the model's size",
    "mistral4.expert_gating_func": "as deepseek2's",
    "mistral4.attention.temperature_scale": "llama.cpp's converter leaves out that attention grows warmer",
    "mistral4.attention.temperature_length": "as temperature_scale",
    "qwen.context_length": "seq_length, which llama.cpp's converter does not read",
    "qwen.attention.layer_norm_rms_epsilon": "layer_norm_epsilon, without which the engine does not load the file",
    "bloom.context_length": "seq_length or 2048; llama.cpp writes the residual stream's width",
    "modern-bert.classifier.pooling_type": "there is no classifier in an encoder",
    "mimo2.nextn_predict_layers": "blocks that predict further tokens are counted in the tensors; llama.cpp counts three",
    "mimo2.block_count": "as nextn_predict_layers",
    "mimo2.attention.head_count_kv": "as nextn_predict_layers",
    "mimo2.attention.sliding_window_pattern": "as nextn_predict_layers",
    "granite.attention.head_count_kv": "one number; llama.cpp writes it for every block of a model made as a hybrid",
    "granite.ssm.*": "a model without state space has none of its sizes",
}
"""Where our keys differ from llama.cpp's converter, and why."""

INTENDED_KEYS_OF_CASE = {
    "llama_embed": (
        "llama-embed.attention.*",
        "written, as for every other Llama, and that every position sees all others",
    ),
    "llama_yarn_corners": (
        "llama.rope.scaling.*",
        "the engine does not read yarn's corners: its rope is written as divisors",
    ),
    "llama_yarn_untruncated": ("llama.rope.scaling.*", "as llama_yarn_corners"),
    "llama_long_rope": ("llama.rope.scaling.*", "llama.cpp's converter leaves the long rope of a Llama out"),
    "qwen2_yarn_attention": ("qwen2.rope.scaling.attn_factor", "the engine does not read yarn_attn_factor"),
    "llava_llama": (
        "llama.attention.*_length",
        "written, as for every other Llama; so does llama.cpp where it knows the class",
    ),
    "llava_mistral": ("llama.attention.*_length", "as llava_llama"),
}
"""Where keys of one case differ, and why."""

INTENDED_OTHERS = {
    ("tokenizer.ggml.add_?os_token", "*"): "written as the post-processor says, instead of left to the engine's guess",
    ("tokenizer.ggml.add_sep_token", "modern_bert*"): "as the post-processor says: none here",
    **{
        (
            f"tokenizer.ggml.{role}_token_id",
            case,
        ): "an id that only config.json, or a default of transformers' class, names is "
        "no role of an ordinary token, which it is in the tokenizer of the cases"
        for role, case in (
            ("padding", "*"),
            ("seperator", "modern_bert*"),
            ("bos", "kimi_linear"),
            ("eos", "hunyuan_*"),
        )
    },
    **{
        ("tokenizer.ggml.token_type_count", case): "llama.cpp writes it with a SentencePiece vocabulary only"
        for case in ("xlm_roberta*", "jina_v3")
    },
    (
        "tokenizer.ggml.pre",
        "*",
    ): "llama.cpp's converter was told gpt-2, for it knows tokenizers by what they make of a text",
    ("general.name", "phi3"): "its hyphen, by which the engine knows how added tokens strip white space",
    ("general.size_label", "*gemma*"): "all rows of the embedding are kept",
    ("general.size_label", "bert_*"): "BERT's pooler is kept",
    ("general.architecture", "nemotron_h"): "read through transformers 5, the configuration has experts",
    **{
        ("general.file_type", case): "llama.cpp's converter does not write it for these families"
        for case in ("gptneox", "mpt")
    },
    ("general.architecture", "jina_v3"): "the case has no task adapters, by which llama.cpp's converter knows it",
    **{
        (f"tokenizer.ggml.{key}", case): "llama.cpp takes any tokenizer of a BERT for WordPiece"
        for key in ("model", "tokens", "merges")
        for case in ("bert*", "distilbert")
    },
}
"""Where keys `general.*` and `tokenizer.*` differ, in which cases, and why."""

INTENDED_TENSORS = {
    (
        "baichuan2_13b",
        "output.weight",
    ): "rows of length one, as Baichuan 2 computes with them; llama.cpp's are as stored",
    **{
        (
            f"bert_{case}",
            f"cls.{part}",
        ): "BERT's pooler, without which the score is another; llama.cpp's converter drops it"
        for case in ("scores", "labels")
        for part in ("weight", "bias")
    },
    ("llama_yarn_corners", "rope_freqs.weight"): "as its keys",
    ("llama_yarn_untruncated", "rope_freqs.weight"): "as its keys",
    ("llama_long_rope", "rope_factors_long.weight"): "as its keys",
    ("llama_long_rope", "rope_factors_short.weight"): "as its keys",
    **{
        ("gemma3n", name): "kept in bf16 as stored, as llama-quantize keeps it in every file"
        for name in (
            "per_layer_model_proj.weight",
            "altup_proj.weight",
            "altup_unembd_proj.weight",
            *(
                f"blk.{block}.{part}.weight"
                for block in range(22)
                for part in ("altup_correct_coef", "altup_predict_coef", "altup_router", "laurel_l", "laurel_r")
            ),
        )
    },
    **{
        ("bamba", f"blk.1.attn_{part}.weight"): "rows are paired within the rotated half of a head; llama.cpp pairs all"
        for part in ("q", "k")
    },
    **{
        (name, "rope_freqs.weight"): "powers are rounded correctly; torch's are off by one unit in the last place"
        for name in ("exaone4", "apertus")
    },
    **{
        (
            name,
            f"blk.{block}.ssm_a",
        ): "exponentials are rounded correctly; torch's are off by one unit in the last place"
        for name in (
            "mamba",
            "falcon_mamba",
            "jamba",
            "nemotron_h",
            "nemotron_h_moe",
            "falcon_h1",
            "falcon_h1_norm",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen3_next",
        )
        for block in range(4)
    },
    **{
        (name, "token_embd.weight"): "all rows are kept and the vocabulary is padded; llama.cpp cuts rows off"
        for name in ("gemma3", "gemma3_vision", "gemma4", "gemma4_e2b", "gemma4_moe", "embedding_gemma")
    },
    ("gemma4_e2b", "per_layer_model_proj.weight"): "kept in bf16 as stored, as llama-quantize keeps it in every file",
    **{
        ("qwen3_vl_moe", f"blk.{block}.ffn_{part}_exps.weight"): "stacks as transformers 5 saves them; llama.cpp takes "
        "them for the Hub's order and transposes"
        for block in range(2)
        for part in ("gate", "up", "down")
    },
}
"""Where our tensors differ, and why."""

LIMITS = {"gpt_oss": 1e-5, "gemma3n": 2e-4}
"""Where the engine itself is not exact: it rounds yarn's corners whatever gpt-oss says (`truncate: false`), and multiplies
with the small bf16 matrices of Gemma 3n in bf16 (8e-7 with these in float32)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def converted(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The case's checkpoint as GGUF, made once, and what is expected of it."""
    case = json.loads((CASES | SETTINGS)[name].read_text())
    path = folder / f"{name}.gguf"
    if not path.exists():
        checkpoint = folder / name
        write_checkpoint(checkpoint, case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
        convert(checkpoint, path)
    return path, case


@pytest.mark.parametrize("name", CASES | SETTINGS)
def test_the_engine_computes_what_transformers_computes(name: str, folder: Path) -> None:
    path, case = converted(name, folder)
    expected = np.frombuffer(base64.b64decode(case["expected"]), "<f4").reshape(len(case["positions"]), -1)
    with Engine(path) as engine:
        found = computed(engine, case)
    found = found[case["positions"], : expected.shape[1]]
    assert nmse(found, expected) < LIMITS.get(name, 1e-6)
    assert found.argmax(1).tolist() == expected.argmax(1).tolist()


@pytest.mark.parametrize("name", CASES)
def test_tensors_equal_llama_cpp(name: str, folder: Path) -> None:
    path, case = converted(name, folder)
    ours = {key: [list(shape), digest[:16]] for key, (shape, _, digest) in digests(read_gguf(path)).items()}
    theirs = case["peer_tensors"]
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert different <= {key for case, key in INTENDED_TENSORS if case == name}


@pytest.mark.parametrize("name", CASES)
def test_keys_equal_llama_cpp(name: str, folder: Path) -> None:
    path, case = converted(name, folder)
    ours, theirs = architecture_keys(read_gguf(path).metadata), case["peer_keys"]
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    patterns = [*INTENDED_KEYS, *INTENDED_KEYS_OF_CASE.get(name, ())[:1]]
    intended = {key for key in different if any(fnmatchcase(key, pattern) for pattern in patterns)}
    assert different == intended


@pytest.mark.parametrize("name", CASES)
def test_general_and_tokenizer_keys_equal_llama_cpp(name: str, folder: Path) -> None:
    path, case = converted(name, folder)
    if "peer_others" not in case:
        assert name == "nomic"  # llama.cpp takes no byte-level tokenizer there
        return
    ours, theirs = other_keys(read_gguf(path).metadata), case["peer_others"]
    only_tokenizer = not any(key.startswith("general.") for key in theirs)
    different = {
        key
        for key in ours.keys() | theirs.keys()
        if ours.get(key) != theirs.get(key) and not (only_tokenizer and key.startswith("general."))
    }
    intended = {
        key
        for key in different
        for pattern, case in INTENDED_OTHERS
        if fnmatchcase(key, pattern) and fnmatchcase(name, case)
    }
    assert different == intended


def test_every_family_is_tried_by_a_case_or_a_fixture() -> None:
    tried = {family_of(Config.of(json.loads(path.read_text())["config"])).title for path in CASES.values()}
    untried = {family.title for family in FAMILIES} - tried
    # The engine computes Phi-3.5 MoE otherwise; Mistral's own format has a test of its own.
    assert untried == {
        "Phi-3.5 MoE",
        "Mistral's own format (params.json)", "Mistral's own format, warmer with the position",
    }  # fmt: skip


def test_no_class_belongs_to_two_families() -> None:
    names = [name for family in FAMILIES for name in family.architectures]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_a_family_says_what_people_call_it_and_gives_an_example(family: Any) -> None:
    assert family.title
    assert family.example.count("/") == 1


def test_stacks_of_experts_are_read_in_both_orders_that_are_shipped() -> None:
    from llamacli.families.qwen_vl import QWEN3_VL_MOE
    from llamacli.formats.rows import InMemory, read_all

    config = Config({"hidden_size": 8, "moe_intermediate_size": 6, "num_experts": 3})
    gate_up = np.random.default_rng(1).standard_normal((3, 12, 8)).astype(np.float32)
    down = np.random.default_rng(2).standard_normal((3, 8, 6)).astype(np.float32)
    both, last = QWEN3_VL_MOE.rules[:2]
    assert both.split and last.transform
    for order in (lambda stack: stack, lambda stack: np.ascontiguousarray(stack.swapaxes(1, 2))):
        parts = dict(both.split("x.mlp.experts.gate_up_proj", InMemory(order(gate_up)), config))
        np.testing.assert_array_equal(read_all(parts["x.mlp.experts.gate_proj.weight"]), gate_up[:, :6])
        np.testing.assert_array_equal(read_all(parts["x.mlp.experts.up_proj.weight"]), gate_up[:, 6:])
        np.testing.assert_array_equal(read_all(last.transform(InMemory(order(down)), config)), down)


@pytest.mark.parametrize("name", CASES)
def test_a_rope_means_the_same_in_the_older_and_in_the_newer_style(name: str) -> None:
    """`rope_theta` and `partial_rotary_factor` beside `rope_scaling`, or all three in `rope_parameters`."""
    case = json.loads(CASES[name].read_text())
    raw = case["config"]
    place = next((part for part in ("text_config", "llm_config") if isinstance(raw.get(part), dict)), "")
    given = raw[place] if place else raw
    rope = {**(given.get("rope_parameters") or given.get("rope_scaling") or {})}
    if "full_attention" in rope:
        return  # each kind of block has its own, which the older style cannot say
    flat = {key: rope.pop(key, given.get(key)) for key in ("rope_theta", "partial_rotary_factor")}
    flat = {key: value for key, value in flat.items() if value is not None}
    rest = {key: value for key, value in given.items() if key not in {"rope_parameters", "rope_scaling", *flat}}
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    styles = (
        given,
        {**rest, "rope_parameters": {**rope, **flat, "rope_type": kind}},
        {**rest, **flat, **({"rope_scaling": {**rope, "type": kind}} if rope or kind != "default" else {})},
    )
    said = []
    for style in styles:
        config = {**raw, place: style} if place else style
        family = family_of(Config.of(config))
        derived = family.config(config, case["tensors"]).derived(scalars=dict.fromkeys(case["tensors"], 1.0))
        said.append({key.name: key.value(derived) for key in family.keys})
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize("name", sorted({*CASES} - {"qwen3_vl", "qwen3_vl_moe"}))
def test_our_check_lets_the_file_through(name: str, folder: Path) -> None:
    """The two that are left out see pictures at every one of their two blocks, which no real model does."""
    path, _ = converted(name, folder)
    check_safe(read_gguf(path))


def test_encoders_of_every_kind_are_refused_as_writers(folder: Path) -> None:
    """The engine would end the process: in them every token of a prompt is an output."""
    for name in ("bert", "embedding_gemma"):
        with pytest.raises(Unsupported, match="embeddings"):
            open_engine(converted(name, folder)[0], EngineSettings(threads=1))

"""Checkpoints that do not fit their family: one line each, which names the tensor; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from converting import digests, read_gguf
from support import ROOT, Result
from synthetic import values_of, write_checkpoint, write_safetensors
from test_adapters import write_tensors

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
    "no blocks": ("qwen3", configured(num_hidden_layers=0), 9, "num_hidden_layers is 0"),
    "more blocks than any model has": ("qwen3", configured(num_hidden_layers=10**9), 9, "num_hidden_layers"),
    "no heads": ("llama", configured(num_attention_heads=0), 9, "num_attention_heads is 0"),
    "a word for a count": ("llama", configured(num_key_value_heads="many"), 9, "num_key_value_heads is 'many'"),
    "a list for a width": ("llama", configured(head_dim=[1]), 9, "head_dim is [1]"),
    "a word for a number": ("qwen3", configured(rms_norm_eps="small"), 9, "config.json: a value"),
    "no number for a number": ("qwen3", configured(rms_norm_eps=float("nan")), 9, "config.json: a value"),
    "a number larger than its type": ("qwen3", configured(rope_theta=1e300), 9, "config.json: a value"),
    "a rope of numbers that are none": (
        "llama", configured(rope_scaling={"rope_type": "llama3", "factor": 0.0}), 9, "config.json: a value"),
    "a vocabulary that is no number": ("llama", configured(vocab_size=[320]), 9, "config.json: a value"),
    "a rope that is a list": ("qwen3", configured(rope_scaling=[1], rope_parameters=None), 9, "config.json: a value"),
    "more experts for a token than there are": ("qwen3_moe", configured(num_experts_per_tok=9), 9, "9 experts"),
    "a count of experts that is wrong": ("qwen3_moe", configured(num_experts=8), 9, "expert 4"),
    "a norm of two dimensions": ("llama", added("model.norm.weight", 64, 1), 9, "output_norm.weight"),
    "a router the other way round": ("qwen3_moe", added("model.layers.0.mlp.gate.weight", 64, 4), 9, "ffn_gate_inp"),
    "an embedding without rows": ("llama", added("model.embed_tokens.weight", 0, 64), 9, "0 rows"),
    "both forms of a tied matrix, of two widths": ("qwen3", added("lm_head.weight", 320, 32), 9, "output.weight"),
    "Falcon with alibi": ("falcon_7b", configured(alibi=True), 11, "alibi"),
    "an untied model without its output": ("qwen2", lost("lm_head.weight"), 9, "output.weight"),
    "a vocabulary larger than the embedding": (
        "qwen3", lambda case: case["tensors"].update({"model.embed_tokens.weight": [200, 64]}), 9, "200 rows"),
    "a norm with a bias": ("llama", added("model.norm.bias", 64), 11, "'model.norm.bias'"),
    "a bias that the graph does not have": ("qwen3", added("model.layers.0.self_attn.o_proj.bias", 64), 11, "o_proj.bias"),
    "heads wider than the graph has them": ("qwen2", configured(head_dim=24), 11, "head_dim 24"),
    "a matrix the other way round": ("llama", added("model.layers.0.mlp.up_proj.weight", 64, 96), 9, "blk.0.ffn_up"),
    "more heads of keys than there are": ("llama", configured(num_key_value_heads=4), 9, "blk.0.attn_k"),
    "an output beside a tied embedding": ("gemma", added("lm_head.weight", 320, 64), 11, "'lm_head.weight'"),
    "a rope in bands": (
        "qwen2", configured(rope_scaling={"rope_type": "llama3", "factor": 8.0}), 11, "rope scaling of type 'llama3'"),
    "a long rope": ("qwen3", configured(rope_scaling={"rope_type": "longrope", "factor": 8.0}), 11, "type 'longrope'"),
    "no class and a type that nobody knows": (
        "llama", configured(architectures=None, model_type="gigamodel"), 11, "architecture gigamodel"),
    "neither class nor type": ("llama", configured(architectures=[], model_type=None), 11, "names no architecture"),
    "a word for the way weights are stored": ("llama", configured(quantization_config="fp8"), 9, "quantization_config"),
    "another activation": ("llama", configured(hidden_act="gelu"), 11, "hidden_act 'gelu'"),
    "another activation, by its other name": ("falcon_7b", configured(activation="relu"), 11, "activation 'relu'"),
    "attention scaled by the block": (
        "gpt2", configured(scale_attn_by_inverse_layer_idx=True), 11, "scale_attn_by_inverse_layer_idx True"),
    "experts weighed in another way": ("qwen2_moe", configured(norm_topk_prob=True), 11, "norm_topk_prob True"),
    "a stretched rope where the engine has none": (
        "command_r", configured(rope_scaling={"rope_type": "linear", "factor": 4.0}), 11, "type 'linear'"),
    "a rope as divisors where the engine takes none": (
        "smollm3_tied", configured(rope_scaling={"rope_type": "llama3", "factor": 8.0}), 11, "type 'llama3'"),
    "a yarn that warms attention in another way": (
        "deepseek_v3", configured(rope_scaling={"rope_type": "yarn", "factor": 8.0}), 11, "mscale_all_dim"),
    "windows nowhere": ("gemma2", configured(layer_types=["full_attention"] * 2), 11, "no block has a window"),
    "windows elsewhere, with another rope": (
        "afmoe", configured(layer_types=["full_attention", *["sliding_attention"] * 3]), 11, "every fourth block"),
    "no convolution in any block": ("lfm2", configured(layer_types=["full_attention"] * 3), 11, "no block convolves"),
    "experts in groups of unequal size": ("deepseek_v3", configured(n_group=3), 9, "3 groups"),
    "no experts for a token": ("qwen3_moe", configured(num_experts_per_tok=0), 9, "goes to 0 experts"),
    "fewer heads of keys than the graph has": ("olmoe", configured(num_key_value_heads=2), 11, "num_key_value_heads is 2"),
    "an unknown way to store weights": ("llama", configured(quantization_config={"quant_method": "hqq"}), 11, "hqq"),
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


NAME = "model.layers.1.mlp.up_proj.weight"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4976698672\n"


def written(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def removed(*names: str) -> Callable[[Path], Any]:
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(end: int) -> Callable[[Path], Any]:
    file = "model.safetensors"
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:end])


def described(**values: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        header[NAME].update(values)
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])

    return change


FILES: dict[str, tuple[Callable[[Path], Any], int, str]] = {
    "weights that are cut off": (cut(-100), 9, "model.safetensors is truncated"),
    "a header that is cut off": (cut(500), 9, "model.safetensors is truncated"),
    "weights without a byte": (cut(0), 9, "model.safetensors is too short"),
    "weights that were not fetched": (written("model.safetensors", POINTER), 9, "Git LFS pointer"),
    "numbers of another size": (described(dtype="F32"), 9, NAME),
    "numbers of no known type": (described(dtype="F9_E4M4"), 11, NAME),
    "integers": (described(dtype="I16"), 11, NAME),
    "a shape the other way round": (described(shape=[64, 96]), 9, "blk.1.ffn_up"),
    "two tensors in one place": (described(data_offsets=[0, 12288]), 9, "overlaps"),
    "no folder's worth of files": (removed("config.json", "model.safetensors", "tokenizer.json"), 11, "no config.json"),
    "a configuration that is cut off": (written("config.json", b'{"architectures": ['), 9, "config.json is not valid JSON"),
    "a configuration in another encoding": (written("config.json", b'{"a": "\xe9"}'), 9, "config.json is not valid JSON"),
    "a list for a configuration": (written("config.json", b"[]"), 9, "config.json is not a JSON object"),
    "no tokenizer": (removed("tokenizer.json", "tokenizer_config.json"), 11, "has no tokenizer"),
    "a tokenizer that was not fetched": (written("tokenizer.json", POINTER), 9, "tokenizer.json is a Git LFS pointer"),
    "a tokenizer without a vocabulary": (written("tokenizer.json", b"{}"), 9, "tokenizer.json has no model"),
    "pickled weights": (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), 11, "pickled"),
    "an index that is cut off": (written("model.safetensors.index.json", b"{"), 9, "index.json is not valid JSON"),
    "an index of nothing": (written("model.safetensors.index.json", b"{}"), 9, "has no weight_map"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_one_line_names_the_file_that_is_bad(name: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    break_it, code, words = FILES[name]
    case = json.loads((ROOT / "tests" / "data" / "families" / "llama.json").read_text())
    write_checkpoint(tmp_path / "bad", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    break_it(tmp_path / "bad")
    done = invoke("quantize", tmp_path / "bad", tmp_path / "out.gguf", "-q", "F32")
    assert (done.code, words in done.err) == (code, True), done.err
    assert len(done.err.splitlines()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


WARNED: dict[str, tuple[str, Break, str]] = {
    "yarn with corners of its own": (
        "qwen2", configured(rope_scaling={"rope_type": "yarn", "factor": 4.0, "beta_fast": 8}), "beta_fast 8"),
    "a rope that stretches": ("llama", configured(rope_scaling={"rope_type": "dynamic", "factor": 4.0}), "stretch the rope"),
    "a window": ("llama", configured(sliding_window=16), "only up to 16 tokens"),
    "a vocabulary larger than the embedding": ("llama", configured(vocab_size=400), "vocab_size of 400"),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNED)
def test_what_the_engine_computes_otherwise_is_said(name: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    family, change, words = WARNED[name]
    case = json.loads((ROOT / "tests" / "data" / "families" / f"{family}.json").read_text())
    change(case)
    write_checkpoint(tmp_path / "bad", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    done = invoke("quantize", tmp_path / "bad", "--dry-run", "-q", "F32")
    assert done.code == 0, done.err
    assert words in done.err + done.out


@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "base_model.model.", "module._orig_mod."])
def test_what_a_trainer_puts_in_front_of_names_is_taken_off(
    front: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / "llama.json").read_text())
    tensors = {f"{front}{key}": tuple(shape) for key, shape in case["tensors"].items()}
    write_checkpoint(tmp_path / "trained", case["config"], tensors)
    done = invoke("quantize", tmp_path / "trained", tmp_path / "out.gguf", "-q", "F32")
    assert done.code == 0, done.err
    assert set(digests(read_gguf(tmp_path / "out.gguf"))) == set(case["peer_tensors"])


@pytest.mark.parametrize("family", ["gemma", "command_r"])
def test_a_tied_embedding_may_be_stored_twice_in_a_family_without_an_output(
    family: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / f"{family}.json").read_text())
    values = {name: values_of(name, tuple(shape)) for name, shape in case["tensors"].items()}
    write_checkpoint(tmp_path / "twice", case["config"], {})
    twice = {"lm_head.weight": values["model.embed_tokens.weight"], **values}
    write_tensors(tmp_path / "twice" / "model.safetensors", twice)
    done = invoke("quantize", tmp_path / "twice", tmp_path / "out.gguf", "-q", "F32")
    assert done.code == 0, done.err
    assert set(digests(read_gguf(tmp_path / "out.gguf"))) == set(case["peer_tensors"])


Parts = dict[str, str]
SHARDS: dict[str, tuple[Callable[[Path, Parts], Any], str]] = {
    "a shard that is not there": (lambda folder, index: (folder / "model-2.safetensors").unlink(), "model-2.safetensors"),
    "a tensor promised in another shard": (
        lambda folder, index: index.update({"model.norm.weight": "model-1.safetensors"}), "model.norm.weight"),
    "a tensor that no shard has": (
        lambda folder, index: index.update({"model.layers.7.x.weight": "model-1.safetensors"}), "model.layers.7.x.weight"),
    "a tensor that the index leaves out": (lambda folder, index: index.pop("model.norm.weight"), "model.norm.weight"),
    "a tensor that stands twice": (
        lambda folder, index: (write_safetensors(folder / "model-3.safetensors", {"model.norm.weight": (64,)}),
                               index.update({"another": "model-3.safetensors"})), "model.norm.weight"),
    "a shard outside of the folder": (lambda folder, index: index.update({"x": "../model.safetensors"}), "../model"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARDS)
def test_an_index_that_lies_is_found_out(name: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    break_it, words = SHARDS[name]
    case = json.loads((ROOT / "tests" / "data" / "families" / "llama.json").read_text())
    tensors = {key: tuple(shape) for key, shape in case["tensors"].items()}
    write_checkpoint(tmp_path / "bad", case["config"], tensors)
    (tmp_path / "bad" / "model.safetensors").unlink()
    index: Parts = {}
    halves = list(tensors)[: len(tensors) // 2], list(tensors)[len(tensors) // 2 :]
    for number, names in enumerate(halves, 1):
        file = f"model-{number}.safetensors"
        write_safetensors(tmp_path / "bad" / file, {key: tensors[key] for key in names})
        index |= dict.fromkeys(names, file)
    break_it(tmp_path / "bad", index)
    (tmp_path / "bad" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    done = invoke("quantize", tmp_path / "bad", tmp_path / "out.gguf", "-q", "F32")
    assert (done.code, words in done.err) == (9, True), done.err
    assert len(done.err.splitlines()) <= 2


@pytest.mark.parametrize(("kept", "code"), [("model.embed_tokens.weight", 0), ("nowhere", 9), ("model.norm.weight", 9)])
def test_a_tensor_may_be_another_one_by_the_header_s_word(
    kept: str, code: int, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    """Tensors that share memory are stored once, and the header's metadata says under which name."""
    case = json.loads((ROOT / "tests" / "data" / "families" / "llama.json").read_text())
    lost("lm_head.weight")(case)
    write_checkpoint(tmp_path / "a", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    file = tmp_path / "a" / "model.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = {"__metadata__": {"format": "pt", "lm_head.weight": kept}, **json.loads(raw[8 : 8 + length])}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    done = invoke("quantize", tmp_path / "a", tmp_path / "out.gguf", "-q", "F32")
    assert done.code == code, done.err
    assert code == 0 or "output.weight" in done.err


def test_an_unknown_architecture_names_its_neighbours(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    case["config"]["architectures"] = ["Qwen33ForCausalLM"]
    write_checkpoint(tmp_path / "bad", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    done = invoke("quantize", tmp_path / "bad", tmp_path / "out.gguf")
    assert done.code == 11
    assert "Qwen3ForCausalLM" in done.err


def test_both_forms_of_a_tied_matrix_are_one_if_they_are_equal_and_two_if_not(
    tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    added("lm_head.weight", 320, 64)(case)
    write_checkpoint(tmp_path / "two", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    values = {name: values_of(name, tuple(shape), "qwen3") for name, shape in case["tensors"].items()}
    one = {**values, "lm_head.weight": values["model.embed_tokens.weight"]}
    write_checkpoint(tmp_path / "one", case["config"], {})
    write_tensors(tmp_path / "one" / "model.safetensors", one)
    for name, said in (("two", True), ("one", False)):
        done = invoke("quantize", tmp_path / name, tmp_path / f"{name}.gguf", "-q", "F32")
        assert done.code == 0, done.err
        assert ("both are kept" in done.err) is said
        assert ("output.weight" in digests(read_gguf(tmp_path / f"{name}.gguf"))) is said


def test_a_tied_model_may_store_its_matrix_under_the_heads_name(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    moved("model.embed_tokens.weight", "lm_head.weight")(case)
    write_checkpoint(tmp_path / "tied", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    done = invoke("quantize", tmp_path / "tied", tmp_path / "out.gguf", "-q", "F32")
    assert done.code == 0, done.err

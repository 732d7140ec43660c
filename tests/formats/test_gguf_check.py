"""Every rule of `gguf_check` as a real small file, and (slow) the proof that the engine needs it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_probe import probe
from tiny_gguf import TOKENS, Model, Tensor, tiny_bpe_model, tiny_expert_model, tiny_model

from llamacli.errors import CorruptFile, LlamacliError, Unsupported
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, f32, string, u32
from llamacli.formats.tensor_types import F16, F64, I32, Q8_0
from llamacli.library.describe import describe

NAN = Value(ValueType.FLOAT32, math.nan)


def key(name: str, value: Value | None, model: Callable[[], Model] = tiny_model) -> Model:
    return model().with_key(name, value)


def with_tokens(tokens: tuple[str | bytes, ...], model: Callable[[], Model] = tiny_model) -> Model:
    return key("tokenizer.ggml.tokens", array(ValueType.STRING, tokens), model)


def replaced(index: int, text: str | bytes) -> tuple[str | bytes, ...]:
    return (*TOKENS[:index], text, *TOKENS[index + 1 :])


def without_head_count(model: Model, heads: int, shared: int) -> Model:
    """Heads that agree with the shapes of the tensors but not with each other."""
    size = 64 // heads
    changes = {"attention.head_count": heads, "attention.head_count_kv": shared, "rope.dimension_count": size}
    for name, number in changes.items():
        model = model.with_key(f"llama.{name}", u32(number))
    for block in range(2):
        for part in ("k", "v"):
            model = model.with_tensor(f"blk.{block}.attn_{part}.weight", shape=(64, size * shared))
    return model


def as_bert(model: Model) -> Model:
    return model.with_key("tokenizer.ggml.model", string("bert"))


def as_architecture(name: str, model: Model) -> Model:
    metadata = {
        k.replace("llama.", f"{name}.", 1) if k.startswith("llama.") else k: v for k, v in model.metadata.items()
    }
    return replace(model, metadata={**metadata, "general.architecture": string(name)})


def as_qwen2() -> Model:
    return as_architecture("qwen2", tiny_model())


def as_olmo2() -> Model:
    """An OLMo 2, which has norms after its matrices."""
    renamed = {"attn_norm": "post_attention_norm", "ffn_norm": "post_ffw_norm"}
    model = as_architecture("olmo2", tiny_model())
    tensors = list(model.tensors)
    for old, new in renamed.items():
        tensors = [replace(t, name=t.name.replace(f".{old}.", f".{new}.")) for t in tensors]
    for block in range(2):
        tensors += [Tensor(f"blk.{block}.attn_q_norm.weight", (64,)), Tensor(f"blk.{block}.attn_k_norm.weight", (32,))]
    return replace(model, tensors=[*tensors, Tensor("output.weight", (64, len(TOKENS)))])


def as_phi3() -> Model:
    """A Phi 3, whose queries, keys and values are one tensor, which is missing."""
    apart = ("attn_q.weight", "attn_k.weight", "attn_v.weight", "ffn_gate.weight")
    model = as_architecture("phi3", tiny_model())
    tensors = [replace(t, shape=(64, 128)) if "ffn_up" in t.name else t
               for t in model.tensors if not t.name.endswith(apart)]  # fmt: skip
    return replace(model, tensors=tensors)


def aligned(alignment: int) -> Model:
    model = tiny_model().with_key("general.alignment", u32(alignment))
    return replace(model, alignment=alignment)


def rwkv(tokens: tuple[str, ...]) -> Model:
    model = with_tokens((*tokens, *(f"token{n}" for n in range(262 - len(tokens)))))
    return model.with_key("tokenizer.ggml.model", string("rwkv"))


CRASHES: dict[str, tuple[Model, str]] = {
    "duplicate token": (with_tokens(replaced(260, "b")), "260 and 261 are both 'b'"),
    "duplicate after a zero byte": (with_tokens(replaced(260, "b\0x")), "260 and 261 are both 'b'"),
    "duplicate of an empty token's stand-in": (
        with_tokens((*replaced(260, "")[:-1], "[EMPTY_260]")), r"260 and 261 are both '\[EMPTY_260\]'"),
    "two empty after a zero byte is fine, two equal are not": (
        with_tokens(replaced(3, "</s>")), "2 and 3 are both '</s>'"),
    "no byte token": (with_tokens(replaced(3 + 0xC3, "<0xZZ>")), "no token <0xC3>"),
    "byte tokens in a WordPiece vocabulary": (as_bert(tiny_model()), "WordPiece"),
    "no blocks": (key("llama.block_count", u32(0)), "block_count is 0"),
    "too many blocks": (key("llama.block_count", u32(513)), "block_count is 513"),
    "more predicting blocks than blocks": (key("llama.nextn_predict_layers", u32(3)), "nextn_predict_layers is 3"),
    "experts used but none there": (key("llama.expert_used_count", u32(2)), "2 of 0 experts"),
    "more experts used than there are": (
        key("llama.expert_used_count", u32(5), tiny_expert_model), "5 of 4 experts"),
    "experts but none used": (key("llama.expert_used_count", None, tiny_expert_model), "0 of 4 experts"),
    "too many experts": (key("llama.expert_count", u32(1025), tiny_expert_model), "2 of 1025 experts"),
    "as many groups as experts": (key("llama.expert_group_count", u32(4), tiny_expert_model), "expert_group_count"),
    "groups that do not divide": (key("llama.expert_group_count", u32(3), tiny_expert_model), "groups"),
    "unknown rope scaling": (key("llama.rope.scaling.type", string("spiral")), "rope.scaling.type is 'spiral'"),
    "negative epsilon": (key("llama.attention.layer_norm_rms_epsilon", f32(-1.0)), "epsilon is -1.0"),
    "epsilon that is no number": (key("llama.attention.layer_norm_rms_epsilon", NAN), "epsilon is nan"),
    "heads that cannot be shared": (without_head_count(tiny_model(), 4, 3), "4 attention heads cannot share 3"),
    "attention without heads": (
        key("olmo2.attention.head_count", None, as_olmo2), "head_count is missing"),
    "half of the rotation": (
        key("qwen2.rope.dimension_count", u32(8), as_qwen2), "dimension_count is 8 of heads with 16"),
    "attention without queries": (as_phi3(), "block 0 has attention without queries"),
    "alignment too small to map": (aligned(8), "general.alignment is 8"),
    "norm in F16": (tiny_model().with_tensor("blk.0.attn_norm.weight", type=F16), "where the engine needs F32"),
    "norm in Q8_0": (tiny_model().with_tensor("output_norm.weight", type=Q8_0), "where the engine needs F32"),
    "weights of whole numbers": (tiny_model().with_tensor("blk.0.attn_q.weight", type=I32), "cannot multiply"),
    "weights in F64": (tiny_model().with_tensor("blk.1.ffn_down.weight", type=F64), "cannot multiply"),
    "key and value heads of two sizes": (
        replace(tiny_model().with_key("llama.attention.value_length", u32(32)), tensors=[
            replace(t, shape=(64, 64)) if "attn_v" in t.name else t for t in tiny_model().tensors]),
        "16 columns for keys and 32 for values"),
    "a beginning that no token is": (
        key("tokenizer.ggml.bos_token_id", None, lambda: key(
            "tokenizer.ggml.model", string("gemma4"), tiny_bpe_model)), "bos_token_id"),
    "a token that others begin with and is none": (rwkv(("\\nab", "<s>")), "no token is the single byte"),
}  # fmt: skip
"""Files on which the engine ends the process, and words of our refusal."""


@pytest.mark.parametrize("name", CRASHES)
def test_what_would_crash_the_engine_is_refused(name: str, tmp_path: Path) -> None:
    model, words = CRASHES[name]
    with pytest.raises((CorruptFile, Unsupported), match=words) as caught:
        check_safe(read_gguf(model.write(tmp_path / "x.gguf")))
    assert "\n" not in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("name", CRASHES)
def test_the_engine_does_crash_without_the_rule(name: str, tmp_path: Path) -> None:
    seconds = 6  # one of them takes half a gigabyte a second until it is stopped
    assert probe(CRASHES[name][0].write(tmp_path / "x.gguf"), seconds) not in ("loaded", "refused", "undecoded")


REFUSED: dict[str, tuple[Model, str]] = {
    "no architecture": (key("general.architecture", None), "general.architecture is missing"),
    "architecture with a zero byte": (key("general.architecture", string("llama\0")), "architecture is missing"),
    "an adapter": (key("general.type", string("adapter")), "adapter"),
    "an encoder of images": (key("general.architecture", string("clip")), "encoder"),
    "no vocabulary": (key("tokenizer.ggml.tokens", None), "no vocabulary"),
    "empty vocabulary": (with_tokens(()), "vocabulary is empty"),
    "no tokenizer to speak of": (key("tokenizer.ggml.model", string("none")), "'none' is not known"),
    "tokens that are numbers": (key("tokenizer.ggml.tokens", array(ValueType.INT32, [1])), "no vocabulary"),
    "a gate that is unknown": (
        key("llama.expert_gating_func", u32(9), tiny_expert_model), "expert_gating_func is 9"),
    "latent attention with several heads for keys": (
        key("llama.attention.key_length_mla", u32(16)), "head_count_kv is not 1"),
    "a window as large as memory": (key("llama.attention.sliding_window", u32(2**31)), "sliding_window is 2,147"),
    "a temperature without length": (key("llama.attention.temperature_length", u32(0)), "temperature_length is 0"),
    "half of a feed-forward network": (
        tiny_model().with_tensor("blk.1.ffn_up.weight", name="blk.1.other.weight"), "half of a feed-forward"),
    "pictures at every block": (key("llama.n_deepstack_layers", u32(2)), "n_deepstack_layers is 2"),
    "unknown pooling": (key("llama.pooling_type", u32(9)), "pooling_type is 9"),
    "odd rotation": (key("llama.rope.dimension_count", u32(7)), "dimension_count is 7"),
    "sections of nothing": (
        key("llama.rope.dimension_sections", array(ValueType.INT32, [0] * 4)), "dimension_sections"),
    "a normalizer that leads astray": (
        key("tokenizer.ggml.precompiled_charsmap", array(ValueType.UINT8, [4, 0, 0, 0, 0, 255, 255, 0, 0, 0]), lambda:
            key("tokenizer.ggml.model", string("t5"))), "leads out of itself"),
    "state that its heads do not divide": (
        key("llama.ssm.inner_size", u32(100), lambda: key("llama.ssm.time_step_rank", u32(3))), "ssm.inner_size"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_dangers_are_refused(name: str, tmp_path: Path) -> None:
    model, words = REFUSED[name]
    with pytest.raises((CorruptFile, Unsupported), match=words):
        check_safe(read_gguf(model.write(tmp_path / "x.gguf")))


HARMLESS: dict[str, Model] = {
    "as it is": tiny_model(),
    "byte-level BPE": tiny_bpe_model(),
    "experts": tiny_expert_model(),
    "one empty token": with_tokens(replaced(260, "")),
    "bytes that no UTF-8 has": with_tokens(replaced(3 + 0xFF, "<0xZZ>")),
    "a byte as itself": with_tokens(replaced(3 + 0x41, "A")),
    "a wider alignment": aligned(64),
    "data after the end": replace(tiny_model(), extra=bytes(1000)),
    "an unknown key": key("something.else", string("\x1b[2J")),
    "a special token out of range": key("tokenizer.ggml.eos_token_id", u32(10**6)),
    "heads listed for each block": key("llama.attention.head_count_kv", array(ValueType.UINT32, [2, 2])),
    "no beginning of text": key("tokenizer.ggml.add_bos_token", boolean(False)),
    "weights in Q8_0": tiny_model().with_tensor("blk.0.attn_q.weight", type=Q8_0),
    "weights in F16": tiny_model().with_tensor("blk.0.attn_q.weight", type=F16),
    "rope scaling": key("llama.rope.scaling.type", string("yarn")),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_odd_but_harmless_files_pass(name: str, tmp_path: Path) -> None:
    check_safe(read_gguf(HARMLESS[name].write(tmp_path / "x.gguf")))


def test_the_engine_takes_the_harmless_ones(tmp_path: Path) -> None:
    for name in ("as it is", "byte-level BPE", "experts", "one empty token", "a wider alignment"):
        assert probe(HARMLESS[name].write(tmp_path / "x.gguf")) == "loaded", name


def test_a_normalizer_that_stays_within_itself_passes(tmp_path: Path) -> None:
    units = [0] * 256
    units[0] = 0  # the root's base is 0: children lie at their own byte
    blob = struct.pack("<I256I", 1024, *units) + b"x\0"
    model = key("tokenizer.ggml.model", string("t5")).with_key(
        "tokenizer.ggml.precompiled_charsmap", array(ValueType.UINT8, blob)
    )
    check_safe(read_gguf(model.write(tmp_path / "x.gguf")))


def test_a_vocabulary_built_in_memory_is_checked_as_well(tmp_path: Path) -> None:
    ours = read_gguf(tiny_model().write(tmp_path / "x.gguf"))
    check_safe(replace(ours, metadata=tiny_model().metadata))


def test_verify_names_the_fault_in_one_line(invoke: Any, tmp_path: Path) -> None:
    path = CRASHES["no blocks"][0].write(tmp_path / "x.gguf")
    done = invoke("verify", path)
    assert done.code == 9 and done.out == ""
    assert done.err.startswith(f"error: {path}: llama.block_count is 0") and done.err.count("\n") == 2


def test_verify_says_ok_on_one_line(invoke: Any, tmp_path: Path) -> None:
    path = tiny_model().write(tmp_path / "x.gguf")
    done = invoke("verify", path)
    assert done.code == 0 and done.err == ""
    assert done.out == f"ok: x.gguf: llama F32, 20 tensors, {path.stat().st_size:,} bytes\n"
    report = invoke("verify", path, "--json").json
    assert report["ok"] is True and report["tensors"] == 20 and report["weights_read"] is True


def test_verify_reads_the_weights_unless_told_otherwise(invoke: Any, tmp_path: Path) -> None:
    data = struct.pack("<64f", *([0.5] * 40), math.inf, *([0.5] * 23))
    path = tiny_model().with_tensor("output_norm.weight", data=data).write(tmp_path / "x.gguf")
    done = invoke("verify", path)
    assert done.code == 9 and "'output_norm.weight' holds NaN or infinity in row 0, column 40" in done.err
    assert invoke("verify", path, "--header").code == 0


def test_errors_are_json_when_asked(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    done = invoke("verify", tmp_path / "x.gguf", "--json")
    body = json.loads(done.err)
    assert done.code == body["exit_code"] == 9 and "within its header" in body["error"] and done.out == ""


def test_a_terminal_is_never_commanded_by_a_file(invoke: Any, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x9b2J"
    model = key("general.name", string(evil)).with_key("tokenizer.chat_template", string(evil))
    model = model.with_key("general.license", string(evil)).with_tensor("output_norm.weight", name=f"n{evil}")
    path = model.with_key("evil" + evil, string(evil)).write(tmp_path / "x.gguf")
    for options in ((), ("--tensors",), ("--keys",), ("--template",), ("--license",), ("--kv", "general.name")):
        done = invoke("show", path, *options)
        assert done.code == 0 and not any(c in done.out + done.err for c in "\x1b\x07\x9b"), options
    duplicate = with_tokens((*replaced(260, evil)[:-1], evil)).write(tmp_path / "y.gguf")
    done = invoke("verify", duplicate)
    assert done.code == 9 and not any(c in done.err for c in "\x1b\x07\x9b")


STRANGE = [Value(ValueType.UINT64, 2**64 - 1), Value(ValueType.STRING, b"\xff"), NAN, boolean(True),
           array(ValueType.STRING, []), array(ValueType.STRING, ["x"]), array(ValueType.FLOAT32, [math.inf]),
           array(ValueType.INT32, [-1, 0, 3]), u32(2**32 - 1), string("")]  # fmt: skip
STRANGE_KEYS = [*tiny_expert_model().metadata, "llama.attention.key_length", "llama.rope.scaling.type",
                "llama.rope.dimension_sections", "llama.attention.layer_norm_epsilon", "llama.pooling_type",
                "llama.nextn_predict_layers", "llama.expert_group_count", "llama.ssm.inner_size", "general.license",
                "llama.ssm.group_count", "llama.attention.sliding_window", "tokenizer.ggml.precompiled_charsmap",
                "general.type", "general.url", "general.sampling.temp", "llamacli.receipt"]  # fmt: skip


@pytest.mark.parametrize("name", STRANGE_KEYS)
def test_strange_values_are_refused_or_shown_but_never_trip_us(name: str, invoke: Any, tmp_path: Path) -> None:
    for number, value in enumerate(STRANGE):
        path = tiny_expert_model().with_key(name, value).write(tmp_path / "x.gguf")
        ours = read_gguf(path)
        try:
            check_safe(ours)
        except LlamacliError as error:
            assert error.message
        json.dumps(describe(ours), allow_nan=False)
        if STRANGE_KEYS.index(name) % len(STRANGE) == number:
            for options in ((), ("--keys",), ("--kv", name, "--json")):
                done = invoke("show", path, *options)
                assert done.code in (0, 1) and "internal error" not in done.err, (value, options, done.err)


def test_a_tensor_of_indices_may_hold_whole_numbers(tmp_path: Path) -> None:
    model = tiny_model()
    model = replace(model, tensors=[*model.tensors, Tensor("d2t", (32,), I32)])
    check_safe(read_gguf(model.write(tmp_path / "x.gguf")))

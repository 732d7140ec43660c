"""Chosen types against the engine's own quantizer: tiny files of many kinds, every file type, every override."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from llamacli.errors import Unsupported, UsageError
from llamacli.formats.gguf_values import ValueType, array, string, u32
from llamacli.formats.tensor_types import (
    BF16,
    BY_ID,
    BY_NAME,
    F16,
    F32,
    IQ2_S,
    Q4_K,
    Q5_0,
    Q5_K,
    Q6_K,
    Q8_0,
    TensorType,
)
from llamacli.quantize.choose import Choice, choose_types, needing_matrix, require_matrix
from llamacli.quantize.overrides import Overrides
from llamacli.quantize.place import Model
from llamacli.quantize.prune import prune_layers
from llamacli.quantize.recipes import RECIPES
from llamacli.quantize.roles import Shape

WIDE, ROWS = 256, 2
DENSE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
FUSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
EXPERTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
BOTH_FEED_FORWARDS = (*EXPERTS, "ffn_down_shexp", "ffn_up_shexp", "ffn_gate_shexp")
ODD = (
    "ffn_gate_inp", "attn_norm", "ssm_conv1d", "altup_proj", "laurel_l", "time_mix_w1", "attn_rel_b", "cross_attn_v",
    "attn_kv_b", "attn_v_b", "ssm_in", "indexer.attn_k", "indexer.k_proj", "shortconv.conv", "time_mix_key",
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A file to be written: measures, the tensors of each block, and keys that the architecture needs besides."""

    model: Model
    kinds: Callable[[int], Sequence[str]]
    keys: dict[str, int | float | list[int]] = field(default_factory=dict)
    columns: int = WIDE
    tied: bool = False
    outside: tuple[str, ...] = ()

    def tensors(self) -> Iterator[Shape]:
        """Every tensor, in an order that is not the engine's."""
        yield Shape("token_embd.weight", (self.columns, ROWS))
        yield Shape("output_norm.weight", (self.columns,))
        for name in self.outside:
            yield Shape(name, (self.columns, ROWS))
        for block in reversed(range(self.model.blocks)):
            for kind in self.kinds(block):
                stack = (2,) if kind.endswith(("_exps", "attn_v_b")) else ()
                yield Shape(f"blk.{block}.{kind}.weight", (self.columns, ROWS, *stack))
        if not self.tied:
            yield Shape("output.weight", (self.columns, ROWS))


def plain(*kinds: str) -> Callable[[int], Sequence[str]]:
    return lambda block: kinds


def model(architecture: str = "llama", blocks: int = 16, heads: int = 8, kv: int = 8, experts: int = 0) -> Model:
    return Model(architecture, blocks, heads, kv, experts)


GLM5 = {
    "attention.key_length_mla": 64, "attention.value_length_mla": 64, "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": 64, "ssm.conv_kernel": 4, "kda.head_dim": 64, "expert_feed_forward_length": 64,
    "expert_shared_count": 1, "attention.indexer.head_count": 1, "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 4, "attention.indexer.kpool": 2, "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 1, "hyper_connection.epsilon": 1e-6,
}  # fmt: skip
LING = {
    "attention.key_length_mla": 64, "attention.value_length_mla": 64, "attention.kv_lora_rank": 64,
    "ssm.conv_kernel": 4, "kda.head_dim": 64, "kda.gate_lower_bound": -1.0, "expert_feed_forward_length": 64,
    "expert_shared_count": 1, "leading_dense_block_count": 1, "expert_gating_func": 2,
}  # fmt: skip

EXAMPLES = {
    "llama": Example(model(), plain(*DENSE)),
    "llama-tied": Example(model(blocks=9), plain(*DENSE), tied=True),
    "llama-shared-kv": Example(model(heads=8, kv=2), plain(*DENSE)),
    "llama-rows-of-128": Example(model(blocks=8), plain(*DENSE), columns=128),
    "llama-rows-of-172": Example(model(blocks=2), plain(*DENSE), columns=172, tied=True),
    "llama-70b": Example(model(blocks=80, heads=8, kv=4), plain("attn_v", "ffn_down")),
    "llama-65b": Example(model(blocks=80), plain("attn_v", "ffn_down")),
    "qwen2-72b": Example(model("qwen2", blocks=80), plain("attn_v", "ffn_down")),
    "jais2-70b": Example(model("jais2", blocks=68), plain("attn_v", "ffn_down")),
    "falcon": Example(model("falcon", blocks=32, kv=1), plain(*FUSED)),
    "falcon-tied": Example(model("falcon", blocks=16), plain(*FUSED), tied=True),
    "falcon-eight-experts": Example(model("falcon", kv=1, experts=8), plain(*EXPERTS)),
    "eight-experts": Example(model(experts=8), plain(*EXPERTS)),
    "eight-experts-unshared": Example(model(blocks=33, experts=8), plain(*BOTH_FEED_FORWARDS)),
    "four-experts": Example(model(blocks=20, experts=4), lambda b: BOTH_FEED_FORWARDS if b > 2 else DENSE),
    "two-experts": Example(model(blocks=10, experts=2), lambda b: EXPERTS if b % 2 else DENSE),
    "hybrid": Example(model(blocks=24), lambda b: DENSE if b % 4 == 3 else ("attn_qkv", "ssm_in", *DENSE[4:])),
    "odd-names": Example(model(blocks=8), plain(*DENSE, *ODD), outside=("position_embd.weight", "token_types.weight")),
    "second-embeddings": Example(
        model(blocks=2),
        plain(*DENSE),
        tied=True,
        outside=("per_layer_token_embd.weight", "per_layer_model_proj.weight"),
    ),
    "encoder-decoder": Example(
        model(blocks=12),
        plain("ffn_down"),
        outside=tuple(f"{side}.blk.{b}.{k}.weight" for side in ("enc", "dec") for b in range(12) for k in DENSE),
    ),
    "ling3": Example(model("bailingmoe3", 4, experts=4), plain(*EXPERTS, "attn_v_b"), LING),
    "glm5": Example(
        model("glm5-next", 4, experts=4), plain(*EXPERTS, "attn_v_b", "attn_q_a", "attn_q_b", "hc_x", "ssm_f_a"), GLM5
    ),
}


def write_source(path: Path, example: Example) -> dict[str, TensorType]:
    """Write the example as bf16 with norms and routers in f32, and say which is which."""
    measures, rng = example.model, np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, measures.architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(example.columns)
    writer.add_block_count(measures.blocks)
    writer.add_feed_forward_length(64)
    writer.add_head_count(measures.heads)
    writer.add_head_count_kv(measures.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    if measures.experts:
        writer.add_expert_count(measures.experts)
        writer.add_expert_used_count(2)
    for key, value in example.keys.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{measures.architecture}.{key}", value)
    types = {}
    for tensor in example.tensors():
        values = rng.standard_normal(tensor.shape[::-1], np.float32)
        single = "norm" in tensor.name or "ffn_gate_inp" in tensor.name
        types[tensor.name] = F32 if single else BF16
        if single:
            writer.add_tensor(tensor.name, values)
        else:
            halves = (values.view(np.uint32) >> 16).astype(np.uint16)
            writer.add_tensor(tensor.name, halves.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return types


def stored_types(path: Path) -> dict[str, TensorType]:
    """Name and type of each tensor, read here field by field: gguf's reader lacks the newest types."""
    data, at = path.read_bytes(), 24
    tensors, pairs = struct.unpack_from("<QQ", data, 8)

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("<Q")
        at += length
        return data[at - length : at].decode()

    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    for _ in range(pairs):
        text()
        kind = number("<I")
        assert kind != 9, "these files have no arrays"
        if kind == 8:
            text()
        else:
            at += sizes[kind]
    found = {}
    for _ in range(tensors):
        name = text()
        dimensions = number("<I")
        at += 8 * dimensions
        found[name] = BY_ID[number("<I")]
        at += 8
    return found


class Engine:
    """The engine's own quantizer: what it writes, or (`dry`) what it says that it would write.

    A dry run spares the codebooks of the types of two bits and fewer, which take ten seconds to compute.
    """

    def __init__(self, log: list[bytes]) -> None:
        self.log = log

    def types(
        self, source: Path, example: Example, file_type: int, overrides: Overrides, *, matrix: bool, dry: bool = False
    ) -> dict[str, TensorType] | None:
        """The type of each tensor, or None where the engine refuses."""
        import llama_cpp.llama_cpp as lc

        parameters = lc.llama_model_quantize_default_params()
        parameters.ftype, parameters.nthread, parameters.dry_run = file_type, 1, dry
        parameters.pure = overrides.pure
        parameters.quantize_output_tensor = not overrides.leave_output
        if overrides.output:
            parameters.output_tensor_type = overrides.output.id
        if overrides.token_embedding:
            parameters.token_embedding_type = overrides.token_embedding.id
        patterns = [(pattern.encode(), type_.id) for pattern, type_ in overrides.tensor_types]
        named = (lc.llama_model_tensor_override * (len(patterns) + 1))(*patterns, (None, 0))
        parameters.tt_overrides = named if patterns else None
        weights = [
            (tensor.name.encode(), (ctypes.c_float * size)(*([1.0] * size)), size) for tensor, size in sizes(example)
        ]
        table = (lc.llama_model_imatrix_data * (len(weights) + 1))(*weights, (None, None, 0))
        parameters.imatrix = table if matrix else None
        self.log.clear()
        target = source.with_suffix(".out")
        code = lc.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters))
        if code:
            return None
        return announced_types(b"".join(self.log).decode()) if dry else stored_types(target)


def sizes(example: Example) -> Iterator[tuple[Shape, int]]:
    """Each tensor with the number of values that an importance matrix has for it."""
    for tensor in example.tensors():
        yield tensor, tensor.columns * (tensor.shape[2] if len(tensor.shape) > 2 else 1)


def announced_types(log: str) -> dict[str, TensorType]:
    """Name and type of each tensor from the lines of a dry run: `] NAME - [SHAPE], type = OLD, size = ... (NEW)`."""
    lines = re.findall(r"^\[ *\d+/ *\d+\] (\S+) +- \[.*\], type = +(\w+), size = [^(\n]*(?:\((\w+)\))?$", log, re.M)
    return {name: BY_NAME[(new or old).upper()] for name, old, new in lines}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The quantizer, with its log collected; afterwards the log goes where it went before."""
    import llama_cpp.llama_cpp as lc

    before, data = lc.llama_log_callback(), ctypes.c_void_p()
    lc.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    log: list[bytes] = []
    collect = lc.llama_log_callback(lambda level, text, user_data: log.append(text))
    lc.llama_log_set(collect, None)
    yield Engine(log)
    lc.llama_log_set(before, data)


def our_types(
    example: Example, name: str, overrides: Overrides, matrix: bool, sources: dict[str, TensorType]
) -> dict[str, Choice]:
    return choose_types(
        list(example.tensors()), example.model, RECIPES[name], overrides, has_imatrix=matrix, source_types=sources
    )


def differences(choices: dict[str, Choice], engine: dict[str, TensorType]) -> dict[str, str]:
    ours = {name: choice.type for name, choice in choices.items()}
    assert ours.keys() == engine.keys()
    return {name: f"{ours[name]}, the engine {engine[name]}" for name in ours if ours[name] is not engine[name]}


USE_MATRIX = ("Q4_0", "Q5_0", "IQ4_NL", "IQ4_XS", "Q4_K_M")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_file_type_has_the_types_that_the_engine_writes(kind: str, engine: Engine, tmp_path: Path) -> None:
    example, source = EXAMPLES[kind], tmp_path / "source.gguf"
    stored = write_source(source, example)
    for name, recipe in RECIPES.items():
        for matrix in (False, True) if recipe.needs_matrix or name in USE_MATRIX else (False,):
            dry = recipe.needs_matrix and matrix
            written = engine.types(source, example, recipe.file_type, Overrides(), matrix=matrix, dry=dry)
            try:
                choices = our_types(example, name, Overrides(), matrix, stored)
            except Unsupported:
                assert written is None
                continue
            if written is None:
                assert needing_matrix(choices, recipe) and not matrix, name
                continue
            assert matrix or not needing_matrix(choices, recipe), name
            assert not differences(choices, written), (name, matrix)


OVERRIDES = {
    "pure": Overrides(pure=True),
    "leave-output": Overrides(leave_output=True),
    "output": Overrides(output=Q8_0),
    "output-f16": Overrides(output=F16),
    "output-pure": Overrides(output=Q8_0, pure=True),
    "embeddings": Overrides(token_embedding=Q5_K),
    "both": Overrides(token_embedding=Q5_0, output=Q6_K, leave_output=True),
    "named": Overrides((("attn_v", Q8_0), (r"blk\.[0-3]\.ffn_down", Q6_K))),
    "named-first-wins": Overrides((("ffn", Q5_0), ("ffn_down", Q6_K), ("token_embd", Q4_K)), token_embedding=Q8_0),
    "named-twice": Overrides((("per_layer", Q4_K),), token_embedding=Q8_0, output=F16),
    "named-pure": Overrides((("attn_k", F16),), pure=True),
    "named-needs-matrix": Overrides((("ffn_up", IQ2_S),)),
    "named-output": Overrides((("output.weight", Q5_K),), output=Q8_0),
}


@pytest.mark.parametrize("flags", OVERRIDES)
@pytest.mark.parametrize("kind", ["llama", "llama-tied", "llama-rows-of-128", "four-experts", "second-embeddings"])
def test_overrides_mean_what_they_mean_to_llama_quantize(kind: str, flags: str, engine: Engine, tmp_path: Path) -> None:
    example, overrides = EXAMPLES[kind], OVERRIDES[flags]
    if example.columns % 256 and overrides.token_embedding is Q5_K:
        overrides = replace(overrides, token_embedding=Q5_0)
    if example.columns % 256 and overrides.output is Q6_K:
        overrides = replace(overrides, output=Q8_0)
    sources = write_source(tmp_path / "source.gguf", example)
    for name in ("F16", "Q4_0", "Q4_K_M", "MXFP4_MOE"):
        written = engine.types(tmp_path / "source.gguf", example, RECIPES[name].file_type, overrides, matrix=False)
        choices = our_types(example, name, overrides, False, sources)
        if written is None:
            assert needing_matrix(choices, RECIPES[name]), name
            continue
        assert not differences(choices, written), name


@pytest.mark.parametrize("layers", [(0,), (3, 4, 9), (15,), (1, 15)])
def test_pruned_layers_move_up_and_get_the_types_that_the_engine_gives_them(
    layers: tuple[int, ...], engine: Engine, tmp_path: Path
) -> None:
    import llama_cpp.llama_cpp as lc

    example = EXAMPLES["llama-shared-kv"]
    sources = write_source(tmp_path / "source.gguf", example)
    parameters = lc.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = RECIPES["Q4_K_M"].file_type, 1
    parameters.prune_layers = (ctypes.c_int * (len(layers) + 1))(*layers, -1)
    code = lc.llama_model_quantize(
        bytes(tmp_path / "source.gguf"), bytes(tmp_path / "out.gguf"), ctypes.byref(parameters)
    )
    assert code == 0
    renamed = prune_layers([tensor.name for tensor in example.tensors()], layers)
    left = [replace(t, name=new) for t in example.tensors() if (new := renamed[t.name])]
    moved = {new: sources[old] for old, new in renamed.items() if new}
    choices = choose_types(left, example.model, RECIPES["Q4_K_M"], source_types=moved)
    assert not differences(choices, stored_types(tmp_path / "out.gguf"))


def test_a_type_that_cannot_hold_the_rows_of_the_head_is_refused_with_its_flag() -> None:
    with pytest.raises(UsageError, match=r"--output-tensor-type Q6_K: output\.weight has rows of 128"):
        choose_types([Shape("output.weight", (128, 4))], model(), RECIPES["F16"], Overrides(output=Q6_K))


def test_nothing_stands_in_for_a_type_of_128_that_does_not_fit() -> None:
    with pytest.raises(Unsupported, match=r"attn_q\.weight: rows of 64"):
        choose_types([Shape("blk.0.attn_q.weight", (64, 4))], model(), RECIPES["Q1_0"])


def test_a_fallback_says_which_rows_did_not_fit() -> None:
    choices = choose_types([Shape("blk.0.attn_q.weight", (128, 4))], model(), RECIPES["Q4_K_M"])
    assert choices["blk.0.attn_q.weight"] == Choice(
        Q5_0, "fallback from Q4_K: rows of 128 are not a multiple of 256", fallback=True
    )


def test_a_missing_matrix_is_named_with_the_tensor_and_the_way_out() -> None:
    tensors = list(EXAMPLES["llama"].tensors())
    choices = choose_types(tensors, model(), RECIPES["IQ2_M"])
    with pytest.raises(UsageError, match="IQ2_M needs an importance matrix: blk") as caught:
        require_matrix(choices, RECIPES["IQ2_M"])
    assert "--imatrix" in caught.value.hint
    require_matrix(choices, RECIPES["IQ2_M"], has_imatrix=True)
    require_matrix(choose_types(tensors, model(), RECIPES["IQ3_M"]), RECIPES["IQ3_M"])


def test_recipes_that_need_a_matrix_say_so() -> None:
    tensors = list(EXAMPLES["llama"].tensors())
    needing = {
        name for name, recipe in RECIPES.items() if needing_matrix(choose_types(tensors, model(), recipe), recipe)
    }
    assert needing == {name for name, recipe in RECIPES.items() if recipe.needs_matrix}
    assert needing == {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"}


def test_a_model_is_read_from_metadata() -> None:
    metadata = {
        "general.architecture": string("llama"),
        "llama.block_count": u32(80),
        "llama.attention.head_count": u32(64),
        "llama.attention.head_count_kv": array(ValueType.INT32, [8] * 80),
    }
    read = Model.of(metadata)
    assert read == Model("llama", 80, 64, 8, 0)
    assert read.heads_per_kv == 8 and read.is_70b
    del metadata["llama.attention.head_count_kv"]
    assert Model.of(metadata).heads_per_kv == 1
    assert not Model.of(metadata).is_70b


def test_choosing_types_imports_neither_numpy_nor_the_engine() -> None:
    code = "import sys, llamacli.quantize.choose, llamacli.quantize.prune; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "llama_cpp", "gguf"} & set(loaded)

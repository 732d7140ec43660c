"""Whether the engine can be given a GGUF file: rules whose breach ends our process inside native code.

llama.cpp answers most bad metadata with an error; the faults below reach an assertion, an uncaught C++ exception or an
endless loop instead, and would take the whole process with them. Each rule names what it prevents. Nothing else is
refused: an odd file that the engine loads, or rejects with a message of its own, passes. Found by reading llama.cpp
0.3.36's `llama-model.cpp`, `llama-vocab.cpp` and ggml's CPU operators, and by loading thousands of mutated files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

from llamacli.errors import CorruptFile, LlamacliError, Unsupported
from llamacli.formats.gguf_reader import GGUF, TensorInfo
from llamacli.formats.gguf_vocabulary import check_vocabulary
from llamacli.formats.tensor_types import F32, F64, I8, I16, I32, I64, Q8_1, Q8_K, TensorType

MAX_BLOCKS = 512
MAX_EXPERTS = 1024
MAX_HEADS = 1 << 16
MAX_HEAD_SIZE = 1 << 20
MAX_WINDOW = 1 << 24
MAPPED_ALIGNMENT = 32
"""Bytes: ggml places weights where they lie in the mapped file and wants them aligned so."""

ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
POOLINGS = (0, 1, 2, 3, 4, 0xFFFFFFFF)
GATINGS = (1, 2, 3, 4)
EPSILONS = ("layer_norm_rms_epsilon", "layer_norm_epsilon", "group_norm_epsilon")

NOT_ALONE: dict[str, str] = {
    "clip": "a vision or audio encoder (mmproj)",
    "dflash": "a draft model",
    "eagle3": "a draft model",
    "gemma4-assistant": "a draft model",
    "wavtokenizer-dec": "an audio decoder",
    "pockettts": "an audio decoder",
}
"""Architectures that cannot answer by themselves; the engine aborts when asked."""

EXPERTS_ONLY = ("bailingmoe2", "ernie4_5-moe", "grovemoe", "llada-moe", "smallthinker")
"""Architectures that assert that there are experts."""

ONE_HEAD_SIZE = """
    afmoe apertus arcee arctic baichuan bailingmoe2 bert bitnet bloom chameleon chatglm codeshell cogvlm cohere2
    cohere2moe command-r dbrx deci deepseek dots1 dream ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4
    falcon glm4 glm4moe gpt-oss gpt2 gptneox granite granitehybrid granitemoe grok grovemoe hunyuan-dense
    hunyuan-moe internlm2 jais jais2 jina-bert-v2 jina-bert-v3 laguna llada llada-moe llama llama-embed llama4
    maincoder mellum minimax-m2 mistral3 modern-bert mpt nanbeige nemotron nemotron_h nemotron_h_moe neo-bert
    nomic-bert nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo qwen
    qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe refact rnd1 seed_oss
    smallthinker smollm3 stablelm starcoder starcoder2 talkie xverse
"""
"""Architectures whose graph asserts that keys and values have heads of one size."""

WHOLE_ROTATION = """
    apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1 dream ernie4_5
    ernie4_5-moe exaone exaone-moe exaone4 falcon gpt-oss granite granite_swa granitemoe graniteswitch grok grovemoe
    hunyuan-dense hunyuan-moe hy_v3 internlm2 jais2 llada llada-moe llama llama-embed llama4 maincoder mellum
    mistral3 olmo olmo2 olmoe orion paddleocr pangu-embedded plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl
    qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 talkie xverse
"""
"""Architectures whose graph asserts that all columns of a head are rotated, or lays its tensors out so."""

LATENT = ("deepseek2", "deepseek2-ocr", "deepseek32", "glm-dsa", "mistral4")
"""Architectures whose keys are the latent row with the rotated columns behind it."""

NO_ROTATION = ("glm5-next", "kimi-linear", "kimi-k3")
"""Architectures that may rotate nothing; ggml never ends where others rotate no columns."""

ONLY_F32 = ("_norm.weight", ".bias", "ssm_conv1d.weight", "shortconv.conv.weight", "ssm_a", "ssm_d")
"""Ends of the names of tensors that are added, multiplied or convolved, which ggml does in F32 only."""

NO_PRODUCT: tuple[TensorType, ...] = (I8, I16, I32, I64, F64, Q8_1, Q8_K)
"""Types that ggml cannot multiply by."""

INDEX_TENSORS = ("d2t", "ffn_gate_tid2eid.weight", "masked_embd_ordering.weight")
"""Ends of the names of tensors that hold whole numbers by design."""

ATTENTION = ("attn_q.weight", "attn_qkv.weight", "attn_q_a.weight", "attn_output.weight")
QUERIES = ("attn_qkv.weight", "attn_q.weight", "attn_q_a.weight", "attn_q_b.weight")
"""Where queries may come from; one of them stands in every block with attention."""

_BLOCK_TENSOR = re.compile(r"blk\.(?P<block>\d+)\.(?P<name>.+)")
_HINT = "the engine would crash on it; get the file from its maker again, or convert the model again"


def check_safe(gguf: GGUF) -> None:
    """Raise `CorruptFile` or `Unsupported` where the engine would crash on this model.

    Needs a file read with its arrays. Looks at metadata and the table of tensors, not at weights.
    """
    _check_architecture(gguf)
    for rule in RULES:
        rule(gguf)
    check_vocabulary(gguf)


def _check_architecture(gguf: GGUF) -> None:
    name = gguf.architecture
    if not name or "\0" in name:
        raise _fault(gguf, "general.architecture is missing", "it is no model; perhaps a vocabulary or an adapter")
    if gguf.get("general.type", "model") == "adapter":
        raise Unsupported(f"{gguf.path} is an adapter, not a model", "give it with --lora beside its base model")
    if name in NOT_ALONE:
        raise Unsupported(f"{gguf.path} is {NOT_ALONE[name]}, not a model that can be run by itself")


def _check_blocks(gguf: GGUF) -> None:
    blocks = _number(gguf, "{arch}.block_count")
    if blocks is None:
        return
    if not 1 <= blocks <= MAX_BLOCKS:
        raise _fault(gguf, f"{{arch}}.block_count is {blocks}, not 1 to {MAX_BLOCKS}")
    predicting = _number(gguf, "{arch}.nextn_predict_layers") or 0
    if predicting >= blocks:
        raise _fault(gguf, f"{{arch}}.nextn_predict_layers is {predicting} of {blocks} blocks")
    seeing = _number(gguf, "{arch}.n_deepstack_layers") or 0
    if seeing >= blocks:  # the last block has rows only for the tokens whose logits are wanted
        raise _fault(gguf, f"{{arch}}.n_deepstack_layers is {seeing} of {blocks} blocks")


_WITH_CONVOLUTIONS = ("lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe")
_WITH_WINDOWS = ("exaone-moe", "olmo2")


def _check_kinds(gguf: GGUF) -> None:
    """Blocks of one kind alone, where the engine makes memory for two."""
    heads = gguf.get("{arch}.attention.head_count_kv")
    if gguf.architecture in _WITH_CONVOLUTIONS and isinstance(heads, tuple) and heads and all(heads):
        raise _fault(gguf, "{arch}.attention.head_count_kv has heads in every block, no block is without attention")
    recurrent = gguf.get("{arch}.attention.recurrent_layers")
    if isinstance(recurrent, tuple) and recurrent and not any(recurrent):
        raise _fault(gguf, "{arch}.attention.recurrent_layers names no block")
    near = gguf.get("{arch}.attention.sliding_window_pattern")
    windowed = gguf.architecture in _WITH_WINDOWS and _number(gguf, "{arch}.attention.sliding_window")
    if windowed and isinstance(near, tuple) and near and not any(near):
        raise _fault(gguf, "{arch}.attention.sliding_window_pattern names no block")


def _check_experts(gguf: GGUF) -> None:
    count = _number(gguf, "{arch}.expert_count") or 0
    used = max(_numbers(gguf, "{arch}.expert_used_count"), default=0)
    if gguf.architecture in ("hunyuan-dense", "hunyuan_vl") and count <= 1:
        return
    if count > MAX_EXPERTS or used > count or (count and not used):
        raise _fault(gguf, f"{{arch}}.expert_used_count is {used} of {count} experts (at most {MAX_EXPERTS})")
    gating = _number(gguf, "{arch}.expert_gating_func")
    if gating is not None and gating not in GATINGS:
        raise _fault(gguf, f"{{arch}}.expert_gating_func is {gating}, which is unknown")
    groups = _number(gguf, "{arch}.expert_group_count") or 0
    if groups and groups >= count:
        raise _fault(gguf, f"{{arch}}.expert_group_count is {groups} for {count} experts")
    if groups > 1:
        used_groups = _number(gguf, "{arch}.expert_group_used_count") or 0
        if count % groups or not 0 < used_groups < groups:
            raise _fault(gguf, f"{count} experts cannot be taken in {used_groups} of {groups} groups")
    if not count and gguf.architecture in EXPERTS_ONLY:
        raise _fault(gguf, "{arch}.expert_count is missing")


def _check_heads(gguf: GGUF) -> None:
    heads = _numbers(gguf, "{arch}.attention.head_count")
    shared = _numbers(gguf, "{arch}.attention.head_count_kv") or heads
    if len(shared) == 1:
        shared = shared * len(heads)
    if len(heads) == 1:
        heads = heads * len(shared)
    if max((*heads, *shared), default=0) > MAX_HEADS:
        raise _fault(gguf, f"{max(*heads, *shared):,} attention heads are more than {MAX_HEADS:,}")
    for of_queries, of_keys in zip(heads, shared, strict=False):
        if of_keys and of_queries % of_keys:
            raise _fault(gguf, f"{of_queries} attention heads cannot share {of_keys} key heads")
    if not any(heads) and any(t.name.endswith(ATTENTION) for t in gguf.tensors):
        raise _fault(gguf, "{arch}.attention.head_count is missing")
    if _number(gguf, "{arch}.attention.key_length_mla"):
        _check_latent(gguf, shared)
    for suffix in ("", "_swa") if gguf.get("{arch}.attention.sliding_window") else ("",):
        _check_head_size(gguf, heads, suffix)


def _check_latent(gguf: GGUF, shared: list[int]) -> None:
    """Latent attention keeps one head of keys, the latent row and what is rotated, for all heads of queries."""
    if max(shared, default=0) != 1:
        raise _fault(gguf, "{arch}.attention.head_count_kv is not 1, as latent attention needs")
    rank, turned = _number(gguf, "{arch}.attention.kv_lora_rank"), _number(gguf, "{arch}.rope.dimension_count")
    keys, values = _number(gguf, "{arch}.attention.key_length"), _number(gguf, "{arch}.attention.value_length")
    if (
        gguf.architecture in LATENT
        and None not in (rank, turned)
        and (keys, values) != (_or(rank, 0) + _or(turned, 0), rank)
    ):
        raise _fault(gguf, f"latent attention of rank {rank} with {keys} columns for keys and {values} for values")


def _check_head_size(gguf: GGUF, heads: Iterable[int], suffix: str) -> None:
    first = next(iter(heads), 0)
    width = _number(gguf, "{arch}.embedding_length") or 0
    of_keys = of_values = width // first if first else 0
    for ending in ("", suffix):
        of_keys = _or(_number(gguf, f"{{arch}}.attention.key_length{ending}"), of_keys)
        of_values = _or(_number(gguf, f"{{arch}}.attention.value_length{ending}"), of_values)
    if max(of_keys, of_values) > MAX_HEAD_SIZE:
        raise _fault(gguf, f"attention heads have {max(of_keys, of_values):,} columns")
    if of_keys != of_values and gguf.architecture in ONE_HEAD_SIZE.split():
        raise _fault(gguf, f"attention heads have {of_keys} columns for keys and {of_values} for values")
    if first:
        _check_rotation(gguf, of_keys, suffix)


def _check_rotation(gguf: GGUF, columns: int, suffix: str) -> None:
    """How many of a head's `columns` are rotated: an even number, and where the graph says so all or not all."""
    turned = _number(gguf, f"{{arch}}.rope.dimension_count{suffix}")
    if turned is None:
        return
    fault = turned % 2 or turned > columns or (not turned and gguf.architecture not in NO_ROTATION)
    if not suffix and gguf.architecture in WHOLE_ROTATION.split():
        fault = fault or turned != columns
    if gguf.get("{arch}.attention.kv_lora_rank"):
        fault = fault or turned >= _or(_number(gguf, "{arch}.attention.key_length_mla"), columns)
    if fault:
        raise _fault(gguf, f"{{arch}}.rope.dimension_count{suffix} is {turned} of heads with {columns:,} columns")


def _check_rope(gguf: GGUF) -> None:
    scaling = gguf.get("{arch}.rope.scaling.type", "linear")
    if isinstance(scaling, (str, bytes)) and _cut(scaling) not in ROPE_SCALINGS:
        raise _fault(gguf, f"{{arch}}.rope.scaling.type is {scaling!r}; known are {', '.join(ROPE_SCALINGS)}")
    sections = gguf.get("{arch}.rope.dimension_sections")
    if isinstance(sections, tuple) and sections and not any(n > 0 for n in sections[:3] if isinstance(n, int)):
        raise _fault(gguf, "{arch}.rope.dimension_sections are all zero")


def _check_norms(gguf: GGUF) -> None:
    for name in EPSILONS:
        value = gguf.get(f"{{arch}}.attention.{name}")
        if isinstance(value, float) and (math.isnan(value) or value < 0):
            raise _fault(gguf, f"{{arch}}.attention.{name} is {value}")


def _check_sizes(gguf: GGUF) -> None:
    window = max(_numbers(gguf, "{arch}.attention.sliding_window"), default=0)
    if window > MAX_WINDOW:
        raise _fault(gguf, f"{{arch}}.attention.sliding_window is {window:,}, and memory is taken for all of it")
    if window and _number(gguf, "{arch}.attention.sliding_window_pattern") == 1:
        raise _fault(gguf, "{arch}.attention.sliding_window_pattern is 1: a window, and no block that has it")
    if _number(gguf, "{arch}.attention.temperature_length") == 0:
        raise _fault(gguf, "{arch}.attention.temperature_length is 0")
    pooling = _number(gguf, "{arch}.pooling_type")
    if pooling is not None and pooling not in POOLINGS:
        raise _fault(gguf, f"{{arch}}.pooling_type is {pooling}, which is unknown")


def _check_state_space(gguf: GGUF) -> None:
    inner, heads = _number(gguf, "{arch}.ssm.inner_size"), _number(gguf, "{arch}.ssm.time_step_rank")
    groups = _number(gguf, "{arch}.ssm.group_count")
    if groups and inner and inner % groups:
        raise _fault(gguf, f"{{arch}}.ssm.inner_size is {inner}, not a multiple of {groups} groups")
    if gguf.architecture not in ("mamba", "jamba") and inner and heads is not None and (not heads or inner % heads):
        raise _fault(gguf, f"{{arch}}.ssm.inner_size is {inner}, not a multiple of {heads} heads")


def _check_placement(gguf: GGUF) -> None:
    for tensor in gguf.tensors:
        if gguf.tensor_start(tensor) % MAPPED_ALIGNMENT:
            raise _fault(
                gguf,
                f"general.alignment is {gguf.alignment}, and {tensor.name!r} does not lie at a multiple of "
                f"{MAPPED_ALIGNMENT}, as weights that are mapped must",
            )


def _check_tensor_types(gguf: GGUF) -> None:
    for tensor in gguf.tensors:
        if tensor.type in NO_PRODUCT and not tensor.name.endswith(INDEX_TENSORS):
            raise _wrong_type(gguf, tensor, "with which the engine cannot multiply")
        if tensor.type is not F32 and tensor.type not in NO_PRODUCT and _must_be_f32(tensor):
            raise _wrong_type(gguf, tensor, "where the engine needs F32")


def _check_blocks_are_whole(gguf: GGUF) -> None:
    """What a family may store in two ways is optional to the engine, which then follows a null pointer."""
    blocks: dict[str, set[str]] = {}
    for tensor in gguf.tensors:
        if match := _BLOCK_TENSOR.fullmatch(tensor.name):
            blocks.setdefault(match["block"], set()).add(match["name"])
    for block, names in blocks.items():
        linear = gguf.architecture == "deci"  # a block of it may be a single matrix in attention's place
        if "attn_output.weight" in names and not linear and not names.intersection(QUERIES):
            raise _fault(gguf, f"block {block} has attention without queries")
        for ending in ("", "_exps", "_shexp"):
            down, up = f"ffn_down{ending}.weight", (f"ffn_up{ending}.weight", f"ffn_gate_up{ending}.weight")
            if (down in names) != bool(names.intersection(up)):
                raise _fault(gguf, f"block {block} has half of a feed-forward network")
        if "ffn_norm.weight" in names and not any(name.startswith("ffn_down") for name in names):
            raise _fault(gguf, f"block {block} has no feed-forward network")


def _must_be_f32(tensor: TensorInfo) -> bool:
    columns_only = all(size == 1 for size in tensor.shape[1:])
    return columns_only or tensor.name.endswith(ONLY_F32)


RULES: tuple[Callable[[GGUF], None], ...] = (
    _check_blocks,
    _check_kinds,
    _check_experts,
    _check_heads,
    _check_rope,
    _check_norms,
    _check_sizes,
    _check_state_space,
    _check_placement,
    _check_tensor_types,
    _check_blocks_are_whole,
)


def _wrong_type(gguf: GGUF, tensor: TensorInfo, why: str) -> LlamacliError:
    return CorruptFile(f"{gguf.path}: the tensor {tensor.name!r} is stored as {tensor.type}, {why}", _HINT)


def _fault(gguf: GGUF, what: str, hint: str = _HINT) -> CorruptFile:
    return CorruptFile(f"{gguf.path}: {what.replace('{arch}', gguf.architecture)}", hint)


def _number(gguf: GGUF, key: str) -> int | None:
    """A whole number under `key`; what has another type gets a clean answer from the engine itself."""
    value = gguf.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbers(gguf: GGUF, key: str) -> list[int]:
    """The whole numbers under `key`, one for all blocks or one for each."""
    value = gguf.get(key)
    items = value if isinstance(value, tuple) else (value,)
    return [item for item in items if isinstance(item, int) and not isinstance(item, bool)]


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _cut(text: str | bytes) -> str:
    """The text up to a zero byte, as C reads it."""
    raw = text.encode() if isinstance(text, str) else text
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")

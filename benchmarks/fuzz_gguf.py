"""Does anything that our strict reader accepts end the engine's process? `fuzz_gguf.py [COUNT] [SEED] [FILE...]`

Breaks tiny whole models, or those given as FILEs, in their structure (keys, values, types, tensors, vocabulary) and in
their bytes, asks the reader and its safety check, and gives each to the real engine in a process of its own (fork, so
POSIX only). Prints a table of both verdicts; exits 1 if an accepted file crashed or hung. FUZZ_KEEP names a folder in
which those stay, and those that were refused although the engine loads them.
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "formats"))

from engine_probe import load_and_decode
from tiny_gguf import Model, Tensor, tiny_bpe_model, tiny_expert_model, tiny_model

from llamacli.errors import LlamacliError
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.gguf_values import Value, ValueType
from llamacli.formats.tensor_types import TENSOR_TYPES

SECONDS = 10
NUMBERS = (0, 1, 2, 3, 5, 7, 16, 31, 64, 255, 511, 513, 65536, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (0.0, -1.0, math.nan, math.inf, -math.inf, 1e30, 1e-30)
TEXTS = ("", "llama", "gpt2", "bert", "t5", "rwkv", "none", "linear", "yarn", "longrope", "x", "a\0b", "\ud7ff" * 9)
ARCHITECTURES = (
    "llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "mistral3", "stablelm", "olmo2", "granite", "cohere2",
    "starcoder2", "glm4", "exaone4", "gpt-oss", "qwen2moe", "llama4", "deepseek2", "mamba", "rwkv6", "bert", "clip",
)  # fmt: skip
MORE_KEYS = (
    "attention.key_length", "attention.value_length", "attention.sliding_window", "attention.causal", "pooling_type",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.dimension_sections",
    "expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count", "expert_feed_forward_length",
    "nextn_predict_layers", "leading_dense_block_count", "attention.layer_norm_epsilon", "logit_scale",
    "attention.max_alibi_bias", "attention.clamp_kqv", "attention.scale", "residual_scale", "embedding_scale",
    "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "attention.temperature_length", "ssm.inner_size",
    "attention.key_length_swa", "rope.dimension_count_swa", "attention.sliding_window_pattern", "decoder_start_token_id",
)  # fmt: skip


def base(path: Path) -> Model:
    """A model file taken apart."""
    file = read_gguf(path)
    raw = path.read_bytes()
    tensors = [
        Tensor(t.name, t.shape, t.type, raw[file.tensor_start(t) : file.tensor_start(t) + t.size_bytes])
        for t in file.tensors
    ]
    return Model(file.metadata, tensors, file.alignment)


def mutant(source: random.Random, bases: list[Model]) -> bytes:
    """The bytes of one broken file."""
    model = source.choice(bases)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        model = source.choice(STRUCTURAL)(model, source)
    data = model.encode()
    if source.random() < 0.25:
        data = _broken_bytes(data, source)
    return data


def _change_value(model: Model, source: random.Random) -> Model:
    key = source.choice(list(model.metadata))
    return model.with_key(key, _other(model.metadata[key], source))


def _remove_key(model: Model, source: random.Random) -> Model:
    return model.with_key(source.choice(list(model.metadata)), None)


def _add_key(model: Model, source: random.Random) -> Model:
    architecture = model.metadata.get("general.architecture")
    name = f"{architecture.value if architecture else 'llama'}.{source.choice(MORE_KEYS)}"
    kind = source.choice((ValueType.UINT32, ValueType.UINT32, ValueType.FLOAT32, ValueType.STRING, ValueType.ARRAY))
    if kind is ValueType.ARRAY:
        items = [source.choice(NUMBERS[:8]) for _ in range(source.choice((1, 2, 4, 5)))]
        return model.with_key(name, Value(kind, items, ValueType.UINT32))
    return model.with_key(name, _other(Value(kind, {6: 0.0, 8: ""}.get(kind, 0)), source))


def _other(value: Value, source: random.Random) -> Value:
    if source.random() < 0.1:
        return Value(ValueType.UINT64, source.choice(NUMBERS))
    if value.type is ValueType.ARRAY:
        return _other_array(value, source)
    if value.type is ValueType.STRING:
        return Value(value.type, source.choice(TEXTS))
    if value.type is ValueType.BOOL:
        return Value(value.type, not value.value)
    if value.type is ValueType.FLOAT32:
        return Value(value.type, source.choice(FLOATS))
    choices = (*NUMBERS, value.value + 1, max(0, value.value - 1), value.value * 2)
    return Value(value.type, source.choice(choices) & 0xFFFFFFFF)


def _other_array(value: Value, source: random.Random) -> Value:
    items = list(value.value)
    match source.randrange(6):
        case 0:
            items = items[: source.randrange(len(items) + 1)]
        case 1:
            items = items + items[:1]
        case 2 | 3 if items:
            for _ in range(source.choice((1, 3, 20))):
                items[source.randrange(len(items))] = source.choice(items)
        case 4 if items and value.element is ValueType.STRING:
            items[source.randrange(len(items))] = source.choice((*TEXTS, "<0x0A>", b"\xff\xfe", "x" * 5000))
        case _ if items and value.element is not ValueType.STRING:
            choices = FLOATS if value.element is ValueType.FLOAT32 else (0, 1, 2, 3, 4, 5, 6, 7, 2**31 - 1)
            items[source.randrange(len(items))] = source.choice(choices)
    return Value(value.type, tuple(items), value.element)


def _retype_tensor(model: Model, source: random.Random) -> Model:
    tensor = source.choice(list(model.tensors))
    kind = source.choice([t for t in TENSOR_TYPES if tensor.shape[0] % t.block_size == 0])
    return model.with_tensor(tensor.name, type=kind, data=None)


def _reshape_tensor(model: Model, source: random.Random) -> Model:
    tensor = source.choice(list(model.tensors))
    shape = list(tensor.shape)
    match source.randrange(4):
        case 0:
            shape.reverse()
        case 1:
            shape.append(source.choice((1, 2)))
        case 2:
            shape[source.randrange(len(shape))] = source.choice((1, 2, 32, 63, 128, 262))
        case _:
            shape = shape[:1]
    shape[0] = max(shape[0] - shape[0] % tensor.type.block_size, tensor.type.block_size)
    return model.with_tensor(tensor.name, shape=tuple(shape[:4]), data=None)


def _rename_tensor(model: Model, source: random.Random) -> Model:
    tensor = source.choice(list(model.tensors))
    names = (
        "output.weight",
        "rope_freqs.weight",
        "blk.0.attn_q.bias",
        "blk.0.attn_q_norm.weight",
        "blk.7.ffn_up.weight",
    )
    return model.with_tensor(tensor.name, name=source.choice(names))


def _add_tensor(model: Model, source: random.Random) -> Model:
    name, shape = source.choice(
        (
            ("output.weight", (64, 262)),
            ("blk.0.attn_q.bias", (64,)),
            ("blk.0.attn_k.bias", (32,)),
            ("blk.1.ffn_up.bias", (64,)),
            ("rope_freqs.weight", (8,)),
            ("blk.0.attn_q.scale", (1,)),
            ("blk.0.attn_q_norm.weight", (16,)),
        )
    )
    kind = source.choice([t for t in TENSOR_TYPES if shape[0] % t.block_size == 0])
    others = [t for t in model.tensors if t.name != name]
    return Model(model.metadata, [*others, Tensor(name, shape, kind)], model.alignment)


def _drop_tensor(model: Model, source: random.Random) -> Model:
    tensors = list(model.tensors)
    tensors.pop(source.randrange(len(tensors)))
    return Model(model.metadata, tensors, model.alignment)


def _other_architecture(model: Model, source: random.Random) -> Model:
    name = source.choice(ARCHITECTURES)
    metadata = {key.replace("llama.", f"{name}.", 1) if key.startswith("llama.") else key: value
                for key, value in model.metadata.items()}  # fmt: skip
    metadata["general.architecture"] = Value(ValueType.STRING, name)
    return Model(metadata, model.tensors, model.alignment)


def _other_heads(model: Model, source: random.Random) -> Model:
    """Heads that still agree with the shapes of a tiny model's tensors, and with each other or not."""
    if "llama.block_count" not in model.metadata:
        return _change_value(model, source)
    heads, shared = source.choice(((4, 4), (2, 1), (8, 4), (1, 1), (3, 3), (64, 32), (4, 3)))
    size = 64 // heads
    model = model.with_key("llama.attention.head_count", Value(ValueType.UINT32, heads))
    model = model.with_key("llama.attention.head_count_kv", Value(ValueType.UINT32, shared))
    model = model.with_key("llama.rope.dimension_count", Value(ValueType.UINT32, size))
    for block in range(2):
        for part in ("k", "v"):
            model = model.with_tensor(f"blk.{block}.attn_{part}.weight", shape=(64, size * shared))
    return model


def _realign(model: Model, source: random.Random) -> Model:
    alignment = source.choice((8, 16, 64, 4096))
    model = model.with_key("general.alignment", Value(ValueType.UINT32, alignment))
    return Model(model.metadata, model.tensors, alignment)


STRUCTURAL = (
    _change_value, _change_value, _change_value, _change_value, _remove_key, _add_key, _add_key, _retype_tensor,
    _retype_tensor, _reshape_tensor, _rename_tensor, _add_tensor, _drop_tensor, _other_architecture, _other_heads,
    _realign,
)  # fmt: skip


def _broken_bytes(data: bytes, source: random.Random) -> bytes:
    broken = bytearray(data)
    header = min(len(broken), 9000)
    for _ in range(source.choice((1, 1, 2, 8))):
        place = source.randrange(header)
        match source.randrange(3):
            case 0:
                broken[place] ^= 1 << source.randrange(8)
            case 1:
                broken[place : place + 8] = source.choice((2**63, 2**32, 2**62 - 1, 0)).to_bytes(8, "little")
            case _:
                broken[place] = source.randrange(256)
    return bytes(broken[: source.randrange(len(broken))] if source.random() < 0.1 else broken)


def verdict(path: Path) -> str:
    """What our reader says; anything but a LlamacliError is a bug of ours."""
    try:
        check_safe(read_gguf(path))
    except LlamacliError:
        return "refused"
    return "accepted"


def fate(path: Path) -> str:
    """What becomes of a process that gives `path` to the engine."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            signal.alarm(SECONDS)
            os._exit({"loaded": 0, "refused": 40, "undecoded": 41}[load_and_decode(str(path))])
        os._exit(42)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hung" if number == signal.SIGALRM else f"signal {number}"
    return {0: "loaded", 40: "refused", 41: "undecoded"}.get(os.WEXITSTATUS(status), "raised")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    os.environ["GGML_NO_BACKTRACE"] = "1"
    import llama_cpp  # noqa: F401 - once, for all children

    bases = [base(Path(name)) for name in sys.argv[3:]]
    bases = bases or [tiny_model(), tiny_model(), tiny_bpe_model(), tiny_expert_model()]
    keep = Path(os.environ.get("FUZZ_KEEP", tempfile.mkdtemp()))
    results: collections.Counter[tuple[str, str]] = collections.Counter()
    slowest = 0.0
    for number in range(count):
        path = keep / f"{seed}-{number}.gguf"
        path.write_bytes(mutant(random.Random(seed * 1_000_003 + number), bases))
        start = time.perf_counter()
        ours = verdict(path)
        slowest = max(slowest, time.perf_counter() - start)
        engine = fate(path)
        results[ours, engine] += 1
        crashed = engine.startswith("signal") or engine == "hung"
        if ours == "accepted" and crashed:
            print(f"{path}: accepted, and the engine: {engine}")
        elif not (ours == "refused" and engine == "loaded" and "FUZZ_KEEP" in os.environ):
            path.unlink()
    for (ours, engine), times in sorted(results.items()):
        print(f"{ours:9} engine {engine:10} {times:6}")
    print(f"slowest check {1000 * slowest:.0f} ms")
    return int(any(ours == "accepted" and (e.startswith("signal") or e == "hung") for ours, e in results))


if __name__ == "__main__":
    sys.exit(main())

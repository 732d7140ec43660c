"""A whole Llama model of a few kilobytes as a GGUF file, to be broken in one place at a time."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from llamacli.formats.gguf_encode import encode_header
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, f32, string, u32
from llamacli.formats.tensor_types import F32, TensorType

WIDTH, HEADS, KEY_HEADS, FORWARD, BLOCKS = 64, 4, 2, 64, 2
TOKENS = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\N{LOWER ONE EIGHTH BLOCK}", "a", "b")


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: shape with the row length first, and bytes (random where None)."""

    name: str
    shape: tuple[int, ...]
    type: TensorType = F32
    data: bytes | None = None

    def bytes(self, seed: int) -> bytes:
        """Its data; floats are small, other types are zeros, which every block takes."""
        count = 1
        for size in self.shape:
            count *= size
        if self.data is not None:
            return self.data
        if self.type is F32:
            return _small_floats(count, seed)
        return bytes(self.type.row_bytes(self.shape[0]) * (count // self.shape[0]))


@cache
def _small_floats(count: int, seed: int) -> bytes:
    source = random.Random(seed)
    return struct.pack(f"<{count}f", *(source.uniform(-0.2, 0.2) for _ in range(count)))


@dataclass(frozen=True)
class Model:
    """The parts of a GGUF file before they are bytes."""

    metadata: Mapping[str, Value]
    tensors: Sequence[Tensor]
    alignment: int = 32
    extra: bytes = field(default=b"", repr=False)

    def with_key(self, key: str, value: Value | None) -> Model:
        """The same with another value under `key`; None removes it."""
        metadata = {k: v for k, v in self.metadata.items() if k != key or value is not None}
        if value is not None:
            metadata[key] = value
        return replace(self, metadata=metadata)

    def with_tensor(self, name: str, /, **changes: object) -> Model:
        """The same with one tensor changed."""
        return replace(self, tensors=[replace(t, **changes) if t.name == name else t for t in self.tensors])  # type: ignore[arg-type]

    def encode(self) -> bytes:
        """The file's bytes, laid out one tensor after the other."""
        entries, data = [], b""
        for seed, tensor in enumerate(self.tensors):
            entries.append((tensor.name, tensor.shape, tensor.type.id, len(data)))
            raw = tensor.bytes(seed)
            data += raw + bytes(-len(raw) % self.alignment)
        return encode_header(self.metadata, entries, self.alignment) + data + self.extra

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.encode())
        return path


def tiny_model() -> Model:
    """A Llama of two blocks that the engine loads and runs."""
    return Model(_metadata(), _tensors())


def tiny_bpe_model() -> Model:
    """The same with a byte-level BPE vocabulary of as many tokens."""
    letters = [*map(chr, range(0x21, 0x7F)), *map(chr, range(0xA1, 0xAD)), *map(chr, range(0xAE, 0x100))]
    letters += [chr(0x100 + number) for number in range(256 - len(letters))]
    tokens = [*letters, "ab", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}a", "abc", "<s>", "</s>", "<unk>"]
    merges = ["a b", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE} a", "ab c"]
    model = tiny_model()
    for key, value in {
        "model": string("gpt2"),
        "pre": string("gpt-2"),
        "tokens": array(ValueType.STRING, tokens),
        "merges": array(ValueType.STRING, merges),
        "scores": None,
        "token_type": array(ValueType.INT32, [1] * 259 + [3] * 3),
        "bos_token_id": u32(259),
        "eos_token_id": u32(260),
        "unknown_token_id": u32(261),
    }.items():
        model = model.with_key(f"tokenizer.ggml.{key}", value)
    return model


def tiny_expert_model() -> Model:
    """The same with four experts in every block, two of which are used."""
    model = tiny_model().with_key("llama.expert_count", u32(4)).with_key("llama.expert_used_count", u32(2))
    tensors: list[Tensor] = []
    for tensor in model.tensors:
        if ".ffn_" not in tensor.name or "norm" in tensor.name:
            tensors.append(tensor)
            continue
        tensors.append(Tensor(tensor.name.replace(".weight", "_exps.weight"), (*tensor.shape, 4)))
        if ".ffn_gate" in tensor.name:
            tensors.append(Tensor(tensor.name.replace("ffn_gate", "ffn_gate_inp"), (WIDTH, 4)))
    return replace(model, tensors=tensors)


def _metadata() -> dict[str, Value]:
    types = [2, 3, 3, *[6] * 256, 1, 1, 1]
    return {
        "general.architecture": string("llama"),
        "general.name": string("tiny"),
        "general.file_type": u32(0),
        "llama.context_length": u32(128),
        "llama.embedding_length": u32(WIDTH),
        "llama.block_count": u32(BLOCKS),
        "llama.feed_forward_length": u32(FORWARD),
        "llama.attention.head_count": u32(HEADS),
        "llama.attention.head_count_kv": u32(KEY_HEADS),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.rope.dimension_count": u32(WIDTH // HEADS),
        "llama.rope.freq_base": f32(10000.0),
        "llama.vocab_size": u32(len(TOKENS)),
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, TOKENS),
        "tokenizer.ggml.scores": array(ValueType.FLOAT32, [float(-i) for i in range(len(TOKENS))]),
        "tokenizer.ggml.token_type": array(ValueType.INT32, types),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.unknown_token_id": u32(0),
        "tokenizer.ggml.add_bos_token": boolean(True),
        "tokenizer.chat_template": string("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"),
    }


def _tensors() -> list[Tensor]:
    head = WIDTH // HEADS
    tensors = [Tensor("token_embd.weight", (WIDTH, len(TOKENS))), Tensor("output_norm.weight", (WIDTH,))]
    for block in range(BLOCKS):
        tensors += [
            Tensor(f"blk.{block}.attn_norm.weight", (WIDTH,)),
            Tensor(f"blk.{block}.attn_q.weight", (WIDTH, WIDTH)),
            Tensor(f"blk.{block}.attn_k.weight", (WIDTH, KEY_HEADS * head)),
            Tensor(f"blk.{block}.attn_v.weight", (WIDTH, KEY_HEADS * head)),
            Tensor(f"blk.{block}.attn_output.weight", (WIDTH, WIDTH)),
            Tensor(f"blk.{block}.ffn_norm.weight", (WIDTH,)),
            Tensor(f"blk.{block}.ffn_gate.weight", (WIDTH, FORWARD)),
            Tensor(f"blk.{block}.ffn_up.weight", (WIDTH, FORWARD)),
            Tensor(f"blk.{block}.ffn_down.weight", (FORWARD, WIDTH)),
        ]
    return tensors

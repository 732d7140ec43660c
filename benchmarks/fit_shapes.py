"""Models of known families as sparse files: right in header, vocabulary and size, all weights zero but the routers'."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamacli.formats.gguf_values import Value, ValueType, array, f32, string, u32
from llamacli.formats.gguf_writer import lay_out
from llamacli.formats.tensor_types import BY_NAME, F32, TensorType


@dataclass(frozen=True)
class Shape:
    """A model; `blocks` are as few as still tell, the rest is the family's."""

    title: str
    arch: str
    width: int
    feed: int
    blocks: int
    heads: int
    heads_kv: int
    vocabulary: int
    kind: str
    head: int = 0
    experts: int = 0
    tied: bool = False
    window: int = 0
    attention_every: int = 1
    """Of so many blocks one has attention, the others are recurrent: short convolutions, or with a `state` Mamba 2."""
    state: int = 0
    """Numbers that Mamba 2 keeps for each of the channels, which are twice the width, in heads of 64."""
    pieces: bool = False
    """A vocabulary with scores instead of merges, as SentencePiece makes them."""

    @property
    def channels(self) -> int:
        return 2 * self.width

    @property
    def mixed(self) -> int:
        """What goes through Mamba's convolution: the channels and the two vectors of a state."""
        return self.channels + 2 * self.state

    @property
    def head_width(self) -> int:
        return self.head or self.width // self.heads

    def attends(self, block: int) -> bool:
        return block % self.attention_every == self.attention_every - 1


SHAPES = (
    Shape("Llama 3.2 1B, 4 of 16 blocks", "llama", 2048, 8192, 4, 32, 8, 128256, "Q8_0", tied=True),
    Shape("Llama 3.1 8B, 4 of 32 blocks", "llama", 4096, 14336, 4, 32, 8, 128256, "Q4_K"),
    Shape("Qwen 3 0.6B, whole", "qwen3", 1024, 3072, 28, 16, 8, 151936, "Q8_0", head=128, tied=True),
    Shape("Gemma 3 1B, whole, window of 512", "gemma3", 1152, 6912, 26, 4, 1, 262144, "Q5_0", head=256, tied=True, window=512,
          pieces=True),
    Shape("Mixtral 8x7B, half as wide, 4 of 32 blocks", "llama", 2048, 7168, 4, 32, 8, 32000, "Q4_K", experts=8, pieces=True),
    Shape("LFM2 1.2B, 15 blocks, 5 with attention", "lfm2", 2048, 8192, 15, 32, 8, 65536, "Q4_0", tied=True,
          attention_every=3),
    Shape("Granite 4 H Micro, 12 of 40 blocks, 2 with attention", "granitehybrid", 2048, 8192, 12, 32, 8, 100352, "Q4_K",
          tied=True, attention_every=6, state=128),
)  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """For the layout."""

    name: str
    shape: tuple[int, ...]
    type: TensorType

    @property
    def size_bytes(self) -> int:
        rows = 1
        for extent in self.shape[:-1]:
            rows *= extent
        return rows * self.type.row_bytes(self.shape[-1])


def write(shape: Shape, path: Path) -> None:
    """The file."""
    entries = tensors(shape)
    layout = lay_out(metadata(shape), entries)
    chance = random.Random(1)
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size_bytes)
        for tensor in entries:
            if tensor.name.endswith("ffn_gate_inp.weight"):  # so that tokens go to different experts
                file.seek(layout.offsets[tensor.name])
                count = tensor.size_bytes // 4
                file.write(struct.pack(f"<{count}f", *(chance.uniform(-1, 1) for _ in range(count))))
            if tensor.name == "token_embd.weight" and shape.experts:
                file.seek(layout.offsets[tensor.name])
                blocks = tensor.size_bytes // tensor.type.block_bytes
                size = tensor.type.block_bytes
                file.write(b"".join(b"\x00\x2c\x00\x2c" + chance.randbytes(size - 4) for _ in range(blocks)))


def metadata(shape: Shape) -> dict[str, Value]:
    """Header and vocabulary."""
    head = shape.head_width
    numbers = {
        "block_count": shape.blocks, "context_length": 131072, "embedding_length": shape.width,
        "feed_forward_length": shape.feed, "attention.head_count": shape.heads, "attention.key_length": head,
        "attention.value_length": head, "rope.dimension_count": head, "vocab_size": shape.vocabulary,
    }  # fmt: skip
    if shape.experts:
        numbers |= {"expert_count": shape.experts, "expert_used_count": 2}
    if shape.window:
        numbers |= {"attention.sliding_window": shape.window}
    if shape.state:
        numbers |= {
            "ssm.conv_kernel": 4, "ssm.inner_size": shape.channels, "ssm.state_size": shape.state, "ssm.group_count": 1,
            "ssm.time_step_rank": shape.channels // 64,
        }  # fmt: skip
    elif shape.attention_every > 1:
        numbers |= {"shortconv.l_cache": 3}
    found: dict[str, Value] = {"general.architecture": string(shape.arch)}
    found |= {f"{shape.arch}.{name}": u32(number) for name, number in numbers.items()}
    heads = [shape.heads_kv if shape.attends(block) else 0 for block in range(shape.blocks)]
    kv = u32(shape.heads_kv) if all(heads) else array(ValueType.INT32, heads)
    found[f"{shape.arch}.attention.head_count_kv"] = kv
    found[f"{shape.arch}.attention.layer_norm_rms_epsilon"] = f32(1e-5)
    if shape.arch == "granitehybrid":
        found |= {f"granitehybrid.{name}": f32(1.0) for name in ("logit_scale", "residual_scale", "embedding_scale")}
        found["granitehybrid.attention.scale"] = f32(0.015625)
    return found | (pieces(shape.vocabulary) if shape.pieces else vocabulary(shape.vocabulary))


def vocabulary(size: int) -> dict[str, Value]:
    """Byte pairs as they grow: each new token joins two old ones."""
    chance, tokens = random.Random(2), list(_byte_letters())
    known, merges, short = set(tokens), [], list(tokens)
    while len(tokens) < size - 2:
        left, right = chance.choice(short), chance.choice(short)
        if left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")
            if len(left + right) < 5:
                short.append(left + right)
    tokens += ["<|begin|>", "<|end|>"]
    return {
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("llama-bpe"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, tokens),
        "tokenizer.ggml.token_type": array(ValueType.INT32, [1] * (size - 2) + [3, 3]),
        "tokenizer.ggml.merges": array(ValueType.STRING, merges),
        "tokenizer.ggml.bos_token_id": u32(size - 2),
        "tokenizer.ggml.eos_token_id": u32(size - 1),
    }


def pieces(size: int) -> dict[str, Value]:
    """Words with and without a blank before them, and one token for each byte."""
    chance = random.Random(3)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    known = set(tokens)
    while len(tokens) < size:
        word = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 10)))
        piece = f"\u2581{word}" if chance.random() < 0.5 else word
        if piece not in known:
            known.add(piece)
            tokens.append(piece)
    return {
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, tokens),
        "tokenizer.ggml.scores": array(ValueType.FLOAT32, [-float(rank) for rank in range(size)]),
        "tokenizer.ggml.token_type": array(ValueType.INT32, [2, 3, 3] + [6] * 256 + [1] * (size - 259)),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
    }


def tensors(shape: Shape) -> list[Tensor]:
    """All of them, as llama.cpp names and shapes them."""
    kind = BY_NAME[shape.kind]
    found = [Tensor("token_embd.weight", (shape.vocabulary, shape.width), kind)]
    for number in range(shape.blocks):
        found += [Tensor(f"blk.{number}.{name}.weight", s, kind) for name, s in _matrices(shape, number).items()]
        found += [Tensor(f"blk.{number}.{name}.weight", (width,), F32) for name, width in _norms(shape, number).items()]
        if shape.experts:
            found.append(Tensor(f"blk.{number}.ffn_gate_inp.weight", (shape.experts, shape.width), F32))
        if shape.state and not shape.attends(number):
            found += [Tensor(f"blk.{number}.{name}", s, F32) for name, s in _mamba(shape).items()]
        elif not shape.attends(number):
            found.append(Tensor(f"blk.{number}.shortconv.conv.weight", (shape.width, 3), F32))
    last = "token_embd_norm" if shape.arch == "lfm2" else "output_norm"
    found.append(Tensor(f"{last}.weight", (shape.width,), F32))
    return found if shape.tied else [*found, Tensor("output.weight", (shape.vocabulary, shape.width), kind)]


def _matrices(shape: Shape, number: int) -> dict[str, tuple[int, ...]]:
    query, key = shape.heads * shape.head_width, shape.heads_kv * shape.head_width
    up = {
        "ffn_gate": (shape.feed, shape.width),
        "ffn_up": (shape.feed, shape.width),
        "ffn_down": (shape.width, shape.feed),
    }
    feed: dict[str, tuple[int, ...]] = {**up}
    if shape.experts:
        feed = {f"{name}_exps": (shape.experts, *extents) for name, extents in up.items()}
    if shape.state and not shape.attends(number):
        heads = shape.channels // 64
        inward = shape.channels + shape.mixed + heads
        return {"ssm_in": (inward, shape.width), "ssm_out": (shape.width, shape.channels)} | feed
    if not shape.attends(number):
        return {
            "shortconv.in_proj": (3 * shape.width, shape.width),
            "shortconv.out_proj": (shape.width, shape.width),
        } | feed
    return {
        "attn_q": (query, shape.width), "attn_k": (key, shape.width), "attn_v": (key, shape.width),
        "attn_output": (shape.width, query),
    } | feed  # fmt: skip


def _mamba(shape: Shape) -> dict[str, tuple[int, ...]]:
    heads = shape.channels // 64
    return {
        "ssm_conv1d.weight": (shape.mixed, 4), "ssm_conv1d.bias": (shape.mixed,), "ssm_dt.bias": (heads,),
        "ssm_a": (heads, 1), "ssm_d": (heads, 1), "ssm_norm.weight": (1, shape.channels),
    }  # fmt: skip


def _norms(shape: Shape, number: int) -> dict[str, int]:
    norms = {"attn_norm": shape.width, "ffn_norm": shape.width}
    if shape.arch in ("qwen3", "gemma3", "lfm2") and shape.attends(number):
        norms |= {"attn_q_norm": shape.head_width, "attn_k_norm": shape.head_width}
    if shape.arch == "gemma3":
        norms |= {"post_attention_norm": shape.width, "post_ffw_norm": shape.width}
    return norms


def _byte_letters() -> Iterator[str]:
    """The 256 letters by which byte-level vocabularies write bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    yield from map(chr, plain)
    yield from (chr(256 + n) for n in range(256 - len(plain)))

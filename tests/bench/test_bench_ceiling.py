"""The machine's limit, and what a token must read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from llamacli.bench.ceiling import LEAST_BYTES, bytes_per_token, memory_speed
from llamacli.formats.gguf_reader import GGUF, TensorInfo, read_gguf
from llamacli.formats.gguf_values import u32
from llamacli.formats.tensor_types import F16, F32


@pytest.fixture(scope="session")
def untied(converted: Callable[..., Path]) -> GGUF:
    return read_gguf(converted("tinystories-656k-wide256", "Q4_K_M"))


def tensor(name: str, size: int) -> TensorInfo:
    return TensorInfo(name, (size // 4,), F32, 0, size)


def test_memory_can_be_read_at_a_plausible_speed() -> None:
    assert 1e8 < memory_speed(2, 512 << 20) < 1e13


def test_without_room_there_is_no_measurement() -> None:
    assert memory_speed(2, 8 * LEAST_BYTES - 1) == 0


def test_weights_count_once_and_looked_up_embeddings_not_at_all(untied: GGUF) -> None:
    expected = sum(t.size_bytes for t in untied.tensors if t.name != "token_embd.weight")
    assert bytes_per_token(untied, 0) == expected


def test_tied_embeddings_are_the_output_and_are_read(untied: GGUF) -> None:
    tied = dataclasses.replace(untied, tensors=tuple(t for t in untied.tensors if t.name != "output.weight"))
    assert bytes_per_token(tied, 0) == sum(t.size_bytes for t in tied.tensors)


def test_the_cache_before_a_token_is_read_too(untied: GGUF) -> None:
    kv_heads, head = untied.get("{arch}.attention.head_count_kv"), untied.get("{arch}.rope.dimension_count")
    each = 2 * untied.get("{arch}.block_count") * kv_heads * head * F16.block_bytes
    assert bytes_per_token(untied, 100) - bytes_per_token(untied, 0) == 100 * each


def test_of_experts_those_in_use_count_and_of_prediction_blocks_none(untied: GGUF) -> None:
    metadata = {
        **untied.metadata,
        "llama.expert_count": u32(8),
        "llama.expert_used_count": u32(2),
        "llama.block_count": u32(3),
        "llama.nextn_predict_layers": u32(1),
    }
    tensors = (
        tensor("output.weight", 400),
        tensor("token_embd.weight", 4000),
        tensor("blk.0.ffn_up_exps.weight", 8000),
        tensor("blk.2.attn_q.weight", 80000),
    )
    assert bytes_per_token(dataclasses.replace(untied, metadata=metadata, tensors=tensors), 0) == 400 + 2000

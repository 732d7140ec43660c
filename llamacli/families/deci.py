"""Llama-Nemotron by architecture search (DeciLM): blocks of different widths, some without attention or without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llamacli.errors import CorruptFile
from llamacli.families.base import Expected, Key, Named, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    ROPE_DIMENSIONS,
    VOCAB_SIZE,
)
from llamacli.families.llama import INTERLEAVED_QK, LLAMA
from llamacli.families.transforms import interleave_rope
from llamacli.formats.gguf_values import Value, ValueType, array
from llamacli.formats.rows import Rows


def _blocks(config: Config) -> list[dict[str, Any]]:
    found = config.get("block_configs")
    if not isinstance(found, list) or len(found) != config.blocks:
        raise CorruptFile(f"config.json: block_configs must have an entry for each of {config.blocks} blocks")
    return found


def _heads(config: Config, block: int) -> int:
    """Query heads of a block; 0 where there is no attention, all where a matrix stands in for it."""
    attention = _blocks(config)[block]["attention"]
    group, linear = attention.get("n_heads_in_group"), attention.get("replace_with_linear", False)
    return config.heads if group is not None or linear else 0


def _kv_heads(config: Config, block: int) -> int:
    group = _blocks(config)[block]["attention"].get("n_heads_in_group")
    return 0 if group is None else config.heads // int(group)


def _width(config: Config, block: int) -> int:
    """Two thirds of the multiple, rounded up to 256."""
    part = _blocks(config)[block]["ffn"].get("ffn_mult")
    width = int(2 * part * config.hidden / 3) if part is not None else 0
    return -(-width // 256) * 256


def _each(number: Callable[[Config, int], int]) -> Callable[[Config], Value]:
    return lambda config: array(ValueType.INT32, [number(config, block) for block in range(config.blocks)])


def _keys(rows: Rows, config: Config, name: str) -> Rows:
    heads = _kv_heads(config, int(name.split(".")[2]))
    return interleave_rope(lambda c: heads)(rows, config)


def _paired_keys(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    yield name, _keys(rows, config, name)


DECI = LLAMA.override(
    name="deci",
    title="Llama-Nemotron Super, Ultra",
    architectures=("DeciLMForCausalLM",),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS, VOCAB_SIZE, ROPE_DIMENSIONS,
        Key("attention.head_count", _each(_heads)),
        Key("attention.head_count_kv", _each(_kv_heads)),
        Key("feed_forward_length", _each(_width)),
    ),
    rules=(INTERLEAVED_QK[0], Rule(r".*\.k_proj\.(weight|bias)", split=_paired_keys)),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM,
        Expected("blk.{block}.attn_q.weight", lambda c: (c.heads * c.head_dim, c.hidden), lambda c, b: _kv_heads(c, b) > 0),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (-1, c.hidden), lambda c, b: _width(c, b) > 0),
    ),
    defaults={"rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072},
    example="nvidia/Llama-3_3-Nemotron-Super-49B-v1",
)  # fmt: skip

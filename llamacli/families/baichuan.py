"""Baichuan: Llama's block with queries, keys and values in one matrix; the 13B models have ALiBi instead of rope."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from llamacli.families.base import Key, Named, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, ROPE_DIMENSIONS, always
from llamacli.families.llama import LLAMA
from llamacli.families.transforms import interleave_rope, rows_of
from llamacli.formats.gguf_values import string
from llamacli.formats.rows import Mapped, Rows


def _part(place: int) -> Callable[[Rows, Config], Rows]:
    return lambda rows, config: rows_of(rows, place * config.hidden, (place + 1) * config.hidden)


def _unpack(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    paired = interleave_rope(lambda c: c.heads)
    for place, part in enumerate("qkv"):
        taken = _part(place)(rows, config)
        yield name.replace("W_pack", f"{part}_proj"), taken if part == "v" else paired(taken, config)


def _refusals(config: Config) -> Iterable[str]:
    if config.blocks not in (32, 40):
        yield f"config.json: the engine computes a Baichuan of 32 blocks (rope) and of 40 (ALiBi), not one of {config.blocks}"


def _normalised(config: Config) -> bool:
    """Baichuan 2, which only its vocabulary tells, gives every row of its output matrix the length of one."""
    return bool(config.get("norm_head", default=config.get("vocab_size") == 125696))


def _normalise(rows: Rows, config: Config) -> Rows:
    return Mapped(
        rows, lambda values: values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), np.float32(1e-12))
    )


BAICHUAN = LLAMA.override(
    name="baichuan",
    title="Baichuan 1 and 2",
    architectures=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    keys=(*DECODER_KEYS, Key("tensor_data_layout", always(string("Meta AI original pth"))), ROPE_DIMENSIONS),
    rules=(Rule(r".*\.W_pack\.weight", split=_unpack), Rule(r"lm_head\.weight", _normalise, when=_normalised)),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096},
    refusals=_refusals,
    example="baichuan-inc/Baichuan2-7B-Chat",
)

XVERSE = LLAMA.override(
    name="xverse",
    title="Xverse",
    architectures=("XverseForCausalLM",),
    keys=BAICHUAN.keys,
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 8192},
    example="xverse/XVERSE-7B-Chat",
)

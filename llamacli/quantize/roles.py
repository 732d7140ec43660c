"""What part a tensor plays, read from its GGUF name, and whether it may be quantized at all.

The grouping and the exclusions are those of llama.cpp's quantizer (`src/llama-quant.cpp`), which looks for fragments
anywhere in the name: `blk.3.ffn_down_exps.weight` and `blk.3.ffn_down_shexp.weight` are both a feed-forward's way down.
Needs no import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What a recipe distinguishes."""

    HEAD = "head"
    TOKEN_EMBEDDING = "token_embd"
    ATTENTION_V = "attn_v"
    ATTENTION_K = "attn_k"
    ATTENTION_Q = "attn_q"
    ATTENTION_OUTPUT = "attn_output"
    FFN_UP = "ffn_up"
    FFN_GATE = "ffn_gate"
    FFN_DOWN = "ffn_down"
    DELICATE = "delicate"
    OTHER = "other"


@dataclass(frozen=True)
class Shape:
    """A tensor as recipes see it: its GGUF name and its shape in ggml's order, the row's length first."""

    name: str
    shape: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Weights in a row."""
        return self.shape[0]

    @property
    def dimensions(self) -> int:
        """Dimensions without the trailing ones, as ggml counts them: a column vector (n, 1) has one."""
        return max((i + 1 for i, extent in enumerate(self.shape) if extent > 1), default=1)

    @property
    def stacked(self) -> bool:
        """Whether several matrices, usually one for each expert, stand in one tensor."""
        return len(self.shape) > 2 and self.shape[2] > 1


HEAD = "output.weight"
TOKEN_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")

_FRAGMENTS: tuple[tuple[str, Role], ...] = (
    # A fused QKV matrix and the low-rank K and V of multi-head latent attention count as V, the most delicate of them.
    ("attn_qkv.weight", Role.ATTENTION_V),
    ("attn_kv_b.weight", Role.ATTENTION_V),
    ("attn_v.weight", Role.ATTENTION_V),
    ("attn_k.weight", Role.ATTENTION_K),
    ("attn_q.weight", Role.ATTENTION_Q),
    ("attn_output.weight", Role.ATTENTION_OUTPUT),
    ("ffn_up", Role.FFN_UP),
    ("ffn_gate", Role.FFN_GATE),
    ("ffn_down", Role.FFN_DOWN),
)

_DELICATE = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}
"""Fragments of names that stay at eight bits in every quantized file of an architecture."""


def role_of(name: str, architecture: str, tied: bool) -> Role:
    """The role of the tensor `name`; in a `tied` model, which has no head of its own, the embeddings are the head."""
    if any(fragment in name for fragment in _DELICATE.get(architecture, ())):
        return Role.DELICATE
    if name == HEAD:
        return Role.HEAD
    if name in TOKEN_EMBEDDINGS:
        return Role.HEAD if tied else Role.TOKEN_EMBEDDING
    return next((role for fragment, role in _FRAGMENTS if fragment in name), Role.OTHER)


def is_tied(names: Iterable[str]) -> bool:
    """Whether a model with these tensors reads its head from the token embeddings."""
    return HEAD not in names


_BLOCK = re.compile(r"blk\.(\d+)\.")


def block_of(name: str) -> int | None:
    """The block that a tensor belongs to: 3 for `blk.3.attn_q.weight`, None for `output.weight`."""
    found = _BLOCK.match(name)
    return int(found[1]) if found else None


def reading_order(name: str) -> tuple[int, bytes]:
    """Sort key: tensors outside the blocks first, then block by block, by name within each, as llama.cpp walks them."""
    block = block_of(name)
    return (-1 if block is None else block, name.encode())


_KEPT_NAMES = frozenset({"position_embd.weight", "token_types.weight"})

_KEPT_FRAGMENTS: tuple[str, ...] = (
    "_norm.weight",
    # Which expert to ask: tiny, and a wrong turn costs a whole block.
    "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight",
    # Small matrices of Gemma 3n.
    "altup", "laurel", "per_layer_model_proj",
    # Short convolutions and the indexer's projections.
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
    # RWKV's small matrices.
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight",
    "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    # T5's relative positions; positions, patches and codebooks of images and sound.
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip

_KEPT_FRAGMENTS_OF: dict[str, tuple[str, ...]] = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ),
}  # fmt: skip


def may_quantize(tensor: Shape, architecture: str) -> bool:
    """Whether this tensor's type is the recipe's to choose; if not, it keeps the type that it is stored in."""
    name = tensor.name
    if tensor.dimensions < 2 or not name.endswith("weight") or name in _KEPT_NAMES:
        return False
    fragments = (*_KEPT_FRAGMENTS, *_KEPT_FRAGMENTS_OF.get(architecture, ()))
    return not any(fragment in name for fragment in fragments)

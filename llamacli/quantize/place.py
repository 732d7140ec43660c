"""Where a tensor stands in its model: everything a recipe may ask about.

llama.cpp counts calls as it walks the tensors; the same numbers are here properties of the list: the rank of a tensor
among those of its role, in reading order. In a model with several kinds of blocks the rank is not the block's number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamacli.errors import Unsupported
from llamacli.formats.gguf_values import Value
from llamacli.formats.tensor_types import TensorType
from llamacli.quantize.fallback import fits
from llamacli.quantize.roles import Role, Shape, block_of, reading_order, role_of

_BLOCKS_OF_70B = {"llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}
"""Blocks by which llama.cpp recognises a model as one of 70 billion weights."""


@dataclass(frozen=True)
class Model:
    """The model's measures that recipes depend on, as the GGUF metadata gives them.

    `blocks` is the block count of the source, before any are pruned. `heads` and `kv_heads` are the first block's;
    an attention without heads, as in a Mamba, has none. `experts` is 0 in a dense model.
    """

    architecture: str
    blocks: int
    heads: int = 0
    kv_heads: int = 0
    experts: int = 0

    @classmethod
    def of(cls, metadata: Mapping[str, Value]) -> Model:
        """Read the measures from GGUF metadata; a key that is absent counts as the engine counts it."""
        architecture = str(metadata["general.architecture"].value)

        def number(key: str, default: int) -> int:
            value = metadata.get(f"{architecture}.{key}")
            if value is None:
                return default
            return int(value.value if value.element is None else next(iter(value.value), default))

        heads = number("attention.head_count", 0)
        return cls(
            architecture,
            number("block_count", 0),
            heads,
            number("attention.head_count_kv", heads),
            number("expert_count", 0),
        )

    @property
    def heads_per_kv(self) -> int:
        """How many query heads share one key and value head, rounded down; 0 without attention in the first block."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes this for a model of 70 billion weights, whose shared V deserves more bits."""
        if self.blocks != _BLOCKS_OF_70B.get(self.architecture):
            return False
        if self.architecture in ("llama", "llama-embed"):
            return self.heads != self.kv_heads and self.experts != 8
        return True


@dataclass(frozen=True)
class Place:
    """One tensor's place. `position` of `count` says how deep it lies, counted as llama.cpp counts for its role."""

    tensor: Shape
    role: Role
    model: Model
    rank: int
    position: int
    count: int
    matrix: bool
    ragged: bool


def places(
    tensors: Sequence[Shape], total_v: int, model: Model, tied: bool, default: TensorType, matrix: bool
) -> list[Place]:
    """The places of the tensors that a recipe with this default type decides about, in reading order.

    `total_v` is how many V-like tensors the whole model has, including those that are not up for choice; `matrix` says
    whether an importance matrix is at hand. Raises Unsupported for a feed-forward of a mixture of experts outside the
    blocks, which has no depth.
    """
    seen: Counter[Role] = Counter()
    found = []
    for tensor in sorted(tensors, key=lambda t: reading_order(t.name)):
        role = role_of(tensor.name, model.architecture, tied)
        rank = seen[role]
        seen[role] += 1
        in_attention = role is Role.ATTENTION_V
        found.append(
            Place(
                tensor=tensor,
                role=role,
                model=model,
                rank=rank,
                position=rank if in_attention else _depth(tensor, role, rank, model),
                count=total_v if in_attention else model.blocks,
                matrix=matrix,
                ragged=not fits(default, tensor.columns),
            )
        )
    return found


def _depth(tensor: Shape, role: Role, rank: int, model: Model) -> int:
    # With experts, one block may hold several feed-forwards (dense, shared, stacked): only its number tells the depth.
    if model.experts < 2 or role not in (Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN):
        return rank
    block = block_of(tensor.name)
    if block is None or block >= model.blocks:
        raise Unsupported(
            f"{tensor.name}: a feed-forward of a mixture of experts outside the {model.blocks} blocks",
            "name its type yourself with --tensor-type, or use --pure",
        )
    return block

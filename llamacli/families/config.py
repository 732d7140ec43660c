"""config.json as families read it: one flat table with the names that differ between families resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llamacli.errors import CorruptFile
from llamacli.families.wrappers import SIZES

NESTED = ("text_config", "llm_config", "lm_config", "language_config")
"""Where multimodal wrappers keep the configuration of their text model."""


def _nested(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text model's own configuration in a wrapper's; empty if there is none."""
    thinker = raw.get("thinker_config")
    outer = thinker if isinstance(thinker, dict) else raw
    return next((outer[name] for name in NESTED if isinstance(outer.get(name), dict)), {})


_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
_LOCAL_THETA = ("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq")
_PARTIAL = ("partial_rotary_factor", "rope_pct", "rope_percent")


CONTEXT_NAMES = (
    "max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length",
)  # fmt: skip

MOST = 1 << 31
MOST_BLOCKS = 4096
"""More than any model has: a name map for a billion blocks takes all memory there is."""


@contextmanager
def values_of(label: str) -> Iterator[None]:
    """What is computed from a configuration: a value of a kind that nobody expects becomes a CorruptFile, in one line."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"{label}/config.json: a value is not of the kind that this family has ({type(error).__name__}: {error})",
            "-vv shows where it is used",
        ) from error


@dataclass(frozen=True)
class Config:
    """The configuration of a text model.

    `values` is the flat table (a nested text configuration wins over its wrapper, `defaults` of the family fill what is
    left out); `wrapper` is config.json as it is.
    """

    values: Mapping[str, Any]
    wrapper: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Config:
        """The flat table of a config.json."""
        nested = _nested(raw)
        given = {**raw, **{name: value for name, value in nested.items() if value is not None}}
        present = {name: value for name, value in given.items() if value is not None}
        assumed = {**(defaults or {}), **SIZES.get(str(nested.get("model_type", "")), {})}
        if "rope_scaling" in present:
            assumed.pop("rope_parameters", None)  # the older name says the same
        return cls({**assumed, **present}, raw)

    def derived(self, **values: Any) -> Config:
        """The same with values that config.json does not have."""
        return Config({**self.values, **values}, self.wrapper)

    @property
    def wraps(self) -> bool:
        """Whether the text model is a part of something larger."""
        return bool(_nested(self.wrapper))

    @property
    def architecture(self) -> str:
        """The class that transformers would load, of the text model where it is named."""
        names = self.values.get("architectures")
        names = [names] if isinstance(names, str) else names
        return str(names[0]) if isinstance(names, list) and names else ""

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of `names` that is set, else `default`."""
        return next((self.values[name] for name in names if self.values.get(name) is not None), default)

    def integer(self, *names: str, default: Any = None, least: int = 0, most: int = MOST) -> int:
        """A count that must be there unless `default` says otherwise. Raises CorruptFile that names it."""
        value = self.get(*names, default=default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise CorruptFile(f"config.json: {names[0]} is {value!r}, which is not a count that a model has")
        return value

    @property
    def blocks(self) -> int:
        """Number of transformer blocks; where each block is named, that many."""
        if named := self.get("layers_block_type", "hybrid_override_pattern"):
            return len(named)
        return self.integer("num_hidden_layers", "n_layers", "n_layer", "num_layers", least=1, most=MOST_BLOCKS)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.integer("hidden_size", "n_embd", "dim", "d_model", least=1)

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return self.integer("num_attention_heads", "n_heads", "n_head", least=1)

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.integer("num_key_value_heads", "n_kv_heads", default=self.heads)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.integer("head_dim", default=0) or self.hidden // self.heads

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the embedding."""
        return bool(self.get("tie_word_embeddings", default=False))

    @property
    def rope(self) -> dict[str, Any]:
        """Rope parameters in the style of transformers 5, whatever style the file has.

        May have `full_attention` and `sliding_attention` tables of their own.
        """
        rope = dict(self.get("rope_parameters", "rope_scaling", default={}))
        if "full_attention" in rope or "sliding_attention" in rope:
            return rope
        if (local := self.get(*_LOCAL_THETA)) is not None:
            rope["sliding_attention"] = {"rope_theta": local}
        extra = {
            "rope_theta": self.get(*_THETA),
            "rope_type": rope.get("type"),
            "partial_rotary_factor": self.get(*_PARTIAL),
            "original_max_position_embeddings": self.get("original_max_position_embeddings"),
        }
        for name, value in extra.items():
            if value is not None:
                rope.setdefault(name, value)
        return rope

    @property
    def full_rope(self) -> dict[str, Any]:
        """Rope parameters of the layers with full attention."""
        rope = self.rope
        full: dict[str, Any] = rope.get("full_attention", rope)
        return full

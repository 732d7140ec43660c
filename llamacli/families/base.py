"""What a model family is: data. The converter reads it; nothing here knows how a file is written.

A family says which metadata keys it adds, what happens to tensors that are not simply renamed, and which shapes it expects.
Names are translated by the gguf package's own tensor-name map. Rules are tried in order, the first whose pattern matches the
whole name wins; a tensor that neither a rule nor the map knows is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llamacli.families.config import Config
from llamacli.families.wrappers import has_head
from llamacli.formats.gguf_values import Value
from llamacli.formats.rows import Rows

Named = tuple[str, Rows]
Transform = Callable[[Rows, Config], Rows]


EXPERT_COUNT_NAMES = ("num_local_experts", "num_experts", "n_routed_experts")
"""Where configurations say how many routed experts a block has."""


def expert_count(config: Config) -> int | None:
    """How many tensors one stack of experts takes; None if config.json does not say."""
    found = config.get(*EXPERT_COUNT_NAMES)
    return None if found is None else int(found)


_BLOCK = re.compile(r"(?:model\.)?(?:language_model\.)?(mtp\.)?layers\.(\d+)\.")


def further_blocks(names: Iterable[str], config: Config) -> int:
    """Blocks after the last that predict further tokens: `mtp.layers.0`, or numbered on from the others."""
    blocks = config.blocks
    further = 0
    for name in names:
        if match := _BLOCK.match(name):
            further = max(further, int(match[2]) + 1 - (0 if match[1] else blocks))
    return further


def _tied(config: Config, names: Iterable[str]) -> bool:
    """Whether the embedding serves as the output too, in classes without a head and in wrappers, as the tensors tell.

    Of a wrapper and its text model either may say that they are tied, and transformers 4 and 5 ask different ones.
    """
    if config.wraps:
        return not has_head(names) or bool(config.wrapper.get("tie_word_embeddings"))
    return config.tied or (not config.architecture.endswith(_CLASSES_WITH_HEAD) and not has_head(names))


_CLASSES_WITH_HEAD = ("ForCausalLM", "LMHeadModel")


def with_further_blocks(config: Config) -> int:
    """All blocks, for families whose files have those that predict further tokens."""
    return config.blocks + int(config.get("further_blocks", default=0))


@dataclass(frozen=True)
class Key:
    """One metadata key: `name` follows the architecture (`llama.block_count`), or is whole if it has `general.` in front.

    `value` returns None when the key is to be left out.
    """

    name: str
    value: Callable[[Config], Value | None]


@dataclass(frozen=True)
class Rule:
    """What becomes of tensors whose whole name matches `pattern` (a regular expression).

    Exactly one of these: nothing but `rename` (a template for `re.Match.expand`; what begins with `blk.` is GGUF's own
    name, for tensors that the gguf package does not know yet) and `transform` of the rows; `split` into
    several named tensors; `drop`; or `stack`: all tensors that expand to the same `stack` name become one, ordered by the
    group called `expert`, each transformed first; there must be `stack_size` of them.
    """

    pattern: str
    transform: Transform | None = None
    rename: str = ""
    split: Callable[[str, Rows, Config], Iterable[Named]] | None = None
    stack: str = ""
    stack_size: Callable[[Config], int | None] = expert_count
    drop: bool = False
    when: Callable[[Config], bool] = lambda config: True

    def match(self, name: str, config: Config) -> re.Match[str] | None:
        """The match if this rule is for `name`."""
        return re.fullmatch(self.pattern, name) if self.when(config) else None


@dataclass(frozen=True)
class Expected:
    """A tensor that the family cannot do without: `name` in GGUF's terms with `{block}`, and its shape, outermost first.

    `shape` and `blocks` may depend on the configuration; a dimension of -1 may be anything.
    """

    name: str
    shape: Callable[[Config], tuple[int, ...]]
    when: Callable[[Config, int], bool] = lambda config, block: True


@dataclass(frozen=True)
class Family:
    """One model family as data."""

    name: str
    """The architecture's name in GGUF (`general.architecture`)."""
    architectures: tuple[str, ...]
    """The class names in config.json that this family converts."""
    keys: tuple[Key, ...]
    rename: Callable[[str, Config], str] = lambda name, config: name
    """Brings a checkpoint's names to those that the rules speak of, where the family has several styles."""
    rules: tuple[Rule, ...] = ()
    expected: tuple[Expected, ...] = ()
    extra: Callable[[Config], Iterable[Named]] = lambda config: ()
    """Tensors that are computed from the configuration; names in GGUF's terms."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What transformers assumes where config.json is silent."""
    refusals: Callable[[Config], Iterable[str]] = lambda config: ()
    """Why a checkpoint cannot be converted although its class is known."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings of config.json that the engine's graph does not read, with the one value that it computes."""
    warnings: Callable[[Config], Iterable[str]] = lambda config: ()
    """What the engine will compute differently from the checkpoint's own code."""
    sibling: Callable[[Config], Family | None] = lambda config: None
    """The family to take instead, where the engine calls some models of one class by another name."""
    sibling_of: tuple[str, ...] = ()
    """The classes that it is a sibling of, for lists of families."""
    scalars: str = ""
    """Tensors of one number that become metadata (a regular expression); the configuration has them as `scalars`."""
    example: str = ""
    """A repository on the Hub."""
    title: str = ""
    """The name that people use."""
    blocks: Callable[[Config], int] = lambda config: config.blocks
    """Blocks in the file, where that is not `num_hidden_layers`."""

    def config(self, raw: Mapping[str, Any], names: Iterable[str] = ()) -> Config:
        """config.json with this family's defaults and with what only the tensors' `names` tell."""
        given = Config.of(raw, self.defaults)
        tied = {"tie_word_embeddings": _tied(given, names)} if names else {}
        return given.derived(further_blocks=further_blocks(names, given), **tied)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in config.json of all its models."""
        return self.architectures or self.sibling_of

    def override(self, **changes: Any) -> Family:
        """A sibling that differs in `changes`."""
        return replace(self, **changes)

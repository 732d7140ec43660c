"""A PEFT adapter as a GGUF adapter: the matrices under GGUF's names, their rows in the order of the base's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from llamacli.checkpoint.adapter import Adapter, Change
from llamacli.errors import CorruptFile, Unsupported
from llamacli.families.base import Family, Rule
from llamacli.families.config import Config
from llamacli.families.mapping import plain_name, tensor_name_table
from llamacli.families.transforms import transpose
from llamacli.formats.dtypes import Block, FloatArray
from llamacli.formats.gguf_values import Value, f32, string
from llamacli.formats.rows import Arena, Grouped, InMemory, Joined, Mapped, Reshaped, RowRange, RowRuns, Rows, read_all


def adapter_tensors(adapter: Adapter, family: Family, config: Config) -> dict[str, Rows]:
    """`NAME.lora_a` (rank, in) and `NAME.lora_b` (out, rank) of every matrix.

    Raises Unsupported where a change cannot be told by rows alone (it can still be merged), CorruptFile for modules that
    the base's family does not have or whose width is not the base's.
    """
    if adapter.replaced:
        raise Unsupported(f"{adapter.label} replaces {next(iter(adapter.replaced))} as a whole", _MERGE)
    if config.tied and (embedding := next((c.module for c in adapter.changes if c.embedding), "")):
        # The engine would take the change of the embedding for one of the output, which is the same tensor there.
        raise Unsupported(f"{adapter.label} changes {embedding}, which the base has in common with its output", _MERGE)
    table = tensor_name_table(family, config)
    tensors: dict[str, Rows] = {}
    alpha = adapter_alpha(adapter)
    for change in _stacked(adapter, family, config):
        for name, up in _renamed(change, family, config, adapter.label):
            target = name if name.startswith("blk.") else table.get_name(name, try_suffixes=(".weight",))
            if target is None:
                raise CorruptFile(
                    f"{adapter.label} changes {change.module}, which {family.title or family.name} does not have",
                    f"it is an adapter of {adapter.base or 'another base'}",
                )
            if f"{target}.lora_a" in tensors:
                raise CorruptFile(f"{adapter.label}: two changes of {target}")
            factor = change.scale * change.rank / alpha
            down = InMemory(read_all(change.down).T.copy()) if change.embedding else change.down
            tensors[f"{target}.lora_a"] = down
            tensors[f"{target}.lora_b"] = up if factor == 1 else Mapped(up, _times(factor))
    _check_widths(tensors, config, adapter)
    return tensors


def is_transposed(name: str, family: Family, config: Config) -> bool:
    """Whether the family stores this matrix as (in, out), by its rule."""
    bare = family.rename(plain_name(name), config)
    return any(rule.transform is transpose and rule.match(bare, config) is not None for rule in family.rules)


def _stacked(adapter: Adapter, family: Family, config: Config) -> Iterator[Change]:
    """The changes, those of single experts as one of the stack that the family makes of them.

    Raises Unsupported where not all experts of a stack are changed, or with different ranks.
    """
    stacks: dict[str, dict[int, Change]] = {}
    sizes: dict[str, int | None] = {}
    for change in adapter.changes:
        name = family.rename(plain_name(f"{change.module}.weight"), config)
        rule, match = _rule_for(name, family, config)
        if rule is None or match is None or not rule.stack or rule.transform:
            yield change
            continue
        stack = match.expand(rule.stack)
        stacks.setdefault(stack, {})[int(match["expert"])] = change
        sizes[stack] = rule.stack_size(config)
    for stack, experts in stacks.items():
        first, parts = next(iter(experts.values())), [experts[number] for number in sorted(experts)]
        alike = {(part.down.shape, part.up.shape, part.scale) for part in parts}
        if len(alike) > 1 or sorted(experts) != list(range(sizes[stack] or len(experts))):
            raise Unsupported(
                f"{adapter.label} changes {first.module}, but not every expert of its block alike", _MERGE
            )
        down = Joined(tuple(part.down for part in parts), (len(parts), *first.down.shape))
        up = Joined(tuple(part.up for part in parts), (len(parts), *first.up.shape))
        yield replace(first, module=stack.removesuffix(".weight"), down=down, up=up)


def _rule_for(name: str, family: Family, config: Config) -> tuple[Rule | None, re.Match[str] | None]:
    """The first of the family's rules that matches a name."""
    return next(((rule, match) for rule in family.rules if (match := rule.match(name, config))), (None, None))


_MERGE = "a GGUF adapter cannot say that; merge it: llamacli quantize BASE --lora ADAPTER"


def _times(factor: float) -> Callable[[FloatArray], FloatArray]:
    return lambda values: values * np.float32(factor)


def adapter_alpha(adapter: Adapter) -> float:
    """The one alpha of the file: the engine scales by alpha over the rank, whatever PEFT did."""
    first = adapter.changes[0]
    return first.scale * first.rank


def adapter_metadata(adapter: Adapter, family: Family, name: str) -> dict[str, Value]:
    """The keys by which the engine knows an adapter."""
    return {
        "general.architecture": string(family.name),
        "general.type": string("adapter"),
        "general.name": string(name),
        **({"general.base_model.0.name": string(adapter.base)} if adapter.base else {}),
        "adapter.type": string("lora"),
        "adapter.lora.alpha": f32(adapter_alpha(adapter)),
    }


@dataclass(frozen=True)
class _Probe:
    """Stands for the base's rows, to see what a family's rule does with them."""

    base: Rows
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Those of `up`."""
        return self.base.shape

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """Those of `up`."""
        return self.base.read(start, stop, arena)


def _renamed(change: Change, family: Family, config: Config, label: str) -> Iterator[tuple[str, Rows]]:
    """The names that the family's rules make of one module, each with its rows of `up`."""
    name = family.rename(plain_name(f"{change.module}.weight"), config)
    rule, match = _rule_for(name, family, config)
    if rule is None or match is None:
        yield name, change.up
        return
    if rule.drop or rule.stack:
        raise Unsupported(f"{label} changes {change.module}", _MERGE)
    probe = _Probe(change.up)
    if rule.split:
        parts = list(rule.split(name, probe, config))
    elif rule.transform is transpose:
        parts = [(match.expand(rule.rename) if rule.rename else name, probe)]  # the base's own way of storing it
    else:
        moved = rule.transform(probe, config) if rule.transform else probe
        parts = [(match.expand(rule.rename) if rule.rename else name, moved)]
    for new, rows in parts:
        if not _only_rows(rows):
            raise Unsupported(f"{label} changes {change.module}, whose columns the base's family moves", _MERGE)
        yield new, rows


def _only_rows(rows: Rows) -> bool:
    """Whether rows were only picked and put in another order: then `up` can be treated like the base."""
    while isinstance(rows, Grouped | RowRange | RowRuns | Reshaped):
        if isinstance(rows, Reshaped) and rows.shape[-1] != rows.base.shape[-1]:
            return False
        rows = rows.base
    return isinstance(rows, _Probe)


def _check_widths(tensors: dict[str, Rows], config: Config, adapter: Adapter) -> None:
    """The widths that every family has must be the base's."""
    for name, rows in tensors.items():
        if name.endswith((".attn_q.weight.lora_a", ".ffn_up.weight.lora_a")) and rows.shape[1] != config.hidden:
            raise CorruptFile(
                f"{adapter.label} changes {name.removesuffix('.lora_a')} of {rows.shape[1]} columns, the base has "
                f"{config.hidden}",
                f"it is an adapter of {adapter.base or 'another base'}",
            )

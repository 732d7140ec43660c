"""PEFT adapters: low-rank changes to the matrices of a base model, read as they are shipped, merged while rows pass by.

Format: adapter_config.json and adapter_model.safetensors of the PEFT library. Scaling is alpha over the rank, or over its
square root with `use_rslora`; `rank_pattern` and `alpha_pattern` name modules that differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from llamacli.checkpoint.checkpoint import PICKLES, read_json
from llamacli.checkpoint.source import Source
from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.dtypes import Block, FloatArray, widen
from llamacli.formats.rows import Arena, Rows, read_all
from llamacli.formats.safetensors import StoredTensor, read_shard

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Change:
    """One matrix of the base: `down` (rank, in) and `up` (out, rank); what is added is scale · up · down.

    `transposed`: the base stores the matrix as (in, out).
    """

    module: str
    down: Rows
    up: Rows
    scale: float
    transposed: bool = False
    embedding: bool = False

    @property
    def rank(self) -> int:
        """How many columns `up` has."""
        return self.up.shape[-1]


@dataclass(frozen=True)
class Adapter:
    """What an adapter's folder holds. `replaced` are whole tensors that were trained with it, by the base's names."""

    label: str
    base: str
    changes: tuple[Change, ...]
    replaced: Mapping[str, Rows]
    config: Mapping[str, Any]

    def scaled(self, factor: float) -> Adapter:
        """The same with another weight of its own: 1 is as it was trained."""
        return replace(self, changes=tuple(replace(c, scale=c.scale * factor) for c in self.changes))

    def turned(self, stored_transposed: Callable[[str], bool]) -> Adapter:
        """The same for a base of which `stored_transposed` says by its name whether a matrix is stored as (in, out).

        PEFT goes by the layer too, whatever `fan_in_fan_out` says.
        """
        changes = tuple(replace(c, transposed=stored_transposed(f"{c.module}.weight")) for c in self.changes)
        return replace(self, changes=changes)


def read_adapter(source: Source) -> Adapter:
    """The adapter in a folder. Raises Unsupported for other methods and tasks, CorruptFile for what does not fit."""
    files = source.files()
    config = read_json(source, CONFIG)
    _refuse_others(config, source.label)
    if WEIGHTS not in files:
        pickled = any(name.endswith(PICKLES) for name in files)
        hint = "its weights are pickled, which can run code; save it as safetensors" if pickled else ""
        raise Unsupported(f"{source.label} has no {WEIGHTS}", hint)
    tensors = read_shard(source.open(WEIGHTS), f"{source.label}/{WEIGHTS}").tensors
    down, up, replaced = _sorted_out(tensors, source.label)
    if lonely := sorted(set(down) ^ set(up)):
        raise CorruptFile(f"{source.label}: {lonely[0]} has only one of its two matrices")
    if not down and not replaced:
        raise CorruptFile(f"{source.label}/{WEIGHTS} has no LoRA matrices")
    changes = tuple(_change(module, down[module], up[module], config, source.label) for module in down)
    return Adapter(source.label, str(config.get("base_model_name_or_path") or ""), changes, replaced, config)


def _refuse_others(config: Mapping[str, Any], label: str) -> None:
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind != "LORA":
        raise Unsupported(f"{label} is a {kind or 'nameless'} adapter", "only LoRA adapters can be merged or converted")
    if task not in (None, "CAUSAL_LM", "FEATURE_EXTRACTION"):
        raise Unsupported(f"{label} was trained for {task}", "only adapters of language models are supported")
    if config.get("use_dora"):
        raise Unsupported(f"{label} is a DoRA adapter", "merge it with PEFT first, then quantize the merged checkpoint")
    if config.get("alora_invocation_tokens"):
        raise Unsupported(
            f"{label} works only behind certain tokens (aLoRA)", "merged into its base it would work always"
        )
    if config.get("target_parameters"):
        raise Unsupported(f"{label} changes whole stacks of experts (target_parameters)", "merge it with PEFT first")
    if config.get("layer_replication"):
        raise Unsupported(f"{label} repeats blocks of its base (layer_replication)", "merge it with PEFT first")


_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(\.(?!bias$)\w+)?(\.weight)?"
)
_WHOLE = re.compile(r"base_model\.model\.(?P<module>.+?)(\.modules_to_save(\.\w+)?)?\.(?P<kind>weight|bias)")
_Table = dict[str, StoredTensor]


def _sorted_out(tensors: Mapping[str, StoredTensor], label: str) -> tuple[_Table, _Table, dict[str, Rows]]:
    """Matrices down and up by module, and whole tensors by name. Raises Unsupported for anything else."""
    down: _Table = {}
    up: _Table = {}
    replaced: dict[str, Rows] = {}
    for name, tensor in tensors.items():
        if match := _NAME.fullmatch(name):
            (down if match["part"] == "A" else up)[match["module"]] = tensor
        elif "lora_" in name:
            raise Unsupported(f"{label}: {name} is not a LoRA matrix that is known", "merge it with PEFT first")
        elif (match := _WHOLE.fullmatch(name)) and not _as_in_the_base(name):
            replaced[f"{match['module'].removesuffix('.base_layer')}.{match['kind']}"] = tensor
        elif not match:
            raise Unsupported(f"{label}: tensor {name!r} is not known")
    return down, up, replaced


def _as_in_the_base(name: str) -> bool:
    """Whether a whole tensor was saved beside the matrices without being trained; biases are saved only if they were."""
    return ".original_module." in name or name.endswith(".base_layer.weight")


def _change(module: str, down: StoredTensor, up: StoredTensor, config: Mapping[str, Any], label: str) -> Change:
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
        raise CorruptFile(f"{label}: {module} has matrices {down.shape} and {up.shape}, which do not fit together")
    rank = _number(_for_module(config, "rank_pattern", module, config.get("r", down.shape[0])), "r", label)
    if rank != down.shape[0]:
        raise CorruptFile(f"{label}: {module} has rank {down.shape[0]}, {CONFIG} says {rank:g}")
    alpha = _number(_for_module(config, "alpha_pattern", module, config.get("lora_alpha", rank)), "lora_alpha", label)
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    embedding = "lora_embedding_" in down.name
    return Change(module, down, up, scale, bool(config.get("fan_in_fan_out")), embedding)


def _number(value: Any, name: str, label: str) -> float:
    if type(value) not in (int, float) or not value or not np.isfinite(value):
        raise CorruptFile(f"{label}: {name} is {value!r} in {CONFIG}, which is no scale")
    return float(value)


def _for_module(config: Mapping[str, Any], table: str, module: str, default: Any) -> Any:
    """The entry whose pattern matches the module's name or its end, as PEFT looks it up."""
    patterns = config.get(table)
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        try:
            found = re.fullmatch(rf"(.*\.)?({pattern})", module)
        except re.error as error:
            raise CorruptFile(f"{CONFIG}: {pattern!r} in {table} is no expression") from error
        if found:
            return value
    return default


# -- merging -------------------------------------------------------------------------------------------------------------


def merged(tensors: Mapping[str, Rows], adapters: Sequence[Adapter], plain: Mapping[str, str]) -> dict[str, Rows]:
    """The base's tensors with all adapters added, in float32, still unread.

    `plain` gives each tensor's name without what a wrapper puts in front. Raises CorruptFile for an adapter of another base.
    """
    names = {bare: name for name, bare in plain.items()}
    changed = dict(tensors)
    for adapter in adapters:
        for name, rows in adapter.replaced.items():
            target = _target(name, tensors, names, adapter)
            _same_shape(target, tensors[target].shape, rows.shape, adapter)
            changed[target] = rows
        for change in adapter.changes:
            target = _target(f"{change.module}.weight", tensors, names, adapter)
            added = Merged(changed[target], change)
            _same_shape(target, tensors[target].shape, added.change_shape, adapter)
            changed[target] = added
    return changed


def _target(name: str, tensors: Mapping[str, Rows], names: Mapping[str, str], adapter: Adapter) -> str:
    for candidate in _spellings(name):
        if candidate in tensors:
            return candidate
        if candidate in names:
            return names[candidate]
    if name.endswith("lm_head.weight") and any(bare.endswith("embed_tokens.weight") for bare in names):
        raise Unsupported(
            f"{adapter.label} changes {name}, which the base has in common with its embedding",
            "merge it with PEFT first",
        )
    raise CorruptFile(
        f"{adapter.label} changes {name}, which the base does not have",
        f"it is an adapter of {adapter.base}" if adapter.base else "it is an adapter of another base",
    )


def _spellings(name: str) -> Iterable[str]:
    """The name as the adapter has it, and as the same module is called where a wrapper came or went."""
    yield name
    for old, new in (
        ("model.language_model.", "model."), ("language_model.model.", "model."), ("transformer.", ""),
        ("model.model.", "model."),
    ):  # fmt: skip
        if name.startswith(old):
            yield new + name.removeprefix(old)
    yield f"model.{name}"


def _same_shape(name: str, wanted: tuple[int, ...], found: tuple[int, ...], adapter: Adapter) -> None:
    if wanted != found:
        raise CorruptFile(
            f"{adapter.label} changes {name} of shape {found}, the base has {wanted}",
            f"it is an adapter of {adapter.base}" if adapter.base else "it is an adapter of another base",
        )


@dataclass(frozen=True)
class Merged:
    """Rows of the base with scale · up · down added, in float32."""

    base: Rows
    change: Change
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.base.shape

    @property
    def change_shape(self) -> tuple[int, ...]:
        """The shape of what is added."""
        out, columns = self.change.up.shape[0], self.change.down.shape[1]
        return (columns, out) if self.change.transposed or self.change.embedding else (out, columns)

    @cached_property
    def _factors(self) -> tuple[FloatArray, FloatArray]:
        """(rows, rank) and (rank, columns) of the matrix as it is stored, the scale taken in."""
        up, down = read_all(self.change.up), read_all(self.change.down)
        left, right = (down.T, up.T) if self.change.transposed or self.change.embedding else (up, down)
        return np.ascontiguousarray(left) * np.float32(self.change.scale), np.ascontiguousarray(right)

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        left, right = self._factors
        return widen(self.base.read(start, stop, arena)) + left[start:stop] @ right

    def needs(self, start: int, stop: int) -> Iterable[tuple[Rows, int, int]]:
        """See `formats.extents`: the adapter itself is small and read on its own."""
        yield self.base, start, stop

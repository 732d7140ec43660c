"""Everything decided, nothing read: the plan of one output.

One pure value gives the dry run, the check for free space, the total of the progress bar, the writer's offsets and the
golden tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from llamacli.errors import UsageError
from llamacli.formats.gguf_encode import encode_entry
from llamacli.formats.gguf_values import Value, boolean, f32, i32, string, u32
from llamacli.formats.gguf_writer import FileLayout, lay_out_split
from llamacli.formats.rows import Rows, row_count
from llamacli.formats.tensor_types import BY_NAME, MXFP4, TensorType
from llamacli.quantize.choose import Choice, choose_types, require_matrix, undecided
from llamacli.quantize.covariance import Covariance
from llamacli.quantize.importance import Importance, ImportanceMatrix
from llamacli.quantize.model import Model
from llamacli.quantize.overrides import Overrides
from llamacli.quantize.place import Model as Measures
from llamacli.quantize.prune import blocks_left, prune_layers
from llamacli.quantize.recipes import Recipe
from llamacli.quantize.roles import Shape


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output: where its rows come from and what they become."""

    name: str
    source: str
    rows: Rows
    choice: Choice

    @property
    def type(self) -> TensorType:
        """The type it is written in."""
        return self.choice.type

    @property
    def shape(self) -> tuple[int, ...]:
        """Outermost dimension first."""
        return self.rows.shape

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the output."""
        return self.type.row_bytes(self.shape[-1])

    @property
    def size_bytes(self) -> int:
        """Bytes of its data in the file."""
        return row_count(self.shape) * self.row_bytes

    @property
    def source_bytes(self) -> int:
        """Bytes that are read for it."""
        return row_count(self.shape) * BY_NAME[self.rows.dtype].row_bytes(self.shape[-1])


@dataclass(frozen=True)
class Plan:
    """One output: a file, or the parts of a split one."""

    recipe: Recipe
    metadata: Mapping[str, Value]
    parts: tuple[tuple[PlannedTensor, ...], ...]
    layouts: tuple[FileLayout, ...]
    warnings: tuple[str, ...] = ()
    importance: Importance | None = None
    """How much an error in each column matters."""
    covariance: Covariance | None = None
    """How errors in several columns go together; given, the search is thorough."""

    @property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        """All tensors in the order of the file."""
        return tuple(tensor for part in self.parts for tensor in part)

    @property
    def size_bytes(self) -> int:
        """Exact size of the output, all parts together."""
        return sum(layout.size_bytes for layout in self.layouts)

    @property
    def weights(self) -> int:
        """Number of parameters."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits that a parameter takes on average."""
        return 8 * sum(tensor.size_bytes for tensor in self.tensors) / self.weights

    def paths(self, target: Path) -> tuple[Path, ...]:
        """Where the parts go: `target`, or its name with `-00001-of-00003`."""
        if len(self.parts) == 1:
            return (target,)
        stem = re.sub(r"-\d{5}-of-\d{5}$", "", target.stem)
        return tuple(
            target.with_name(f"{stem}-{number:05}-of-{len(self.parts):05}.gguf")
            for number in range(1, len(self.parts) + 1)
        )


@dataclass(frozen=True)
class PlanOptions:
    """What the user decided; names are those of llama-quantize's flags."""

    overrides: Overrides = field(default_factory=Overrides)
    override_kv: tuple[tuple[str, Value], ...] = ()
    prune: frozenset[int] = frozenset()
    keep_split: bool = False
    split_max_bytes: int = 0
    importance: ImportanceMatrix | None = None
    covariance: Covariance | None = None


def make_plan(model: Model, recipe: Recipe, options: PlanOptions) -> Plan:
    """Decide every name, shape, type, size and offset of the output.

    Raises UsageError for options that do not fit the model and where the recipe needs an importance matrix.
    """
    names = prune_layers(model.tensors, options.prune)
    kept, shapes = _kept(model, names)
    stored = {name: model.stored[source] for source, name in kept.items()}
    measures = Measures.of(model.metadata)
    importance = options.importance.renamed(names).fit(shapes) if options.importance else None
    has_matrix = importance is not None
    choices = choose_types(shapes, measures, recipe, options.overrides, has_imatrix=has_matrix, source_types=stored)
    require_matrix(choices, recipe, has_matrix, known=importance.known if importance else None)
    tensors = tuple(PlannedTensor(name, source, model.tensors[source], choices[name]) for source, name in kept.items())
    metadata = {**_metadata(model, recipe, options, importance), **_mostly(tensors, recipe)}
    parts = _parts(tensors, model, options)
    unused = options.overrides.unused(kept.values())
    warnings = (*model.warnings, *(f"--tensor-type {pattern!r} matches no tensor" for pattern in unused))
    covariance = options.covariance.renamed(names) if options.covariance else None
    return Plan(recipe, metadata, parts, lay_out_split(metadata, parts), warnings, importance, covariance)


def _mostly(tensors: Sequence[PlannedTensor], recipe: Recipe) -> dict[str, Value]:
    """The file's type where the checkpoint's own blocks outweigh what an unquantized recipe leaves: MXFP4_MOE."""
    kept = any(tensor.type is MXFP4 for tensor in tensors) and not recipe.default.quantized
    return {"general.file_type": u32(38)} if kept else {}


def _kept(model: Model, names: Mapping[str, str | None]) -> tuple[dict[str, str], list[Shape]]:
    """The names in the output by those in the source, and the tensors under their names in the output."""
    kept = {source: name for source, name in names.items() if name is not None}
    return kept, [Shape(name, tuple(reversed(model.tensors[source].shape))) for source, name in kept.items()]


def names_to_choose(model: Model, options: PlanOptions, recipe: Recipe) -> dict[str, str]:
    """The tensors whose types are the recipe's to choose: names in the output by names in the source."""
    kept, shapes = _kept(model, prune_layers(model.tensors, options.prune))
    free = set(undecided(shapes, Measures.of(model.metadata), recipe, options.overrides))
    return {source: name for source, name in kept.items() if name in free}


def _metadata(model: Model, recipe: Recipe, options: PlanOptions, importance: Importance | None) -> dict[str, Value]:
    metadata = {**model.metadata, "general.file_type": u32(recipe.file_type)}
    if options.prune:
        key = f"{model.metadata['general.architecture'].value}.block_count"
        metadata[key] = u32(blocks_left(int(metadata[key].value), options.prune))
    if importance is not None:
        metadata.update(importance.metadata())
    if options.covariance is not None:
        metadata["llamacli.search"] = string("thorough")
    metadata.update(options.override_kv)
    return metadata


def _parts(
    tensors: Sequence[PlannedTensor], model: Model, options: PlanOptions
) -> tuple[tuple[PlannedTensor, ...], ...]:
    """Which tensors go into which file: all into one, or as the source has them, or up to a size."""
    if options.keep_split:
        shards = sorted({model.shards[tensor.source] for tensor in tensors})
        return tuple(tuple(t for t in tensors if model.shards[t.source] == shard) for shard in shards)
    if not options.split_max_bytes:
        return (tuple(tensors),)
    parts: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if parts[-1] and size + tensor.size_bytes > options.split_max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(tensor)
        size += tensor.size_bytes
    return tuple(tuple(part) for part in parts)


_OF_THE_FILE = ("general.alignment", "split.")


def parse_override_kv(text: str) -> tuple[str, Value]:
    """`KEY=TYPE:VALUE` as llama.cpp reads it; types are int, float, bool and str. Raises UsageError."""
    key, equals, typed = text.partition("=")
    kind, colon, value = typed.partition(":")
    hint = "for example --override-kv tokenizer.ggml.add_bos_token=bool:false"
    if not (key and equals and colon):
        raise UsageError(f"{text!r} is not KEY=TYPE:VALUE", hint)
    if key.startswith(_OF_THE_FILE):
        raise UsageError(f"{key} says how the file itself is laid out", "quantize sets it; leave it out")
    try:
        found = _typed(kind, value)
        encode_entry(key, found)
    except ValueError:
        raise UsageError(f"{value!r} is not of type {kind}, or too large", hint) from None
    except KeyError:
        raise UsageError(f"{typed!r} is not TYPE:VALUE with int, float, bool (true, false) or str", hint) from None
    return key, found


def _typed(kind: str, value: str) -> Value:
    """Raises ValueError for what is no such value, KeyError for another type."""
    if kind == "int":
        return u32(int(value)) if int(value) >= 0 else i32(int(value))
    if kind == "bool":
        return boolean({"true": True, "false": False}[value])
    return {"float": lambda: f32(float(value)), "str": lambda: string(value)}[kind]()


def parse_size(text: str) -> int:
    """`4G` or `500M` in bytes, powers of 1000 as llama-gguf-split counts them. Raises UsageError."""
    factors = {"M": 1000**2, "G": 1000**3, "K": 1000}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG])B?", text.strip().upper())
    size = int(float(match[1]) * factors[match[2]]) if match else 0
    if not size:
        raise UsageError(f"{text!r} is not a size", "for example 4G or 500M")
    return size

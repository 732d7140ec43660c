"""A model ready to be written in any type: GGUF names, rows that are read when asked, metadata.

Made from a checkpoint through its family, or from a GGUF file that is not quantized yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llamacli.checkpoint.adapter import CONFIG as ADAPTER_CONFIG
from llamacli.checkpoint.adapter import Adapter, merged, read_adapter
from llamacli.checkpoint.checkpoint import Checkpoint
from llamacli.checkpoint.pooling import read_pooling
from llamacli.checkpoint.prequantized import plain_rows
from llamacli.checkpoint.reranker import answers_pairs
from llamacli.checkpoint.source import Folder, Source
from llamacli.checkpoint.tokenizer import read_vocabulary
from llamacli.errors import NotFound, Unsupported
from llamacli.families.config import Config, values_of
from llamacli.families.general import DESCRIBING_FILES, general_metadata, name_for_engine
from llamacli.families.mapping import map_tensors, plain_name
from llamacli.families.registry import family_of
from llamacli.families.rope import check_rope_keys, rope_warnings
from llamacli.formats.dtypes import Block
from llamacli.formats.file_access import LocalFile, Stream
from llamacli.formats.gguf_encode import DEFAULT_ALIGNMENT, encode_entry
from llamacli.formats.gguf_reader import GGUF, TensorInfo, read_gguf
from llamacli.formats.gguf_values import Value, string, u32
from llamacli.formats.rows import Arena, RoundedToBF16, Rows, read_all, row_count
from llamacli.formats.safetensors import StoredTensor
from llamacli.formats.tensor_types import BF16, BY_NAME, F16, F32, F64, I8, I16, I32, I64, TensorType
from llamacli.quantize.lora import adapter_metadata, adapter_tensors, is_transposed
from llamacli.quantize.ranking import ranking

ALWAYS_F32 = re.compile(
    r".*(_norm\.weight|\.ffn_gate_inp(_shexp)?\.weight|\.ssm_conv1d(_[qkv])?\.weight|\.shortconv\.conv\.weight"
    r"|\.time_mix_(first|w1|w2|decay_w1|decay_w2|lerp_fused)\.weight|\.indexer\.proj\.weight)"
    r"|(position_embd|token_types)\.weight|.*(?<!\.weight)"
)
"""Tensors of several dimensions that the engine wants in float32, whatever the file's type (llama.cpp's converter)."""


@dataclass(frozen=True)
class Model:
    """What goes into a GGUF file, before types are chosen."""

    name: str
    label: str
    metadata: Mapping[str, Value]
    """All keys but the file type and what belongs to a split."""
    tensors: Mapping[str, Rows]
    stored: Mapping[str, TensorType]
    """The type that a tensor has if it is not quantized."""
    shards: Mapping[str, int]
    """Which file of the source a tensor begins in."""
    inputs: tuple[Path, ...]
    """Files that must never be written to."""
    dtype: str
    warnings: tuple[str, ...] = ()
    architecture_class: str = ""
    stream: Stream | None = None
    """What governs reading, where the weights are not on this computer."""

    @property
    def weights(self) -> int:
        """Number of parameters."""
        total = 0
        for rows in self.tensors.values():
            size = 1
            for extent in rows.shape:
                size *= extent
            total += size
        return total


def open_model(path: Path, adapters: Sequence[Adapter] = ()) -> Model:
    """The model at `path`: a folder with safetensors, `adapters` merged into it, or a GGUF file in F32, F16 or BF16.

    Raises NotFound, Unsupported or CorruptFile, each with the place.
    """
    if not path.exists():
        raise NotFound(f"no such file or folder: {path}")
    if path.is_dir() and not is_adapter(path):
        return model_of_checkpoint(Checkpoint.open(Folder(path)), adapters)
    if adapters:
        raise Unsupported(f"{path} is no checkpoint", "adapters are merged into a folder with safetensors")
    if not path.is_file():
        raise Unsupported(f"{path} is no regular file", "a model is read at many places; store it first")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return model_of_gguf(read_gguf(path))
    if path.suffix == ".safetensors":
        return model_of_checkpoint(Checkpoint.open(Folder(path.parent)))
    raise Unsupported(f"{path} is neither a checkpoint's folder nor a GGUF file", "give the folder with config.json")


def is_adapter(path: Path) -> bool:
    """Whether a folder holds a LoRA adapter and no model."""
    return (path / ADAPTER_CONFIG).is_file() and not any(path.glob("model*.safetensors"))


def model_of_adapter(source: Source, base: Mapping[str, Any]) -> Model:
    """A LoRA adapter as a GGUF adapter; `base` is the config.json of the model that it was trained on."""
    adapter = read_adapter(source)
    raw = dict(base)
    family = family_of(Config.of(raw))
    tensors = adapter_tensors(adapter, family, family.config(raw))
    return Model(
        name=source.name,
        label=source.label,
        metadata={**adapter_metadata(adapter, family, source.name), "general.quantization_version": u32(2)},
        tensors=tensors,
        stored=dict.fromkeys(tensors, F32),
        shards=dict.fromkeys(tensors, 0),
        inputs=source.paths(),
        dtype="F32",
    )


def model_of_checkpoint(checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()) -> Model:
    """Carry a checkpoint through its family, with `adapters` merged into it."""
    source = checkpoint.source
    raw = {**checkpoint.config, "sentence_pooling": read_pooling(source)}
    with values_of(source.label):
        family = family_of(Config.of(raw))
        config = family.config(raw, checkpoint.tensors)
        stored = plain_rows(checkpoint.config, checkpoint.tensors)
        if adapters:
            adapters = [adapter.turned(lambda name: is_transposed(name, family, config)) for adapter in adapters]
            stored = merged(stored, adapters, {name: plain_name(name) for name in stored})
        config = config.derived(scalars=_scalars(stored, family.scalars))
        tensors = map_tensors(stored, family, config)
        _refuse_integers(tensors, stored)
        keys = {key.name: key.value(config) for key in family.keys}
        for name, value in keys.items():
            if value is not None:
                encode_entry(name, value)  # a number that its type cannot hold is found here
        check_rope_keys(keys, tensors, config, family.title)
        warnings = (*family.warnings(config), *rope_warnings(tensors, config, family.name))
        output, embedding = (_first_stored(tensors.get(f"{name}.weight")) for name in ("output", "token_embd"))
        if config.tied and output not in (None, embedding):
            warnings += (
                "config.json ties the output to the embedding, but the two are stored and differ; both are kept",
            )
        rows, promised = tensors["token_embd.weight"].shape[0], config.integer("vocab_size", default=0)
        if promised > rows:
            warnings += (f"config.json has a vocab_size of {promised:,}, the embedding {rows:,} rows",)
    vocabulary = read_vocabulary(source, checkpoint.config, rows)
    ranks: dict[str, Value] = {}
    if answers_pairs(source):
        tensors, ranks, vocabulary = ranking(family.name, tensors, vocabulary)
    shapes = {name: rows.shape for name, rows in tensors.items()}
    general, unread = general_metadata(source.name, _describing(source), family.name, shapes)
    title = name_for_engine(str(general["general.name"].value), family.name, vocabulary.tokens)
    metadata = {
        **general,
        "general.name": string(title),
        **{_full(name, family.name): value for name, value in keys.items() if value is not None},
        **ranks,
        "general.quantization_version": u32(2),
        **vocabulary.metadata(),
    }
    return Model(
        name=source.name,
        label=source.label,
        metadata=metadata,
        tensors=tensors,
        stored={name: _stored(name, rows) for name, rows in tensors.items()},
        shards=_shard_numbers(tensors, checkpoint),
        inputs=source.paths(),
        dtype=checkpoint.dtype,
        warnings=(*warnings, *unread, *vocabulary.warnings),
        architecture_class=config.architecture or family.title,
        stream=source.stream(),
    )


_NO_WEIGHTS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL", "C64")


def _refuse_integers(tensors: Mapping[str, Rows], stored: Mapping[str, Rows]) -> None:
    """Raises Unsupported that names the first tensor whose numbers, read as they are, are of a type that no weights have."""
    plain = [rows for rows in stored.values() if isinstance(rows, StoredTensor) and rows.stored in _NO_WEIGHTS]
    for rows in tensors.values() if plain else ():
        source = _first_stored(rows)
        if source is not None and any(source is other for other in plain):
            raise Unsupported(
                f"tensor {source.name!r} holds numbers of type {source.stored}, which are not weights",
                "the checkpoint is quantized in a way that config.json does not tell; use the original",
            )


def _describing(source: Source) -> dict[str, bytes]:
    files = source.files()
    return {name: source.read(name) for name in DESCRIBING_FILES if name in files}


def _scalars(stored: Mapping[str, Rows], pattern: str) -> dict[str, float]:
    """The numbers that a family keeps in its metadata."""
    names = [name for name in stored if pattern and re.fullmatch(pattern, name)]
    return {name: float(read_all(stored[name]).reshape(-1)[0]) for name in names}


def _full(name: str, architecture: str) -> str:
    return name if name.startswith(("general.", "tokenizer.", "xielu.")) else f"{architecture}.{name}"


def _stored(name: str, rows: Rows) -> TensorType:
    return F32 if _must_be_f32(name, rows) else BY_NAME[rows.dtype]


def _must_be_f32(name: str, rows: Rows) -> bool:
    """Vectors, also such as have the shape of a matrix of one row (a classifier of one score)."""
    return row_count(rows.shape) == 1 or ALWAYS_F32.fullmatch(name) is not None


def _shard_numbers(tensors: Mapping[str, Rows], checkpoint: Checkpoint) -> dict[str, int]:
    """Each tensor in the shard that holds its first part, as far as that can be told; computed ones in the first."""
    number = {tensor.file: checkpoint.shard_of[tensor.name] for tensor in checkpoint.tensors.values()}
    return {name: number.get(found.file, 0) if (found := _first_stored(rows)) else 0 for name, rows in tensors.items()}


def _first_stored(rows: Any) -> StoredTensor | None:
    """The stored tensor at the bottom of a stack of descriptions."""
    while rows is not None and not isinstance(rows, StoredTensor):
        parts = getattr(rows, "parts", None)
        rows = parts[0] if parts else getattr(rows, "base", None)
    return rows


def through_bf16(model: Model) -> Model:
    """The model as llama.cpp's two steps see it: float32 weights rounded to bf16 by the file in between.

    What llama-quantize writes for a float32 checkpoint can only be met this way; without it nothing is rounded twice.
    """
    wide = {name for name, kind in model.stored.items() if kind is F32 and not _must_be_f32(name, model.tensors[name])}
    tensors = {name: RoundedToBF16(rows) if name in wide else rows for name, rows in model.tensors.items()}
    stored = {name: BF16 if name in wide else kind for name, kind in model.stored.items()}
    return replace(model, tensors=tensors, stored=stored)


# -- a GGUF file as the source ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GgufRows:
    """A tensor of a GGUF file that is stored in F32, F16 or BF16."""

    stored: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Outermost dimension first."""
        return self.stored.shape

    @property
    def dtype(self) -> str:
        """See `Rows`."""
        return self.stored.dtype

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        return self.stored.read(start, stop, arena)


def model_of_gguf(source: GGUF) -> Model:
    """A GGUF file in F32, F16 or BF16, to be written in another type. Raises Unsupported for a quantized one."""
    files = [LocalFile(path) for path in source.paths]
    tensors = {info.name: _gguf_rows(source, info, files[info.part]) for info in source.tensors}
    left_out = ["split.no", "split.count", "split.tensors.count", "general.file_type"]
    if source.alignment < DEFAULT_ALIGNMENT:
        left_out.append("general.alignment")  # too fine for weights that are mapped
    return Model(
        name=source.path.stem,
        label=str(source.path),
        metadata={key: value for key, value in source.metadata.items() if key not in left_out},
        tensors=tensors,
        # the engine adds vectors in float32 alone
        stored={info.name: F32 if len(info.shape) == 1 else info.type for info in source.tensors},
        shards={info.name: info.part for info in source.tensors},
        inputs=source.paths,
        dtype=source.file_type_name,
        architecture_class=source.architecture,
    )


def _gguf_rows(source: GGUF, info: TensorInfo, file: LocalFile) -> GgufRows:
    if info.type in (F64, I8, I16, I32, I64):
        raise Unsupported(
            f"{source.path}: {info.name} is stored as {info.type}, which the engine does not compute with"
        )
    if info.type not in (F32, F16, BF16):
        raise Unsupported(
            f"{source.path} is already quantized ({info.name} is {info.type})",
            "quantizing twice loses quality; start from the checkpoint, or from a GGUF in F32, F16 or BF16",
        )
    shape = tuple(reversed(info.shape))
    return GgufRows(StoredTensor(info.name, info.type.name, shape, file, source.tensor_start(info), info.size_bytes))

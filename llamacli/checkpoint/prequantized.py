"""Checkpoints whose weights are already quantized: what can be read as plain rows, and a clear word for the rest.

Eight-bit floats become float32: the stored value times its scale, which stands beside it for the whole tensor, for each
row, or for each block of rows and columns. MXFP4 becomes the blocks that GGUF has for it, bit for bit. GPTQ, AWQ,
bitsandbytes and packed integers have files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacli.checkpoint import awq, bitsandbytes, gptq, pack_quantized
from llamacli.checkpoint.packed import Found
from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.dtypes import Block, FloatArray, widen
from llamacli.formats.rows import Arena, Rows, read_all, row_count
from llamacli.formats.safetensors import StoredTensor

_NESTED = ("text_config", "llm_config")
_SCALED = ("F8_E4M3", "F8_E5M2", "I8")

INSTEAD: dict[str, str] = {
    "bitsandbytes": "use the original checkpoint; it was loaded in 4 or 8 bits and saved so",
    "gptq": "only the layouts gptq and gptq_v2 are read; use the original checkpoint, or a GGUF made from it",
    "awq": "only the layout gemm in 4 bits is read; use the original checkpoint, or a GGUF made from it",
    "compressed-tensors pack-quantized": "only integers of one width, 2, 4 or 8 bits, are read; use the original checkpoint",
    "aqlm": "use the original checkpoint; its codebooks are no rows of weights",
    "hqq": "use the original checkpoint",
    "quanto": "use the original checkpoint",
    "torchao": "use the original checkpoint",
    "auto-round": "use the original checkpoint",
    "eetq": "use the original checkpoint",
    "modelopt": "use the original checkpoint, or the FP8 one",
}


def settings_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`quantization_config` of a config.json, wherever it stands; empty for plain weights."""
    for table in (config, *(config[name] for name in _NESTED if isinstance(config.get(name), Mapping))):
        for name in ("quantization_config", "compression_config"):
            settings = table.get(name)
            if not settings:
                continue
            if not isinstance(settings, Mapping):
                raise CorruptFile(f"config.json: {name} is {settings!r}, not a table that says how weights are stored")
            return settings
    return {}


def refuse_unreadable(config: Mapping[str, Any], label: str) -> None:
    """Raises Unsupported, by the method's name, for weights that no rows can be made of."""
    settings = settings_of(config)
    if not settings:
        return
    method = _method(settings)
    kind: Any
    if packing := PACKINGS.get(method):
        kind = packing.uncovered(settings) or _transposing(config)
        if not kind:
            return
    else:
        kind = settings.get("format") or settings.get("quant_algo")
        if {
            "fp8": True,
            "fbgemm_fp8": True,
            "mxfp4": True,
            "compressed-tensors": settings.get("format", "float-quantized") in _COMPRESSED,
            "modelopt": settings.get("quant_algo") == "FP8",
        }.get(method):
            return
    name = f"{method.partition(' ')[0]}, {kind}" if kind else method
    hint = INSTEAD.get(method, "its weights are no plain numbers; use the original checkpoint")
    raise Unsupported(f"{label} is already quantized ({name})", hint)


@dataclass(frozen=True)
class Packing:
    """A format with a file of its own: `uncovered` names what of it is not read, `find` yields its matrices."""

    uncovered: Callable[[Mapping[str, Any]], str]
    find: Callable[[Mapping[str, Any], Mapping[str, StoredTensor]], Iterator[Found]]


PACKINGS: dict[str, Packing] = {
    "gptq": Packing(gptq.uncovered, gptq.find),
    "awq": Packing(awq.uncovered, awq.find),
    "bitsandbytes": Packing(bitsandbytes.uncovered, bitsandbytes.find),
    "compressed-tensors pack-quantized": Packing(pack_quantized.uncovered, pack_quantized.find),
}
"""By `_method`."""


def _method(settings: Mapping[str, Any]) -> str:
    """The method's name; for compressed-tensors' packed integers the format's too."""
    by_loading = "bitsandbytes" if settings.get("load_in_4bit") or settings.get("load_in_8bit") else "unknown"
    method = str(settings.get("quant_method") or by_loading)
    packed = method == "compressed-tensors" and settings.get("format") == "pack-quantized"
    return f"{method} pack-quantized" if packed else method


def _transposing(config: Mapping[str, Any]) -> str:
    """Named where the class stores its matrices as (in, out): there the formats disagree about what a row is."""
    transposing = [name for name in config.get("architectures") or () if str(name).startswith("GPT2")]
    return f"matrices of {transposing[0]} the other way round" if transposing else ""


_COMPRESSED = ("dense", "float-quantized", "naive-quantized", "int-quantized")
"""Formats of compressed-tensors with one stored number per weight."""

_BESIDE = re.compile(
    r".*[._](input_scale|input_scale_ub|output_scale|activation_scale|weight_scale_ub|[kvq]_scale|kv_scale|weight_zero_point"
    r"|qscale_act|input_zero_point|weight_shape)"
)
"""What stands beside weights and says nothing of them: scales of activations and of the cache."""

_SCALE_NAMES = ("{}_scale_inv", "{}_scale", "{}_qscale")


def plain_rows(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> dict[str, Rows]:
    """Tensors as rows that a family understands: scales are taken in, packed blocks put together.

    Raises CorruptFile for a weight without its scale, or with one that does not fit.
    """
    settings = settings_of(config)
    if not settings:
        return dict(tensors)
    if packing := PACKINGS.get(_method(settings)):
        return _put_together(packing.find(settings, tensors), tensors)
    size = settings.get("weight_block_size") or _group_block(settings) or (128, 128)
    taken: set[str] = set()
    rows: dict[str, Rows] = {}
    for name, tensor in tensors.items():
        if name.endswith("_blocks") and (scales := tensors.get(f"{name.removesuffix('_blocks')}_scales")):
            rows[name.removesuffix("_blocks")] = _mxfp4(tensor, scales)
            taken |= {name, scales.name}
        elif tensor.stored in _SCALED:
            scale = _scale_of(name, tensors)
            rows[name] = Scaled(tensor, scale, (int(size[0]), int(size[1])))
            taken |= {name, scale.name}
    ordered: dict[str, Rows] = {}
    for name, tensor in tensors.items():
        made = name.removesuffix("_blocks")
        if made in rows:
            ordered[made] = rows[made]
        elif name not in taken and not _BESIDE.fullmatch(name):
            ordered[name] = tensor
    return ordered


def _put_together(found: Iterator[Found], tensors: Mapping[str, StoredTensor]) -> dict[str, Rows]:
    """The tensors with each weight that was found in the place of the first of its parts."""
    rows: dict[str, Found] = {}
    taken: set[str] = set()
    for weight in found:
        if weight.name in tensors and weight.name not in weight.parts:
            raise CorruptFile(
                f"tensor {weight.name!r} is there both quantized and as it was", "use the original checkpoint"
            )
        rows[weight.parts[0]] = weight
        taken.update(weight.parts)
    ordered: dict[str, Rows] = {}
    for name, tensor in tensors.items():
        if name in rows:
            ordered[rows[name].name] = rows[name].rows
        elif name not in taken and not _BESIDE.fullmatch(name):
            if tensor.stored in _CODES and name.endswith("weight"):
                raise CorruptFile(f"tensor {name!r} is {tensor.stored} but has no scale", "fetch the checkpoint again")
            ordered[name] = tensor
    return ordered


_CODES = ("I8", "U8", "I32")
"""Types of weights that are no numbers by themselves."""


def _group_block(settings: Mapping[str, Any]) -> Any:
    """The block of compressed-tensors' block-wise scheme."""
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if found := (group.get("weights") or {}).get("block_structure"):
            return found
    return None


def _scale_of(name: str, tensors: Mapping[str, StoredTensor]) -> StoredTensor:
    names = [pattern.format(name) for pattern in _SCALE_NAMES]
    names.append(f"{name.removesuffix('.weight')}.qscale_weight")
    found = next((tensors[scale] for scale in names if scale in tensors), None)
    if found is None:
        raise CorruptFile(f"tensor {name!r} is {tensors[name].stored} but has no scale", "fetch the checkpoint again")
    return found


@dataclass(frozen=True)
class Scaled:
    """Stored eight-bit numbers times their scales, in float32.

    The scale is one number, one for each row, or one for each block of `block` rows and columns; blocks at the edges may
    be partial. A stack of matrices has a stack of scales.
    """

    base: StoredTensor
    scale: StoredTensor
    block: tuple[int, int]
    dtype: str = field(default="F32", init=False)

    def __post_init__(self) -> None:
        if prod(self.scale.shape) not in (1, row_count(self.shape), prod(self._blocks)):
            raise CorruptFile(
                f"{self.scale.name!r} of shape {self.scale.shape} does not fit {self.base.name!r} {self.shape}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.base.shape

    @property
    def _blocks(self) -> tuple[int, ...]:
        *outer, rows, columns = self.shape
        return (*outer, -(-rows // self.block[0]), -(-columns // self.block[1]))

    @cached_property
    def _scales(self) -> FloatArray:
        """(1, 1), (rows, 1) or (rows, blocks of columns)."""
        flat = read_all(self.scale).reshape(-1)
        if flat.size == 1:
            return flat.reshape(1, 1)
        if flat.size == row_count(self.shape) and self.scale.shape != self._blocks:
            return flat.reshape(-1, 1)
        per_block = flat.reshape(-1, *self._blocks[-2:])
        return per_block.repeat(self.block[0], axis=1)[:, : self.shape[-2]].reshape(-1, self._blocks[-1])

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`."""
        values = widen(self.base.read(start, stop, arena))
        scales = self._scales if len(self._scales) == 1 else self._scales[start:stop]
        if scales.shape[1] > 1:
            scales = scales.repeat(self.block[1], axis=1)[:, : self.shape[-1]]
        return values * scales

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`: its rows, and all scales."""
        yield self.base, start, stop
        yield self.scale, 0, row_count(self.scale.shape) if self.scale.shape else 1


def _mxfp4(blocks: StoredTensor, scales: StoredTensor) -> Mxfp4:
    if len(blocks.shape) != 4 or blocks.shape[-1] != 16 or scales.shape != blocks.shape[:-1]:
        raise CorruptFile(f"{blocks.name!r} {blocks.shape} and {scales.name!r} {scales.shape} are no MXFP4 blocks")
    return Mxfp4(blocks, scales)


@dataclass(frozen=True)
class Mxfp4:
    """Blocks of 32 four-bit floats under one power of two, as GGUF stores them: scale, then 16 bytes of codes.

    The checkpoint has neighbours in one byte, (0, 1), (2, 3), ...; GGUF has (0, 16), (1, 17), ... No code changes.
    Format: OCP Microscaling Formats (MX), version 1.0.
    """

    base: StoredTensor
    scales: StoredTensor
    dtype: str = field(default="MXFP4", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`: in weights."""
        *outer, blocks, _ = self.base.shape
        return (*outer, blocks * 32)

    def read(self, start: int, stop: int, arena: Arena) -> Block:
        """See `Rows`: uint8 of shape (stop - start, blocks * 17)."""
        count = self.base.shape[-2]
        pairs: NDArray[np.uint8] = self.base.read_raw(start * count, stop * count, arena)
        codes = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(-1, 32)
        out = np.empty((len(codes), 17), np.uint8)
        out[:, 0] = self.scales.read_raw(start, stop, arena).reshape(-1)
        out[:, 1:] = codes[:, :16] | codes[:, 16:] << 4
        return out.reshape(stop - start, count * 17)

    def needs(self, start: int, stop: int) -> Iterator[tuple[Rows, int, int]]:
        """See `formats.extents`."""
        yield self.base, start * self.base.shape[-2], stop * self.base.shape[-2]
        yield self.scales, start, stop

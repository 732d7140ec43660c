"""Convert a folder as the command does, and take the result apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamacli.checkpoint.adapter import Adapter
from llamacli.formats.gguf_reader import GGUF, Strings, read_gguf
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import Model, open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize

LONG = 32
"""Characters or items of a value that is kept whole."""


def convert(folder: Path, target: Path, kind: str = "F32", adapters: Sequence[Adapter] = ()) -> Path:
    """The checkpoint in `folder` as `target`."""
    return write(open_model(folder, adapters), target, kind)


def write(model: Model, target: Path, kind: str = "F32") -> Path:
    """`model` as `target`."""
    plan = make_plan(model, recipe_named(kind), PlanOptions())
    quantize(model, [Output(plan, target)], kernel_named("ggml"), threads=1)
    return target


def digests(gguf: GGUF) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """Shape in ggml's order, type and SHA-256 of every tensor's bytes."""
    raw = gguf.path.read_bytes()
    table = {}
    for info in gguf.tensors:
        start = gguf.tensor_start(info)
        digest = hashlib.sha256(raw[start : start + info.size_bytes]).hexdigest()
        table[info.name] = (tuple(info.shape), info.type.name, digest)
    return table


def plain(value: Any) -> Any:
    """A metadata value as JSON has it."""
    inner = value.value
    if isinstance(inner, Strings):
        inner = inner.decoded
    return list(inner) if isinstance(inner, (list, tuple)) else inner


def architecture_keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that the family wrote: neither general nor the tokenizer's."""
    return {key: plain(value) for key, value in metadata.items() if not key.startswith(("general.", "tokenizer."))}


def other_keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The keys `general.*` and `tokenizer.*`; of long values their length and digest."""
    found = {key: plain(value) for key, value in metadata.items() if key.startswith(("general.", "tokenizer."))}
    return {key: _shortened(value) for key, value in found.items()}


def _shortened(value: Any) -> Any:
    if not isinstance(value, (str, list)) or len(value) <= LONG:
        return value
    return [len(value), hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]]


__all__ = ["architecture_keys", "convert", "digests", "other_keys", "plain", "read_gguf", "write"]

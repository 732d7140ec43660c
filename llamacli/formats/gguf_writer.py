"""Where everything in a GGUF file goes, known before a byte of weights is read.

Layout of GGUF 3: header, then the tensors' data, each tensor and the start of the data aligned
(ggml's `docs/gguf.md`). A split model is several such files; the keys `split.*` are llama-gguf-split's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llamacli.formats.gguf_encode import DEFAULT_ALIGNMENT, encode_header
from llamacli.formats.gguf_values import Value, ValueType, i32
from llamacli.formats.tensor_types import TensorType


class Placeable(Protocol):
    """What the layout needs to know of a tensor."""

    @property
    def name(self) -> str:
        """GGUF name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Outermost dimension first."""

    @property
    def type(self) -> TensorType:
        """The type it is written in."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its data."""


@dataclass(frozen=True)
class FileLayout:
    """One file: its header, and for each tensor in it the offset of its data from the start of the file."""

    header: bytes
    offsets: Mapping[str, int]
    size_bytes: int


def lay_out(metadata: Mapping[str, Value], tensors: Sequence[Placeable]) -> FileLayout:
    """The layout of one file that holds these tensors in this order."""
    alignment = int(metadata["general.alignment"].value) if "general.alignment" in metadata else DEFAULT_ALIGNMENT
    relative: dict[str, int] = {}
    end = 0
    for tensor in tensors:
        relative[tensor.name] = end
        end += -(-tensor.size_bytes // alignment) * alignment
    entries = [(t.name, tuple(reversed(t.shape)), t.type.id, relative[t.name]) for t in tensors]
    header = encode_header(metadata, entries, alignment)
    return FileLayout(header, {name: len(header) + start for name, start in relative.items()}, len(header) + end)


def lay_out_split(metadata: Mapping[str, Value], parts: Sequence[Sequence[Placeable]]) -> tuple[FileLayout, ...]:
    """The layouts of the parts of a split model: the first carries all metadata, the others only what joins them."""
    if len(parts) == 1:
        return (lay_out(metadata, parts[0]),)
    total = sum(len(part) for part in parts)
    layouts = []
    for number, part in enumerate(parts):
        joining = {
            "split.no": Value(ValueType.UINT16, number),
            "split.count": Value(ValueType.UINT16, len(parts)),
            "split.tensors.count": i32(total),
        }
        alignment = {key: value for key, value in metadata.items() if key == "general.alignment"}
        layouts.append(lay_out({**(metadata if number == 0 else alignment), **joining}, part))
    return tuple(layouts)

"""Split GGUF files: how parts are named, and several parts read as one model.

Names and keys are those of llama-gguf-split: `prefix-00001-of-00003.gguf`, and in every part `split.no` (from 0),
`split.count` and `split.tensors.count`; the first part alone holds the model's metadata.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.errors import CorruptFile
from llamacli.formats.gguf_values import ValueType

if TYPE_CHECKING:
    from llamacli.formats.gguf_reader import GGUF, Arrays

SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_PART_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def part_name(prefix: str, number: int, count: int) -> str:
    """The name of part `number` (from 1) of `count`."""
    return f"{prefix}-{number:05d}-of-{count:05d}.gguf"


def split_name(name: str) -> tuple[str, int, int] | None:
    """Prefix, number (from 1) and count that a part's file name tells; None for any other name."""
    match = _PART_NAME.fullmatch(name)
    return (match["prefix"], int(match["number"]), int(match["count"])) if match else None


def part_paths(path: Path) -> tuple[Path, ...]:
    """The paths of all parts that belong to `path`; of a file that is no part, itself. Looks at names only."""
    told = split_name(path.name)
    if told is None:
        return (path,)
    prefix, _, count = told
    return tuple(path.with_name(part_name(prefix, number, count)) for number in range(1, count + 1))


def join_parts(path: Path, part: GGUF, *, arrays: Arrays = "all") -> GGUF:
    """The whole model that `part`, read from `path`, belongs to; `part` itself where it is not split.

    Raises `CorruptFile` where a part is missing, or the parts contradict each other.
    """
    count = _count(part)
    if count <= 1:
        return part
    paths = _paths(path, part, count)
    parts = [part if other == path else _read_part(other, number, arrays) for number, other in enumerate(paths, 1)]
    for number, one in enumerate(parts):
        _check_numbers(one, number, count)
    _check_tensors(parts)
    return _joined(parts)


def _count(part: GGUF) -> int:
    value = part.metadata.get("split.count")
    if value is None:
        return 0
    if value.type is not ValueType.UINT16:
        raise CorruptFile(f"{part.path}: split.count is not an unsigned 16-bit number")
    count: int = value.value
    return count


def _paths(path: Path, part: GGUF, count: int) -> tuple[Path, ...]:
    told = split_name(path.name)
    number = part.get("split.no")
    if told is None or told[2] != count or (isinstance(number, int) and told[1] != number + 1):
        name = part_name("NAME", number + 1 if isinstance(number, int) else 1, count)
        raise CorruptFile(
            f"{path} is one of {count} parts of a model, and its name does not say which", f"rename it: {name}"
        )
    return part_paths(path)


def _read_part(path: Path, number: int, arrays: Arrays) -> GGUF:
    from llamacli.formats.gguf_reader import read_part

    if not path.exists():
        raise CorruptFile(f"part {number} of the model is missing: {path}", "download the missing part beside it")
    return read_part(path, arrays=arrays)


def _check_numbers(part: GGUF, number: int, count: int) -> None:
    own = part.metadata.get("split.no")
    if own is None or own.type is not ValueType.UINT16 or own.value != number:
        told = "nothing" if own is None else own.value
        raise CorruptFile(f"{part.path}: split.no says {told} where {number} is expected")
    if _count(part) != count:
        raise CorruptFile(f"{part.path}: split.count says {_count(part)} where {count} is expected")


def _check_tensors(parts: list[GGUF]) -> None:
    seen: dict[str, Path] = {}
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in seen:
                raise CorruptFile(f"the tensor {tensor.name!r} is both in {seen[tensor.name]} and in {part.path}")
            seen[tensor.name] = part.path
    claimed = parts[0].get("split.tensors.count")
    if claimed != len(seen):
        raise CorruptFile(
            f"{parts[0].path}: split.tensors.count says {claimed}, and the parts hold {len(seen)} tensors"
        )


def _joined(parts: list[GGUF]) -> GGUF:
    first = parts[0]
    return dataclasses.replace(
        first,
        paths=tuple(part.path for part in parts),
        tensors=tuple(dataclasses.replace(t, part=n) for n, part in enumerate(parts) for t in part.tensors),
        data_offsets=tuple(part.data_offsets[0] for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
    )

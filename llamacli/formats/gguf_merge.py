"""Several parts of a split GGUF into one file, byte for byte what llama-gguf-split makes of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

from llamacli.errors import CorruptFile, UsageError
from llamacli.formats.atomic import atomic_file, check_target, free_space_check
from llamacli.formats.gguf_encode import encode_header
from llamacli.formats.gguf_reader import GGUF, TensorInfo, read_gguf, read_part
from llamacli.formats.gguf_split import split_name
from llamacli.formats.gguf_values import Value, ValueType
from llamacli.progress import Progress, Silent

_PIECE_BYTES = 1 << 22


def merged_name(first: Path) -> Path:
    """Where the merged file goes when nobody says: beside the parts, without their numbers."""
    told = split_name(first.name)
    return first.with_name(f"{told[0] if told else first.stem + '-merged'}.gguf")


def merge(path: Path, target: Path, *, force: bool = False, progress: Progress | None = None) -> GGUF:
    """Join the parts that `path` belongs to into `target` and return it as read back.

    Keys keep their order; `split.count` becomes 0 and moves to the end, as llama-gguf-split leaves it. Raises
    `UsageError` where nothing is split, `CorruptFile` where a part is missing or wrong, `CannotWrite`.
    """
    gguf = read_gguf(path)
    if len(gguf.paths) < 2:
        raise UsageError(f"{path} is not split", "give it the first part: NAME-00001-of-00003.gguf")
    check_target(target, force=force, inputs=gguf.paths)
    header, offsets = _layout(gguf)
    total = sum(tensor.size_bytes + _padding(tensor, gguf) for tensor in gguf.tensors)
    free_space_check(target.absolute().parent, len(header) + total)
    with atomic_file(target, force=force, inputs=gguf.paths) as out:
        out.file.write(header)
        _copy_all(gguf, out.file, progress or Silent())
        out.verify = lambda written: _verify(gguf, offsets, written)
    return read_part(target)


def _layout(gguf: GGUF) -> tuple[bytes, list[int]]:
    """The merged header, and each tensor's offset in the merged data."""
    metadata = {key: value for key, value in gguf.metadata.items() if key != "split.count"}
    metadata["split.count"] = Value(ValueType.UINT16, 0)
    offsets, place = [], 0
    for tensor in gguf.tensors:
        offsets.append(place)
        place += tensor.size_bytes + _padding(tensor, gguf)
    entries = [(t.name, _shape(t), t.type.id, offset) for t, offset in zip(gguf.tensors, offsets, strict=True)]
    return encode_header(metadata, entries, gguf.alignment), offsets


def _shape(tensor: TensorInfo) -> tuple[int, ...]:
    """Without trailing ones, as ggml writes a shape."""
    shape = tensor.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _padding(tensor: TensorInfo, gguf: GGUF) -> int:
    return -tensor.size_bytes % gguf.alignment


def _copy_all(gguf: GGUF, out: BinaryIO, progress: Progress) -> None:
    for part, path in enumerate(gguf.paths):
        progress.describe(path.name)
        with path.open("rb") as source:
            for tensor in (t for t in gguf.tensors if t.part == part):
                source.seek(gguf.tensor_start(tensor))
                _copy(source, out, tensor.size_bytes, progress)
                out.write(bytes(_padding(tensor, gguf)))


def _copy(source: BinaryIO, out: BinaryIO, count: int, progress: Progress) -> None:
    """`count` bytes from one file's position to the other's, within the kernel where it can."""
    if sys.platform == "linux":
        out.flush()
        count -= _copy_in_kernel(source, out, count, progress)
    while count:
        data = source.read(min(_PIECE_BYTES, count))
        if not data:
            raise CorruptFile(f"{source.name} became shorter while it was read", "something else is writing to it")
        out.write(data)
        count -= len(data)
        progress.advance(len(data))


def _copy_in_kernel(source: BinaryIO, out: BinaryIO, count: int, progress: Progress) -> int:
    """How many bytes the kernel copied; less than `count` where it cannot between these file systems."""
    start, target, done = source.tell(), out.tell(), 0
    if sys.platform != "linux" or not hasattr(os, "copy_file_range"):
        return done
    try:
        while done < count:
            step = os.copy_file_range(
                source.fileno(), out.fileno(), min(_PIECE_BYTES, count - done), start + done, target + done
            )
            if not step:
                break
            done += step
            progress.advance(step)
    except OSError:  # another file system, an old kernel; a full disk shows again in the plain way
        pass
    source.seek(start + done)
    out.seek(target + done)
    return done


def _verify(gguf: GGUF, offsets: list[int], written: Path) -> None:
    """What was written must read back as the same tensors."""
    merged = read_part(written)
    expected = [(t.name, _shape(t), t.type, offset) for t, offset in zip(gguf.tensors, offsets, strict=True)]
    if [(t.name, t.shape, t.type, t.offset) for t in merged.tensors] != expected:
        raise CorruptFile(f"{written}: what was written is not what was meant", "the disk may be failing")

"""Other values of the same size under keys that a finished GGUF file already has.

The header is written over itself, whole: it differs from the old one in those values only, so that a process that is
ended in between leaves a file that is as readable as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from llamacli.errors import CorruptFile
from llamacli.formats.atomic import translated
from llamacli.formats.durable import to_disk
from llamacli.formats.gguf_encode import encode_entry, encode_header
from llamacli.formats.gguf_reader import GGUF, read_part
from llamacli.formats.gguf_values import Value
from llamacli.progress import Progress, Silent

_AT_ONCE = 1 << 24


def patch_metadata(path: Path, values: Mapping[str, Value]) -> None:
    """Replace the values of existing keys in one file. A split model's metadata is in its first part.

    Raises CorruptFile where the file is not laid out as this program does it, ValueError for values that take more or
    less room than the old ones.
    """
    part = read_part(path)
    entries = [(tensor.name, tensor.shape, tensor.type.id, tensor.offset) for tensor in part.tensors]
    alignment = int(part.get("general.alignment", 32))
    old = encode_header(part.metadata, entries, alignment)
    for key, value in values.items():
        if key not in part.metadata or len(encode_entry(key, value)) != len(encode_entry(key, part.metadata[key])):
            raise ValueError(f"{path.name} has no room for another value of {key}")
    new = encode_header({**part.metadata, **values}, entries, alignment)
    with translated(path), path.open("r+b") as file:
        if file.read(len(old)) != old:
            raise CorruptFile(f"the header of {path} is laid out in another way", "it was not written by llamacli")
        file.seek(0)
        file.write(new)
        file.flush()
        to_disk(file.fileno())


def weights_digest(gguf: GGUF, progress: Progress | None = None) -> str:
    """SHA-256 of all tensors' bytes, one after another, part by part in the order of the file; padding counts too."""
    progress = progress or Silent()
    digest = hashlib.sha256()
    for path, start in zip(gguf.paths, gguf.data_offsets, strict=True):
        with path.open("rb") as file:
            file.seek(start)
            while data := file.read(_AT_ONCE):
                digest.update(data)
                progress.advance(len(data))
    return digest.hexdigest()

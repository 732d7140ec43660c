"""The `general.*` keys: name, size, licence, sampling defaults, as the gguf package reads them from a checkpoint's card.

The package wants a folder whose name is the model's; the three small files it reads are given to it in one, so that a
snapshot in a cache and a repository on the Hub are described like a folder of the user's own.
"""

from __future__ import annotations

import codecs
import logging
import re
import tempfile
from collections.abc import Container, Mapping
from pathlib import Path

import gguf
import numpy as np

from llamacli.errors import CorruptFile
from llamacli.formats.gguf_encode import encode_entry
from llamacli.formats.gguf_values import Value, ValueType

DESCRIBING_FILES = ("README.md", "generation_config.json", "config.json")


_CARD = "README.md"
_ANCHOR = re.compile(rb"(^|[\s\[{,])&\w")


def general_metadata(
    name: str, files: Mapping[str, bytes], architecture: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Keys in front of the architecture's own, among them `general.architecture` itself; and what to warn of.

    `files` are the describing files that exist; `shapes` are the file's tensors, outermost dimension first. A file that is not
    what it should be is left out: it describes a model and is no part of it.
    """
    for logger in ("metadata", "gguf", "gguf.gguf_writer"):  # the package's remarks are not for our users
        logging.getLogger(logger).addHandler(logging.NullHandler())
        logging.getLogger(logger).propagate = False
    readable = {file: content.removeprefix(codecs.BOM_UTF8) for file, content in files.items()}
    anyway = {_CARD} if _grows(readable.get(_CARD, b"")) else set()
    for left_out in (set(), *({file} for file in DESCRIBING_FILES), set(DESCRIBING_FILES)):
        kept = {file: content for file, content in readable.items() if file not in left_out | anyway}
        try:
            found = _described(name, kept, architecture, shapes)
        except Exception:  # whatever the package and its YAML reader make of it
            continue
        return found, tuple(
            f"{file} is not as such files are; its description is left out" for file in files if file not in kept
        )
    raise CorruptFile(f"{name!r} is no name that a model can have", "rename the folder")


def _grows(card: bytes) -> bool:
    """Whether parts of a card's table stand for others, which can make it larger than memory."""
    table = card.split(b"\n---", 1)[0] if card.startswith(b"---") else b""
    return _ANCHOR.search(table) is not None


def _described(
    name: str, files: Mapping[str, bytes], architecture: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Value]:
    """What the package makes of these files."""
    writer = gguf.GGUFWriter(None, architecture)
    for tensor, shape in shapes.items():
        writer.add_tensor_info(tensor, shape, np.dtype(np.float32), 0)
    total, shared, expert, experts = writer.get_total_parameter_count()
    with tempfile.TemporaryDirectory(prefix="llamacli-") as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        card = gguf.Metadata.load(None, folder, None, total)
    card.name = card.name or name
    if card.size_label is None and total > 0:
        card.size_label = gguf.size_label(total, shared, expert, experts)
    writer.add_type(gguf.GGUFType.MODEL)
    card.set_gguf_meta_model(writer)
    found = {key: _value(entry) for key, entry in writer.kv_data[0].items()}
    for key, value in found.items():
        encode_entry(key, value)
    return found


def name_for_engine(name: str, family: str, tokens: Container[str | bytes]) -> str:
    """The model's name, spelled so that the engine treats Phi-3's added tokens as the tokenizer does.

    It knows by `phi-3` or `phi3` in the name alone that they swallow the white space after them, and it fails to load a
    file with such a name and without these tokens.
    """
    if family == "phi3" and all(token in tokens for token in _PHI3_TOKENS):
        return re.sub(r"phi[ _]?3", "Phi-3", name, flags=re.IGNORECASE)
    return re.sub(r"phi-?3", "Phi 3", name, flags=re.IGNORECASE)


_PHI3_TOKENS = ("<unk>", "<s>", "</s>", "<|endoftext|>")


def _value(entry: gguf.gguf_writer.GGUFValue) -> Value:
    """The package's typed value as ours."""
    kind = ValueType(int(entry.type))
    if kind is not ValueType.ARRAY:
        return Value(kind, entry.value)
    items = tuple(entry.value)
    element = int(entry.sub_type if entry.sub_type is not None else gguf.GGUFValueType.get_type(items[0]))
    return Value(kind, items, ValueType(element))

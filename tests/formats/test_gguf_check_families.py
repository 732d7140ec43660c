"""Nothing that llama.cpp's converter makes of a real family is refused: its metadata and its table of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import SHARED
from tiny_gguf import Model, Tensor

from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.gguf_values import Value, ValueType

FAMILIES = sorted(path.parent for path in (SHARED / "families").glob("*/peer_kv.json"))


def told(key: str, entry: dict[str, Any]) -> Value:
    """A value as the golden file tells it; long arrays, of which it has only the ends, are made up."""
    kinds = [ValueType[name] for name in entry["type"]]
    if len(kinds) == 1:
        return Value(kinds[0], entry["value"])
    if "value" in entry:
        return Value(kinds[0], tuple(entry["value"]), kinds[1])
    if key == "tokenizer.ggml.tokens":
        return Value(kinds[0], vocabulary(entry["len"]), kinds[1])
    return Value(kinds[0], tuple([entry["head"][0]] * entry["len"]), kinds[1])


def vocabulary(size: int) -> tuple[str, ...]:
    """As many tokens as the family has, bytes of both spellings among them."""
    bytes_first = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [chr(0x21 + number) for number in range(94)] + [chr(0x100 + number) for number in range(256)]
    return tuple((bytes_first + letters + [f"token{number}" for number in range(size)])[:size])


def family(folder: Path) -> Model:
    metadata = {k: told(k, v) for k, v in json.loads((folder / "peer_kv.json").read_text()).items()}
    tensors = [
        Tensor(t["name"], tuple(t["shape_ggml"])) for t in json.loads((folder / "peer_tensors.json").read_text())
    ]
    return Model(metadata, tensors)


@pytest.mark.skipif(not FAMILIES, reason="the families' golden files are not here")
@pytest.mark.parametrize("folder", FAMILIES, ids=lambda path: path.name)
def test_what_the_peer_writes_for_a_family_is_not_refused(folder: Path, tmp_path: Path) -> None:
    model = family(folder)
    zeros = [Tensor(t.name, t.shape, t.type, bytes(4 * _count(t.shape))) for t in model.tensors]
    check_safe(read_gguf(Model(model.metadata, zeros).write(tmp_path / "x.gguf")))


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count

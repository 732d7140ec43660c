"""The safetensors reader: every rule of the format, and the format's own library as the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.errors import CorruptFile, LlamacliError, Unsupported
from llamacli.formats.file_access import LocalFile
from llamacli.formats.rows import Arena, read_all
from llamacli.formats.safetensors import read_shard


def shard(path: Path, header: Any, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def read(path: Path) -> dict[str, np.ndarray]:
    content = read_shard(LocalFile(path), path.name)
    return {name: read_all(tensor) for name, tensor in content.tensors.items()}


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {
        "a": random.standard_normal((3, 5), np.float32),
        "b": random.standard_normal((2, 4, 6)).astype(np.float16),
        "c": random.standard_normal(7, np.float32),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
    found = read(tmp_path / "m.safetensors")
    for name, values in tensors.items():
        np.testing.assert_array_equal(found[name], values.astype(np.float32))


def test_reads_bf16_rows_from_anywhere(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((10, 8), np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    path = shard(tmp_path / "m", {"w": entry(0, 160, [10, 8], "BF16")}, bits.tobytes())
    tensor = read_shard(LocalFile(path), "m").tensors["w"]
    np.testing.assert_array_equal(tensor.read(3, 7, Arena()), bits[3:7])


def test_a_header_length_that_looks_like_a_pickle_is_fine(tmp_path: Path) -> None:
    header = json.dumps({"a": entry(0, 4, [1])}).encode()
    header += b" " * (0x0280 - len(header))
    np.testing.assert_array_equal(read(shard(tmp_path / "m", header, b"\0" * 4))["a"], [0])
    assert (tmp_path / "m").read_bytes()[:2] == b"\x80\x02"


BAD_HEADERS: dict[str, tuple[Any, bytes]] = {
    "not JSON": (b"{nope}  ", b""),
    "not an object": (b"[1, 2]  ", b""),
    "not UTF-8": (b'{"\xff":1}', b""),
    "NaN": (b'{"a": NaN}', b""),
    "duplicate name": (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
    "deeply nested": (b'{"a":' + b"[" * 20000 + b"]" * 20000 + b"}", b""),
    "no dtype": ({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"x"),
    "extra field": ({"a": {**entry(0, 4, [1]), "evil": 1}}, b"1234"),
    "negative extent": ({"a": entry(0, 4, [-1])}, b"1234"),
    "float extent": ({"a": entry(0, 4, [1.0])}, b"1234"),
    "true as extent": ({"a": entry(0, 4, [True])}, b"1234"),
    "offsets backwards": ({"a": entry(4, 0, [1])}, b"1234"),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, b"1234"),
    "size does not fit shape": ({"a": entry(0, 4, [2])}, b"1234"),
    "huge shape": ({"a": entry(0, 4, [1 << 62, 1 << 62])}, b"1234"),
    "overlap": ({"a": entry(0, 4, [1]), "b": entry(2, 6, [1])}, b"123456"),
    "hole": ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, b"1" * 12),
    "hole at the start": ({"a": entry(4, 8, [1])}, b"1" * 8),
    "trailing bytes": ({"a": entry(0, 4, [1])}, b"12345"),
    "truncated data": ({"a": entry(0, 8, [2])}, b"1234"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b""),
    "unknown type": ({"a": entry(0, 4, [1], "X99")}, b"1234"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_refuses_every_breach_of_the_format(case: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "m.safetensors", *BAD_HEADERS[case])
    with pytest.raises((CorruptFile, Unsupported)) as caught:
        read(path)
    assert "m.safetensors" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "too short"),
        (b"\x80\x02}q\x00" + b"." * 60, "pickle"),
        (b"PK\x03\x04" + b"." * 60, "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>login</html>", "web page"),
        (b"GGUF\x03\x00\x00\x00" + b"\0" * 40, "GGUF"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "limit"),
        ((1000).to_bytes(8, "little") + b"{}", "truncated"),
    ],
)
def test_names_what_the_file_is_instead(content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(LlamacliError, match=word):
        read(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_we_accept_the_library_accepts(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Mutate a good file; whatever we still read must be readable, and equal, in the format's own library."""
    path = tmp_path_factory.getbasetemp() / "mutant.safetensors"
    safetensors.numpy.save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}, path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(("flip", "cut", "insert")))
        if kind == "flip":
            raw[position] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del raw[position : position + data.draw(st.integers(1, 8))]
        else:
            raw[position:position] = data.draw(st.binary(min_size=1, max_size=4))
        if not raw:
            return
    path.write_bytes(bytes(raw))
    try:
        found = read(path)
    except LlamacliError:
        return
    with safetensors.safe_open(path, "numpy") as oracle:
        assert set(oracle.keys()) == set(found)

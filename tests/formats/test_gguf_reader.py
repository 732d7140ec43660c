from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf as oracle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_gguf import Model, Tensor, tiny_bpe_model, tiny_expert_model, tiny_model

from llamacli.errors import CorruptFile, LlamacliError, NotFound
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_encode import encode_header, encode_string
from llamacli.formats.gguf_reader import Skipped, read_gguf
from llamacli.formats.gguf_values import STRUCT_FORMAT, Value, ValueType, array, boolean, f32, i32, string, u32, u64
from llamacli.formats.tensor_types import BF16, F16, Q4_K, TENSOR_TYPES


def read(path: Path, data: bytes, **options: Any) -> Any:
    path = path / "x.gguf"
    path.write_bytes(data)
    return read_gguf(path, **options)


def header(
    entries: bytes = b"", count: int = 0, tensors: bytes = b"", tensor_count: int = 0, version: int = 3
) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensor_count, count) + entries + tensors


# -- both directions against the format's own package --------------------------------------------------------------------


def test_what_the_gguf_package_writes_is_read(tmp_path: Path) -> None:
    writer = oracle.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint32("a.u32", 7)
    writer.add_int32("a.i32", -7)
    writer.add_float32("a.f32", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "sn\N{SNOWMAN}w")
    writer.add_array("a.words", ["x", "", "y" * 300])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.truths", [True, False])
    weights = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    writer.add_tensor("one.weight", weights)
    writer.add_tensor("two.weight", weights.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    ours = read_gguf(tmp_path / "x.gguf")
    assert ours.architecture == "llama"
    assert [ours.get(f"a.{key}") for key in ("u32", "i32", "f32", "bool", "text")] == [7, -7, 0.5, True, "sn☃w"]
    assert ours.get("a.words") == ("x", "", "y" * 300)
    assert ours.get("a.numbers") == (1, -2, 3)
    assert ours.get("a.truths") == (True, False)
    assert [(t.name, t.shape, str(t.type)) for t in ours.tensors] == [
        ("one.weight", (4, 3, 2), "F32"),
        ("two.weight", (4, 3, 2), "F16"),
    ]
    raw = (tmp_path / "x.gguf").read_bytes()
    start = ours.tensor_start(ours.tensors[1])
    assert raw[start : start + 48] == weights.astype(np.float16).tobytes()


def test_what_we_encode_the_gguf_package_reads(tmp_path: Path) -> None:
    path = tiny_expert_model().write(tmp_path / "x.gguf")
    theirs, ours = oracle.GGUFReader(path), read_gguf(path)
    assert [(t.name, tuple(t.shape), t.tensor_type, t.data_offset) for t in theirs.tensors] == [
        (t.name, t.shape, t.type.id, ours.tensor_start(t)) for t in ours.tensors
    ]
    for key in ours.metadata:
        told = theirs.fields[key].contents()
        expected = ours.get(key)
        assert (tuple(told) if isinstance(told, list) else told) == expected, key


KNOWN = [t for t in TENSOR_TYPES if t.id in set(oracle.GGMLQuantizationType) and t.name != "Q8_1"]
"""The package gives Q8_1 40 bytes, ggml 36."""


@pytest.mark.parametrize("kind", KNOWN, ids=str)
def test_every_type_is_laid_out_as_the_gguf_package_does(kind: Any, tmp_path: Path) -> None:
    shape = (kind.block_size * 2, 3)
    model = Model({"general.architecture": string("llama")}, [Tensor("a", shape, kind), Tensor("b", shape, kind)])
    path = model.write(tmp_path / "x.gguf")
    theirs, ours = oracle.GGUFReader(path), read_gguf(path)
    assert [t.n_bytes for t in theirs.tensors] == [t.size_bytes for t in ours.tensors]
    assert [t.data_offset for t in theirs.tensors] == [ours.tensor_start(t) for t in ours.tensors]


VALUES = {
    ValueType.UINT8: st.integers(0, 2**8 - 1), ValueType.INT8: st.integers(-(2**7), 2**7 - 1),
    ValueType.UINT16: st.integers(0, 2**16 - 1), ValueType.INT16: st.integers(-(2**15), 2**15 - 1),
    ValueType.UINT32: st.integers(0, 2**32 - 1), ValueType.INT32: st.integers(-(2**31), 2**31 - 1),
    ValueType.UINT64: st.integers(0, 2**64 - 1), ValueType.INT64: st.integers(-(2**63), 2**63 - 1),
    ValueType.FLOAT32: st.floats(width=32, allow_nan=False), ValueType.FLOAT64: st.floats(allow_nan=False),
    ValueType.BOOL: st.booleans(), ValueType.STRING: st.text(max_size=300),
}  # fmt: skip


@st.composite
def any_value(draw: st.DrawFn) -> Value:
    kind = draw(st.sampled_from(list(VALUES)))
    if draw(st.booleans()):
        return Value(kind, draw(VALUES[kind]))
    return array(kind, draw(st.lists(VALUES[kind], max_size=20)))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1).filter(lambda k: "\0" not in k and k != "general.alignment"), any_value()))
def test_metadata_reads_back_as_it_was_written(tmp_path: Path, metadata: dict[str, Value]) -> None:
    ours = read(tmp_path, encode_header(metadata, []))
    assert dict(ours.metadata) == metadata
    assert encode_header(ours.metadata, []) == encode_header(metadata, [])


def test_strings_that_are_not_text_stay_bytes(tmp_path: Path) -> None:
    metadata = {"a": string(b"\xff"), "b": array(ValueType.STRING, ["x", b"\xfe\xff"])}
    ours = read(tmp_path, encode_header(metadata, []))
    assert ours.get("a") == b"\xff" and ours.get("b") == ("x", b"\xfe\xff")
    assert ours.metadata["b"].value[1] == b"\xfe\xff" and ours.metadata["b"].value[0:1] == ("x",)
    assert encode_header(ours.metadata, []) == encode_header(metadata, [])


def test_long_arrays_can_be_skipped(tmp_path: Path) -> None:
    metadata = {"long": array(ValueType.STRING, ["x"] * 65), "n": array(ValueType.INT32, range(65)), "s": u32(1)}
    ours = read(tmp_path, encode_header({**metadata, "short": array(ValueType.INT32, [1])}, []), arrays="skip")
    assert ours.get("long") == Skipped(65) and len(ours.get("n")) == 65
    assert ours.get("short") == (1,) and ours.get("s") == 1


def test_a_header_larger_than_one_read_is_read_in_pieces(tmp_path: Path) -> None:
    words = [f"word {number} " + "x" * (number % 40) for number in range(30_000)]
    model = tiny_model().with_key("long", array(ValueType.STRING, words))
    ours = read(tmp_path, model.encode())
    assert ours.get("long") == tuple(words)
    assert len(ours.tensors) == len(model.tensors)


def test_sizes_and_names_are_told(tmp_path: Path) -> None:
    ours = read(tmp_path, tiny_model().encode())
    assert ours.weights == sum(t.weights for t in ours.tensors) and ours.bits_per_weight == 32
    assert ours.file_type_name == "F32" and ours.get("{arch}.block_count") == 2 and ours.get("nothing", 3) == 3
    unnamed = read(tmp_path, tiny_model().with_key("general.file_type", None).encode())
    assert unnamed.file_type_name == "F32"


def test_real_vocabularies_of_llama_cpp_are_read_and_safe() -> None:
    files = sorted(Path(os.environ.get("LLAMA_CPP_SOURCE", "none"), "models").glob("*.gguf"))
    if not files:
        pytest.skip("LLAMA_CPP_SOURCE names no source tree of llama.cpp")
    for path in files:
        check_safe(read_gguf(path))


# -- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04" + bytes(50), "zip archive"),
        (b"\x80\x02}q\x00.", "a pickle"),
        (struct.pack("<Q", 20) + b'{"a":{}}            ' + bytes(30), "safetensors"),
        (b'{"model_type": "llama"}', "JSON"),
        (bytes(5000), "begins with zeros"),
        (b"tjgg" + bytes(60), "GGJT"),
        (b"hello, this is text", "does not begin with GGUF"),
        (b"GGUF", "ends after 4 bytes"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (header(version=1), "GGUF version 1"),
        (header(version=4), "GGUF version 4"),
        (header(count=2**63), "keys in 24 bytes"),
        (header(tensor_count=2**40), "tensors and 0 keys in 24 bytes"),
    ],
)
def test_what_is_no_gguf_is_called_by_its_name(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile) as caught:
        read(tmp_path, data)
    assert words in caught.value.message and "\n" not in caught.value.message and caught.value.hint


def entry(key: bytes, kind: int, payload: bytes) -> bytes:
    return encode_string(key) + struct.pack("<I", kind) + payload


def tensor(name: bytes = b"a", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return encode_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset) + bytes(0)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (entry(b"", 4, bytes(4)), "a metadata key is empty"),
        (entry(b"\xff", 4, bytes(4)), "not UTF-8"),
        (entry(b"a\0b", 4, bytes(4)), "zero byte"),
        (entry(b"a", 4, bytes(4)) * 2, "twice"),
        (entry(b"a", 13, bytes(4)), "unknown type 13"),
        (entry(b"a", 7, b"\x02"), "neither true nor false"),
        (entry(b"a", 9, struct.pack("<IQ", 7, 2) + b"\x01\x02"), "neither true nor false"),
        (entry(b"a", 9, struct.pack("<IQ", 9, 1) + bytes(20)), "array of arrays"),
        (entry(b"a", 9, struct.pack("<IQ", 77, 1) + bytes(20)), "unknown type 77"),
        (entry(b"a", 9, struct.pack("<IQ", 4, 2**63)), "more than the file holds"),
        (entry(b"a", 9, struct.pack("<IQ", 8, 2**60)), "more than the file holds"),
        (entry(b"a", 9, struct.pack("<IQQ", 8, 1, 2**62)), "within its header"),
        (entry(b"a", 9, struct.pack("<IQQ", 8, 1, 2**64 - 8)), "within its header"),
        (entry(b"a", 8, struct.pack("<Q", 2**62)), "within its header"),
        (entry(b"general.alignment", 4, struct.pack("<I", 33)), "power of two"),
        (entry(b"general.alignment", 4, struct.pack("<I", 0)), "power of two"),
        (entry(b"general.alignment", 10, struct.pack("<Q", 32)), "32-bit"),
    ],
)  # fmt: skip
def test_broken_metadata_is_refused(entries: bytes, words: str, tmp_path: Path) -> None:
    count = 2 if "twice" in words else 1
    with pytest.raises(CorruptFile, match=words):
        read(tmp_path, header(entries, count) + bytes(64 if "within" not in words else 0))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([tensor(b"")], "name is empty"),
        ([tensor(b"x" * 64)], "longer than 63 bytes"),
        ([tensor(), tensor(offset=128)], "twice"),
        ([tensor(shape=())], "0 dimensions"),
        ([tensor(shape=(1, 1, 1, 1, 1))], "5 dimensions"),
        ([tensor(shape=(0, 4))], "impossible shape"),
        ([tensor(shape=(2**32, 2**31))], "impossible shape"),
        ([tensor(shape=(2**63,))], "impossible shape"),
        ([tensor(kind=12, shape=(255,))], "not a multiple of Q4_K's 256"),
        ([tensor(offset=1)], "lies at 1 where 0"),
        ([tensor(b"a", (5,)), tensor(b"b", offset=20)], "lies at 20 where 32"),
        ([tensor(b"a", (5,)), tensor(b"b", offset=0)], "lies at 0 where 32"),
        ([tensor(shape=(10**6,))], "within the tensor 'a'"),
        *(([tensor(kind=kind)], f"type {kind}, which is unknown") for kind in (4, 5, 31, 32, 33, 36, 37, 38, 43, 2**31)),
    ],
)  # fmt: skip
def test_broken_tensor_tables_are_refused(rows: list[bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=words):
        read(tmp_path, header(b"", 0, b"".join(rows), len(rows)) + bytes(256))


def test_missing_files_folders_and_devices_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_gguf(tmp_path / "none.gguf")
    with pytest.raises(CorruptFile, match="is a folder"):
        read_gguf(tmp_path)
    with pytest.raises(LlamacliError):
        read_gguf(Path("/dev/null"))
    with pytest.raises(LlamacliError):
        read_gguf(Path("a\0b"))


WHOLE = tiny_bpe_model().encode()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(CorruptFile):
        read(tmp_path, WHOLE[:length])


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), min_size=1, max_size=4))
def test_broken_bytes_raise_nothing_but_our_errors(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for place, byte in changes:
        data[place] = byte
    try:
        check_safe(read(tmp_path, bytes(data)))
    except LlamacliError as error:
        assert "\n" not in error.message


def test_reading_imports_neither_numpy_nor_the_gguf_package() -> None:
    code = (
        "import sys, llamacli.formats.gguf_check, llamacli.formats.gguf_split, llamacli.formats.atomic, "
        "llamacli.formats.gguf_merge, llamacli.library.describe, llamacli.cli.commands.show, "
        "llamacli.cli.commands.verify; sys.exit(any(name in sys.modules for name in ('numpy', 'gguf', 'llama_cpp')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- encoding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [Value(ValueType.UINT32, -1), i32(2**31), u64(2**64), f32(1e300), Value(ValueType.STRING, 3), Value(ValueType.ARRAY, (1,)),
     array(ValueType.UINT8, [256]), Value(ValueType.ARRAY, (), ValueType.ARRAY), Value(ValueType.UINT32, None)],
)  # fmt: skip
def test_values_that_do_not_fit_are_not_encoded(value: Value) -> None:
    with pytest.raises(ValueError, match=r"'a\.key'"):
        encode_header({"a.key": value}, [])


def test_headers_are_padded_to_the_alignment() -> None:
    for alignment in (8, 32, 64, 4096):
        assert len(encode_header({"a": boolean(True)}, [("t", (3, 2), BF16.id, 0)], alignment)) % alignment == 0


def test_every_fixed_type_has_a_layout() -> None:
    assert set(STRUCT_FORMAT) == set(ValueType) - {ValueType.STRING, ValueType.ARRAY}


def test_tensors_know_their_weights(tmp_path: Path) -> None:
    model = Model({}, [Tensor("a", (256, 3, 2), Q4_K), Tensor("b", (5,), F16)])
    ours = read(tmp_path, model.encode())
    assert [t.weights for t in ours.tensors] == [1536, 5]
    assert [t.size_bytes for t in ours.tensors] == [6 * 144, 10]
    assert dataclasses.replace(ours.tensors[0], part=1).part == 1

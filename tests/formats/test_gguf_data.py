"""Bad numbers in weights, against the engine's own quantizers and its own check of rows."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gguf import Model, Tensor

from llamacli.errors import CorruptFile
from llamacli.formats.gguf_data import SCALES, check_weights, first_bad_weight
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.gguf_values import string
from llamacli.formats.tensor_types import BF16, F16, F32, Q4_K, TENSOR_TYPES, TensorType


@pytest.fixture(scope="module")
def ggml_validate_row_data() -> Any:
    import llama_cpp.llama_cpp as bindings

    folder = Path(bindings.__file__).parent / "lib"
    for name in ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll"):
        for path in sorted(folder.glob(f"{name}*")):
            function = ctypes.CDLL(str(path)).ggml_validate_row_data
            function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
            function.restype = ctypes.c_bool
            return function
    pytest.skip("the engine's base library is not beside its bindings")


JUDGED = [kind for kind in TENSOR_TYPES if kind.name not in ("Q8_1", "F64")]
"""The engine has no verdict on Q8_1, which is never stored, and looks at F64 as if it were F32."""


@pytest.mark.parametrize("kind", JUDGED, ids=str)
def test_the_verdict_on_any_bytes_is_the_engines(
    kind: TensorType, ggml_validate_row_data: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    source = random.Random(kind.id)
    verdicts = set()
    for _ in range(400):
        blocks = source.choice((1, 2, 5))
        data = bytearray(source.randbytes(kind.block_bytes * blocks))
        if source.random() < 0.5:  # noise alone is nearly always bad, or nearly never
            data = bytearray(len(data))
            place = source.randrange(len(data))
            data[place : place + 2] = source.choice((b"\x00\x7c", b"\xff\xff", b"\x80\x7f", b"\x00\xf0"))[
                : len(data) - place
            ]
        aligned = np.frombuffer(bytes(data), np.uint8).copy()
        engine = bool(ggml_validate_row_data(kind.id, aligned.ctypes.data, len(data)))
        assert (first_bad_weight(kind, bytes(data)) is None) == engine
        verdicts.add(engine)
    assert len(verdicts) == 2 or (kind.name not in SCALES and kind.name != "IQ1_M")


@pytest.mark.parametrize(("kind", "bad"), [(F32, np.nan), (F32, -np.inf), (F16, np.inf)])
def test_the_place_is_told(kind: TensorType, bad: float, tmp_path: Path) -> None:
    values = np.zeros((3, 40), np.float32 if kind is F32 else np.float16)
    values[2, 17] = bad
    path = written(tmp_path, Tensor("w", (40, 3), kind, values.tobytes()))
    with pytest.raises(CorruptFile, match=r"'w' holds NaN or infinity in row 2, column 17"):
        check_weights(read_gguf(path))


def test_the_row_of_a_bad_block_is_told(tmp_path: Path) -> None:
    data = bytearray(Q4_K.row_bytes(512) * 4)
    data[Q4_K.block_bytes * 5 : Q4_K.block_bytes * 5 + 2] = b"\x00\x7e"
    path = written(tmp_path, Tensor("w", (512, 4), Q4_K, bytes(data)))
    with pytest.raises(CorruptFile, match="row 2, column 256"):
        check_weights(read_gguf(path))


def test_tensors_larger_than_one_piece_are_read_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacli.formats.gguf_data._PIECE_BYTES", 1000)
    values = np.zeros((5, 700), np.uint16)
    path = written(tmp_path, Tensor("w", (700, 5), BF16, values.tobytes()))
    check_weights(read_gguf(path))
    values[4, 699] = 0x7F80
    path = written(tmp_path, Tensor("w", (700, 5), BF16, values.tobytes()))
    with pytest.raises(CorruptFile, match="row 4, column 699"):
        check_weights(read_gguf(path))


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    class Count:
        total, names = 0, ""

        def advance(self, amount: int) -> None:
            self.total += amount

        def describe(self, text: str) -> None:
            self.names += text

    count = Count()
    path = written(tmp_path, Tensor("a", (32, 2)), Tensor("b", (64,)))
    check_weights(read_gguf(path), count)
    assert (count.total, count.names) == (512, "ab")


def test_a_file_cut_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, Tensor("a", (4096, 8)))
    ours = read_gguf(path)
    path.write_bytes(path.read_bytes()[:50_001])
    with pytest.raises(CorruptFile, match="became shorter"):
        check_weights(ours)


def written(folder: Path, *tensors: Tensor) -> Path:
    return Model({"general.architecture": string("llama")}, tensors).write(folder / "x.gguf")

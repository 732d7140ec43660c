"""ggml's kernel against what the engine's own quantizer writes, and its refusals."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llamacli.errors import CorruptFile, EngineError
from llamacli.formats.tensor_types import BY_NAME, FILE_TYPES
from llamacli.quantize.kernels import first_nonfinite, ggml_kernel

PLAIN = [
    "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q4_K_S", "Q5_K_S", "Q6_K",
    "IQ4_NL", "IQ4_XS", "IQ3_S", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0",
]  # fmt: skip
NAME = "blk.0.attn_q.weight"


def bf16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The bit patterns of float32 values cut to bf16."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def heavy_tailed(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    """Weights as trained models have them, exact in bf16."""
    drawn = np.random.default_rng(seed).standard_t(5, size=(rows, columns)) * 0.02
    return (bf16(drawn).astype(np.uint32) << 16).view(np.float32)


def engine_bytes(folder: Path, weights: NDArray[np.float32], file_type: int) -> tuple[str, bytes]:
    """Type and bytes of the one tensor after llama_model_quantize."""
    import llama_cpp.llama_cpp as lc

    source, target = folder / "f32.gguf", folder / "out.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(weights.shape[1])
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor(NAME, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parameters = lc.llama_model_quantize_default_params()
    parameters.ftype, parameters.pure, parameters.nthread = file_type, True, 1
    assert lc.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters)) == 0
    return tensor_bytes(target)


def tensor_bytes(path: Path) -> tuple[str, bytes]:
    """Type and bytes of the only tensor of a file (read without gguf's reader, which lacks the newest types)."""
    data = path.read_bytes()
    at = data.index(NAME.encode()) + len(NAME)
    dimensions = int.from_bytes(data[at : at + 4], "little")
    type_id = int.from_bytes(data[at + 4 + 8 * dimensions : at + 8 + 8 * dimensions], "little")
    kind = next(t for t in BY_NAME.values() if t.id == type_id)
    columns, rows = (int.from_bytes(data[at + 4 + 8 * k : at + 12 + 8 * k], "little") for k in range(2))
    start = (at + 16 + 8 * dimensions + 31) // 32 * 32
    return kind.name, data[start : start + rows * kind.row_bytes(columns)]


@pytest.mark.parametrize("name", PLAIN)
def test_bytes_equal_the_engines_quantizer(name: str, tmp_path: Path) -> None:
    weights = heavy_tailed(5, 512)
    file_type = next(number for number, text in FILE_TYPES.items() if text == name)
    type_name, expected = engine_bytes(tmp_path, weights, file_type)
    kind = BY_NAME[type_name]
    for rows in (weights, bf16(weights)):
        out = bytearray(len(expected))
        ggml_kernel().quantize(kind, rows, memoryview(out))
        assert bytes(out) == expected


def test_blocks_of_rows_give_the_same_bytes_as_the_whole() -> None:
    kind, weights = BY_NAME["Q4_K"], heavy_tailed(300, 512)
    whole = np.zeros(300 * kind.row_bytes(512), np.uint8)
    ggml_kernel().quantize(kind, bf16(weights), whole)
    parts = np.zeros_like(whole)
    for start, stop in ((0, 7), (7, 150), (150, 300)):
        view = parts[start * kind.row_bytes(512) : stop * kind.row_bytes(512)]
        ggml_kernel().quantize(kind, weights[start:stop], view)
    assert bytes(whole) == bytes(parts)


def test_importance_changes_the_choice_of_scales() -> None:
    kind, weights = BY_NAME["IQ2_XS"], heavy_tailed(2, 512)
    out = np.zeros(2 * kind.row_bytes(512), np.uint8)
    importance = np.ones(512, np.float32)
    importance[:256] = 10
    ggml_kernel().quantize(kind, weights, out, importance)
    restored = gguf.dequantize(out.reshape(2, -1), gguf.GGMLQuantizationType.IQ2_XS)
    assert np.abs(restored - weights).mean() < np.abs(weights).mean()


def test_half_precision_source_is_widened_exactly() -> None:
    kind, weights = BY_NAME["Q8_0"], heavy_tailed(3, 64)
    out, expected = np.zeros(3 * 68, np.uint8), np.zeros(3 * 68, np.uint8)
    ggml_kernel().quantize(kind, weights.astype(np.float16), out)
    ggml_kernel().quantize(kind, weights.astype(np.float16).astype(np.float32), expected)
    assert bytes(out) == bytes(expected)


def test_same_storage_is_copied_bit_for_bit() -> None:
    bits = np.arange(0, 0x7F80, 7, dtype=np.uint16)[None, :]
    out = np.zeros(bits.nbytes, np.uint8)
    ggml_kernel().quantize(BY_NAME["BF16"], bits, out)
    assert bytes(out) == bits.tobytes()


def test_weight_too_large_for_f16_is_refused() -> None:
    with pytest.raises(CorruptFile, match="65504"):
        ggml_kernel().quantize(BY_NAME["F16"], np.full((1, 8), 1e6, np.float32), np.zeros(16, np.uint8))


@pytest.mark.parametrize(
    ("name", "rows", "size", "importance", "words"),
    [
        ("Q4_K", np.zeros((1, 100), np.float32), 1000, None, "multiple of 256"),
        ("Q4_K", np.zeros((2, 256), np.float32), 287, None, "need 288"),
        ("Q4_K", np.zeros((2, 256), np.float64), 288, None, "float64"),
        ("Q4_K", np.zeros((4, 256), np.float32)[::2], 288, None, "contiguous"),
        ("Q8_1", np.zeros((2, 256), np.float32), 999, None, "cannot make Q8_1"),
        ("IQ2_XXS", np.zeros((2, 256), np.float32), 999, None, "without an importance"),
        ("Q4_K", np.zeros((2, 256), np.float32), 288, np.ones(255, np.float32), "256 float32"),
        ("Q4_K", np.zeros((2, 256), np.float32), 288, np.full(256, np.nan, np.float32), "importance has"),
        ("Q4_K", np.zeros((2, 256), np.float32), 288, np.full(256, -1, np.float32), "importance has"),
    ],
)
def test_arguments_that_would_abort_are_refused(
    name: str, rows: NDArray[Any], size: int, importance: NDArray[np.float32] | None, words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        ggml_kernel().quantize(BY_NAME[name], rows, np.zeros(size, np.uint8), importance)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", ["float32", "float16", "bf16"])
@pytest.mark.parametrize("position", [0, 70_001, 99_999])
def test_first_nonfinite_weight_is_found(bad: float, storage: str, position: int) -> None:
    values = np.full((100, 1000), 3.0e4, np.float32)
    assert first_nonfinite(stored(values, storage)) is None
    values.reshape(-1)[[position, 99_999]] = bad
    assert first_nonfinite(stored(values, storage)) == position


def stored(values: NDArray[np.float32], storage: str) -> NDArray[Any]:
    """float32 values as a checkpoint would store them."""
    return bf16(values) if storage == "bf16" else values.astype(storage)

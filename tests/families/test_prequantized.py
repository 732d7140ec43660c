"""Checkpoints whose weights are eight- or four-bit numbers with scales beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converting import convert, digests, read_gguf
from support import MODELS, Result

from llamacli.checkpoint.checkpoint import Checkpoint
from llamacli.checkpoint.prequantized import plain_rows
from llamacli.checkpoint.source import Folder
from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.dtypes import decode
from llamacli.formats.rows import Arena, read_all

RANDOM = np.random.default_rng(3)
CODES = RANDOM.integers(0, 126, (200, 300)).astype(np.uint8)  # all finite
VALUES = decode(CODES, "F8_E4M3")


def checkpoint(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, tuple[str, np.ndarray]]) -> Checkpoint:
    """A folder with a configuration and these stored tensors."""
    header, data = {}, b""
    for name, (kind, values) in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(Folder(folder))


def rows_of(found: Checkpoint, name: str = "a.weight") -> np.ndarray:
    rows = plain_rows(found.config, found.tensors)[name]
    whole = read_all(rows)
    parts = [rows.read(start, min(start + 7, 200), Arena()) for start in range(0, 200, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    return whole


FP8 = {"quant_method": "fp8"}


def test_one_scale_for_a_tensor(tmp_path: Path) -> None:
    scale = np.array(0.37, np.float32)
    found = checkpoint(tmp_path, FP8, {
        "a.weight": ("F8_E4M3", CODES), "a.weight_scale": ("F32", scale), "a.input_scale": ("F32", scale)})  # fmt: skip
    assert list(plain_rows(found.config, found.tensors)) == ["a.weight"]
    np.testing.assert_array_equal(rows_of(found), VALUES * scale)


@pytest.mark.parametrize("shape", [(200, 1), (200,)])
def test_one_scale_for_each_row(tmp_path: Path, shape: tuple[int, ...]) -> None:
    scales = RANDOM.random(200, np.float32)
    settings = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    found = checkpoint(
        tmp_path, settings, {"a.weight": ("F8_E4M3", CODES), "a.weight_scale": ("F32", scales.reshape(shape))}
    )
    np.testing.assert_array_equal(rows_of(found), VALUES * scales[:, None])


def test_one_scale_for_each_block_with_partial_blocks_at_the_edges(tmp_path: Path) -> None:
    scales = RANDOM.random((2, 3), np.float32)
    found = checkpoint(tmp_path, {**FP8, "weight_block_size": [128, 128]}, {
        "a.weight": ("F8_E4M3", CODES), "a.weight_scale_inv": ("F32", scales)})  # fmt: skip
    spread = scales.repeat(128, 0)[:200].repeat(128, 1)[:, :300]
    np.testing.assert_array_equal(rows_of(found), VALUES * spread)


def test_a_stack_of_matrices_has_a_stack_of_scales(tmp_path: Path) -> None:
    scales = RANDOM.random((2, 1, 3), np.float32)
    found = checkpoint(tmp_path, {**FP8, "weight_block_size": [128, 128]}, {
        "a.weight": ("F8_E4M3", CODES.reshape(2, 100, 300)), "a.weight_scale_inv": ("F32", scales)})  # fmt: skip
    spread = scales.repeat(100, 1).repeat(128, 2)[:, :, :300]
    whole = read_all(plain_rows(found.config, found.tensors)["a.weight"])
    np.testing.assert_array_equal(whole, VALUES.reshape(2, 100, 300) * spread)


def test_eight_bit_integers_are_rows_too(tmp_path: Path) -> None:
    whole, scales = CODES.astype(np.int8), RANDOM.random((200, 1), np.float32)
    settings = {"quant_method": "compressed-tensors", "format": "int-quantized"}
    found = checkpoint(tmp_path, settings, {"a.weight": ("I8", whole), "a.weight_scale": ("F32", scales)})
    np.testing.assert_array_equal(rows_of(found), whole * scales)


def test_a_weight_without_its_scale_is_named(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, FP8, {"a.weight": ("F8_E4M3", CODES)})
    with pytest.raises(CorruptFile, match=r"a\.weight.*no scale"):
        plain_rows(found.config, found.tensors)


def test_a_scale_that_does_not_fit_is_named(tmp_path: Path) -> None:
    scales = np.ones((7, 5), np.float32)
    found = checkpoint(tmp_path, FP8, {"a.weight": ("F8_E4M3", CODES), "a.weight_scale_inv": ("F32", scales)})
    with pytest.raises(CorruptFile, match=r"a\.weight_scale_inv.*does not fit"):
        plain_rows(found.config, found.tensors)


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "hqq"}, {"quant_method": "aqlm"}, {"quant_method": "auto-round"},
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"}, {"quant_method": "something-new"},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_plain_rows_is_refused_by_name(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=f"already quantized .*{settings['quant_method']}"):
        checkpoint(tmp_path, settings, {"a.weight": ("F32", VALUES)})


# -- MXFP4 ---------------------------------------------------------------------------------------------------------------

FOUR_BITS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def test_mxfp4_keeps_every_code_and_scale(tmp_path: Path) -> None:
    """Against the meaning of both layouts, written out."""
    blocks = RANDOM.integers(0, 256, (2, 3, 4, 16)).astype(np.uint8)
    scales = RANDOM.integers(100, 140, (2, 3, 4)).astype(np.uint8)
    found = checkpoint(
        tmp_path, {"quant_method": "mxfp4"}, {"e.w_blocks": ("U8", blocks), "e.w_scales": ("U8", scales)}
    )
    rows = plain_rows(found.config, found.tensors)["e.w"]
    assert rows.shape == (2, 3, 128)
    raw = rows.read(0, 6, Arena()).reshape(-1, 17)
    codes = np.concatenate([raw[:, 1:] & 15, raw[:, 1:] >> 4], axis=1)
    ours = FOUR_BITS[codes] * np.exp2(raw[:, :1].astype(np.float32) - 127)
    theirs = np.stack([FOUR_BITS[blocks & 15], FOUR_BITS[blocks >> 4]], -1).reshape(-1, 32)
    theirs = theirs * np.exp2(scales.reshape(-1, 1).astype(np.float32) - 127)
    np.testing.assert_array_equal(ours, theirs)


def test_an_fp8_copy_of_a_real_model_quantizes_end_to_end(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    """The weights of a trained model rounded to FP8 by hand, against the same weights in float32."""
    source = MODELS["tinystories-656k-wide256"]
    eight, wide = tmp_path / "eight", tmp_path / "wide"
    original = Checkpoint.open(Folder(source))
    table = decode(np.arange(127, dtype=np.uint8), "F8_E4M3")
    narrow: dict[str, tuple[str, np.ndarray]] = {}
    exact: dict[str, tuple[str, np.ndarray]] = {}
    for name, tensor in original.tensors.items():
        values = read_all(tensor)
        if ".mlp." not in name:
            narrow[name] = exact[name] = ("F32", values)
            continue
        scale = np.maximum(np.abs(values).max(1, keepdims=True) / 448, 1e-9).astype(np.float32)
        codes = np.abs(np.abs(values / scale)[..., None] - table).argmin(-1).astype(np.uint8)
        codes |= np.signbit(values).astype(np.uint8) << 7
        narrow[name], narrow[f"{name}_scale"] = ("F8_E4M3", codes), ("F32", scale)
        exact[name] = ("F32", decode(codes, "F8_E4M3") * scale)
    for folder, tensors, settings in ((eight, narrow, {"quant_method": "fbgemm_fp8"}), (wide, exact, {})):
        folder.mkdir()
        checkpoint(folder, settings, tensors)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((source / name).read_bytes())
        config = json.loads((source / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    done = invoke("quantize", eight, tmp_path / "eight.gguf", "-q", "Q8_0")
    assert done.code == 0, done.err
    ours = read_gguf(tmp_path / "eight.gguf")
    theirs = read_gguf(convert(wide, tmp_path / "wide.gguf", "Q8_0"))
    assert digests(ours) == digests(theirs)

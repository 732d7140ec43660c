"""GPTQ, AWQ, packed integers and bitsandbytes as plain rows, against the formats' formulas written out number by number."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converting import digests, read_gguf
from support import MODELS, Result

from llamacli.checkpoint.checkpoint import Checkpoint
from llamacli.checkpoint.prequantized import plain_rows
from llamacli.checkpoint.source import Folder
from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.extents import extents
from llamacli.formats.rows import Arena, read_all, together

Tensors = dict[str, tuple[str, np.ndarray]]
OUT, IN, GROUP = 96, 128, 32
RANDOM = np.random.default_rng(8)


def write(folder: Path, settings: Mapping[str, Any], tensors: Tensors, **config: Any) -> Checkpoint:
    """A folder with a configuration and these stored tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    header, data = {}, b""
    for name, (kind, values) in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    settled = {"architectures": ["LlamaForCausalLM"], **config, "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(settled))
    return Checkpoint.open(Folder(folder))


def rows_of(found: Checkpoint) -> np.ndarray:
    """The one weight, whole, and the same in parts of seven rows that stay within the bytes that they promise."""
    assert set(plain_rows(found.config, found.tensors)) == {"a.weight", "a.bias"}
    rows = plain_rows(found.config, found.tensors)["a.weight"]
    whole = read_all(rows)
    asked: list[tuple[int, int]] = []
    promised: list[tuple[int, int]] = []
    reads = next(iter(found.tensors.values())).file
    original = type(reads).read_into

    def watched(self: Any, offset: int, target: memoryview) -> None:
        asked.append((offset, offset + len(target)))
        original(self, offset, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(reads), "read_into", watched)
        parts = [rows.read(start, min(start + 7, OUT), Arena()) for start in range(0, OUT, 7)]
    for start in range(0, OUT, 7):
        promised += [(first, last) for _, first, last in extents(rows, start, min(start + 7, OUT))]
    assert asked
    assert all(any(low <= first and last <= high for low, high in promised) for first, last in asked)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    return whole


def words(codes: np.ndarray, bits: int) -> np.ndarray:
    """Each row of codes as one large number, the first code lowest, cut into 32-bit words."""
    packed = []
    for row in codes:
        number = int("".join(f"{code:0{bits}b}" for code in reversed(row.tolist())), 2)
        count = -(-len(row) * bits // 32)
        packed.append(np.frombuffer(number.to_bytes(4 * count, "little"), "<u4"))
    return np.stack(packed).view("<i4")


def drawn(bits: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(0, 1 << bits, shape)


def half_floats(*shape: int) -> np.ndarray:
    return (RANDOM.random(shape) * 0.02 + 0.001).astype("<f2")


BIAS: Tensors = {"a.bias": ("F16", half_floats(OUT))}

# -- GPTQ ----------------------------------------------------------------------------------------------------------------


def gptq(bits: int, order: np.ndarray, shift: int, groups: int = IN // GROUP) -> tuple[Tensors, np.ndarray]:
    """A matrix as its parts, and its values. `shift`: how much less than the zero point is stored."""
    codes, zeros, scales = drawn(bits, OUT, IN), drawn(bits, groups, OUT), half_floats(groups, OUT)
    values = np.empty((OUT, IN), np.float32)
    for column in range(IN):
        group = order[column]
        values[:, column] = scales[group].astype(np.float32) * (codes[:, column] - zeros[group]).astype(np.float32)
    stored = zeros - shift & (1 << bits) - 1
    return {
        "a.g_idx": ("I32", order.astype("<i4")), "a.qweight": ("I32", words(codes, bits).T),
        "a.qzeros": ("I32", words(stored, bits)), "a.scales": ("F16", scales), **BIAS,
    }, values  # fmt: skip


NEIGHBOURS = np.arange(IN) // GROUP


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("layout", "shift"), [("gptq", 1), ("gptq_v2", 0)])
@pytest.mark.parametrize("desc_act", [False, True])
def test_gptq(bits: int, layout: str, shift: int, desc_act: bool, tmp_path: Path) -> None:
    order = RANDOM.permutation(NEIGHBOURS) if desc_act else NEIGHBOURS
    tensors, values = gptq(bits, order, shift)
    settings = {"quant_method": "gptq", "bits": bits, "checkpoint_format": layout, "desc_act": desc_act}
    np.testing.assert_array_equal(rows_of(write(tmp_path, settings, tensors)), values)


def test_gptq_without_an_order_or_with_one_group_for_all(tmp_path: Path) -> None:
    tensors, values = gptq(4, NEIGHBOURS, 1)
    del tensors["a.g_idx"]
    settings = {"quant_method": "gptq", "bits": 4, "sym": True}
    np.testing.assert_array_equal(rows_of(write(tmp_path / "a", settings, tensors)), values)
    tensors, values = gptq(8, np.zeros(IN, int), 1, groups=1)
    np.testing.assert_array_equal(rows_of(write(tmp_path / "b", settings, tensors)), values)


# -- AWQ -----------------------------------------------------------------------------------------------------------------


def awq_words(codes: np.ndarray) -> np.ndarray:
    """(rows, outputs) as (rows, outputs / 8): nibble i of a word is output 0, 2, 4, 6, 1, 3, 5, 7."""
    packed = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for nibble, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        packed |= codes[:, output::8].astype(np.uint32) << np.uint32(4 * nibble)
    return packed.view("<i4")


def awq() -> tuple[Tensors, np.ndarray]:
    codes, zeros, scales = drawn(4, IN, OUT), drawn(4, IN // GROUP, OUT), half_floats(IN // GROUP, OUT)
    wide = scales.astype(np.float32).repeat(GROUP, 0)
    values = (codes - zeros.repeat(GROUP, 0)).astype(np.float32) * wide
    return {
        "a.qweight": ("I32", awq_words(codes)), "a.qzeros": ("I32", awq_words(zeros)), "a.scales": ("F16", scales), **BIAS,
    }, values.T  # fmt: skip


@pytest.mark.parametrize("version", ["gemm", "GEMM"])
def test_awq(version: str, tmp_path: Path) -> None:
    tensors, values = awq()
    settings = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": version, "zero_point": True}
    np.testing.assert_array_equal(rows_of(write(tmp_path, settings, tensors)), values)


# -- compressed-tensors --------------------------------------------------------------------------------------------------


def packed(bits: int, zero: str, order: np.ndarray | None, scales: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """A matrix as its parts and its values; `zero`: none, packed, or signed bytes."""
    integers = drawn(bits, OUT, IN) - (1 << bits - 1)
    zeros = drawn(bits, *scales.shape) - (1 << bits - 1) if zero else np.zeros(scales.shape, int)
    group = (NEIGHBOURS if order is None else order) if scales.ndim == 2 and scales.shape[1] > 1 else np.zeros(IN, int)
    wide = np.broadcast_to(scales.reshape(len(scales), -1), (OUT, scales.size // len(scales))).astype(np.float32)
    spread = np.broadcast_to(zeros.reshape(len(scales), -1), wide.shape)
    values = (integers - spread[:, group]).astype(np.float32) * wide[:, group]
    tensors: Tensors = {
        "a.weight_packed": ("I32", words(integers + (1 << bits - 1), bits)), "a.weight_scale": ("F16", scales),
        "a.weight_shape": ("I64", np.array([OUT, IN])), **BIAS,
    }  # fmt: skip
    if zero == "packed":
        tensors["a.weight_zero_point"] = ("I32", words((zeros + (1 << bits - 1)).T, bits).T)
    elif zero:
        tensors["a.weight_zero_point"] = ("I8", zeros.astype(np.int8))
    if order is not None:
        tensors["a.weight_g_idx"] = ("I32", order.astype("<i4"))
    return tensors, values


SCHEMES = [
    (scheme, zero)
    for scheme in ("groups", "groups in another order", "rows", "one")
    for zero in ("", "packed", "signed bytes")
    if scheme != "one" or not zero
]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("scheme", "zero"), SCHEMES)
def test_packed_integers(bits: int, zero: str, scheme: str, tmp_path: Path) -> None:
    shapes = {"rows": (OUT, 1), "one": (1,)}
    order = RANDOM.permutation(NEIGHBOURS) if "order" in scheme else None
    tensors, values = packed(bits, zero, order, half_floats(*shapes.get(scheme, (OUT, IN // GROUP))))
    weights = {"num_bits": bits, "type": "int", "symmetric": not zero, "group_size": GROUP}
    settings = {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": weights, "targets": ["Linear"]}},
    }  # fmt: skip
    np.testing.assert_array_equal(rows_of(write(tmp_path, settings, tensors)), values)


# -- bitsandbytes --------------------------------------------------------------------------------------------------------


def state(**more: Any) -> np.ndarray:
    value = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [OUT, IN], **more}
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def four_bits(nested: bool) -> tuple[Tensors, np.ndarray]:
    codes, table = drawn(4, OUT * IN), np.sort(RANDOM.standard_normal(16)).astype("<f4")
    count = OUT * IN // 64
    octets = np.array([codes[place] << 4 | codes[place + 1] for place in range(0, OUT * IN, 2)], np.uint8)
    tensors: Tensors = {"a.weight": ("U8", octets.reshape(-1, 1)), "a.weight.quant_map": ("F32", table), **BIAS}
    if nested:
        inner, second = drawn(8, count).astype(np.uint8), RANDOM.random(256).astype("<f4")
        outer, offset = RANDOM.random(-(-count // 256)).astype("<f4"), 0.0625
        scales = second[inner] * outer[np.arange(count) // 256] + np.float32(offset)
        tensors |= {
            "a.weight.absmax": ("U8", inner), "a.weight.nested_quant_map": ("F32", second),
            "a.weight.nested_absmax": ("F32", outer),
        }  # fmt: skip
        about = state(nested_blocksize=256, nested_offset=offset, nested_dtype="float32")
    else:
        scales, about = RANDOM.random(count).astype("<f4"), state()
        tensors["a.weight.absmax"] = ("F32", scales)
    tensors["a.weight.quant_state.bitsandbytes__nf4"] = ("U8", about)
    return tensors, (table[codes].reshape(-1, 64) * scales[:, None]).reshape(OUT, IN)


BNB4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_in_four_bits(nested: bool, tmp_path: Path) -> None:
    tensors, values = four_bits(nested)
    np.testing.assert_array_equal(rows_of(write(tmp_path, BNB4, tensors)), values)


def test_bitsandbytes_in_eight_bits(tmp_path: Path) -> None:
    integers, largest = RANDOM.integers(-127, 128, (OUT, IN)).astype(np.int8), RANDOM.random(OUT).astype("<f4")
    tensors: Tensors = {
        "a.weight": ("I8", integers), "a.SCB": ("F32", largest), "a.weight_format": ("U8", np.array(0, np.uint8)), **BIAS,
    }  # fmt: skip
    found = write(tmp_path, {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors)
    expected = integers * largest[:, None] * np.float32(1 / 127)
    np.testing.assert_array_equal(rows_of(found), expected)


# -- what does not fit ---------------------------------------------------------------------------------------------------


def without(name: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.pop(name)


def reshaped(name: str, *shape: int) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({name: (tensors[name][0], np.resize(tensors[name][1], shape))})


def both_forms(tensors: Tensors) -> None:
    tensors["a.weight"] = ("F16", half_floats(OUT, IN))


GPTQ4 = {"quant_method": "gptq", "bits": 4}
AWQ4 = {"quant_method": "awq", "bits": 4}
BAD: dict[str, tuple[Mapping[str, Any], Callable[[], Tensors], Callable[[Tensors], Any], str]] = {
    "no scales": (GPTQ4, lambda: gptq(4, NEIGHBOURS, 1)[0], without("a.scales"), "'a' has no scales"),
    "no zero points": (AWQ4, lambda: awq()[0], without("a.qzeros"), "'a' has no qzeros"),
    "scales of another height": (GPTQ4, lambda: gptq(4, NEIGHBOURS, 1)[0], reshaped("a.scales", 3, OUT), "'a'"),
    "an order of another length": (GPTQ4, lambda: gptq(4, NEIGHBOURS, 1)[0], reshaped("a.g_idx", 7), "g_idx"),
    "zero points of another width": (AWQ4, lambda: awq()[0], reshaped("a.qzeros", 4, 5), "qzeros"),
    "quantized and plain at once": (AWQ4, lambda: awq()[0], both_forms, "both quantized and as it was"),
    "no table": (BNB4, lambda: four_bits(True)[0], without("a.weight.quant_map"), "no quant_map"),
    "no second table": (BNB4, lambda: four_bits(True)[0], without("a.weight.nested_quant_map"), "nested_quant_map"),
    "no state": (
        BNB4, lambda: four_bits(False)[0], without("a.weight.quant_state.bitsandbytes__nf4"), "U8 but has no scale"),
    "too few scales": (BNB4, lambda: four_bits(False)[0], reshaped("a.weight.absmax", 7), "absmax"),
    "a state that is none": (
        BNB4, lambda: four_bits(False)[0],
        lambda tensors: tensors.update({"a.weight.quant_state.bitsandbytes__nf4": ("U8", state(shape=[0, -1]))}),
        "does not give a shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_parts_that_do_not_belong_together_are_named(case: str, tmp_path: Path) -> None:
    settings, make, break_it, words = BAD[case]
    tensors = make()
    break_it(tensors)
    found = write(tmp_path, settings, tensors)
    with pytest.raises(CorruptFile) as error:
        plain_rows(found.config, found.tensors)
    assert words in error.value.message
    assert "\n" not in error.value.message


def test_an_order_that_names_no_group_is_refused_when_it_is_read(tmp_path: Path) -> None:
    tensors, _ = gptq(4, NEIGHBOURS, 1)
    tensors["a.g_idx"] = ("I32", np.full(IN, 99, "<i4"))
    found = write(tmp_path, GPTQ4, tensors)
    with pytest.raises(CorruptFile, match="g_idx"):
        read_all(plain_rows(found.config, found.tensors)["a.weight"])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({**GPTQ4, "checkpoint_format": "marlin"}, "gptq, marlin"), ({**GPTQ4, "format": "gptq_p"}, "gptq, gptq_p"),
        ({**GPTQ4, "is_marlin_format": True}, "gptq, marlin"), ({**GPTQ4, "pack_dtype": "int16"}, "int16"),
        ({**AWQ4, "version": "gemv"}, "awq, gemv"), ({"quant_method": "awq", "bits": 8}, "awq, 8 bits"),
        ({**AWQ4, "zero_point": False}, "awq, without zero points"),
        ({**BNB4, "bnb_4bit_quant_type": "af4"}, "bitsandbytes, af4"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "pack-quantized|no width"),
    ],
    ids=str,
)  # fmt: skip
def test_other_layouts_are_refused_by_name(settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=name) as error:
        write(tmp_path, settings, awq()[0])
    assert error.value.hint


def test_matrices_stored_the_other_way_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="GPT2LMHeadModel"):
        write(tmp_path, GPTQ4, gptq(4, NEIGHBOURS, 1)[0], architectures=["GPT2LMHeadModel"])


# -- a whole model -------------------------------------------------------------------------------------------------------


def rounded(values: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """A trained matrix rounded to GPTQ's four bits, columns in another order, and what that makes of it."""
    outputs, inputs = values.shape
    order = RANDOM.permutation(np.arange(inputs) // GROUP)
    codes, exact = np.empty((outputs, inputs), int), np.empty((outputs, inputs), np.float32)
    zeros, scales = np.empty((inputs // GROUP, outputs), int), np.empty((inputs // GROUP, outputs), "<f2")
    for group in range(inputs // GROUP):
        part = values[:, order == group]
        low, high = np.minimum(part.min(1), -1e-4), np.maximum(part.max(1), 1e-4)
        scales[group] = (high - low) / 15
        wide = scales[group].astype(np.float32)[:, None]
        zeros[group] = np.clip(np.rint(-low / wide[:, 0]), 1, 15)
        found = np.clip(np.rint(part / wide) + zeros[group][:, None], 0, 15).astype(int)
        codes[:, order == group] = found
        exact[:, order == group] = (found - zeros[group][:, None]).astype(np.float32) * wide
    parts = {"qweight": ("I32", words(codes, 4).T), "qzeros": ("I32", words(zeros - 1, 4)),
             "scales": ("F16", scales), "g_idx": ("I32", order.astype("<i4"))}  # fmt: skip
    return parts, exact


def test_a_gptq_copy_of_a_real_model_quantizes_end_to_end(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    """The file is that of the same numbers in float32: the rows that the family permutes, cut and quantized in blocks."""
    source = MODELS["tinystories-656k-wide256"]
    narrow: Tensors = {}
    exact: Tensors = {}
    for name, tensor in Checkpoint.open(Folder(source)).tensors.items():
        values = read_all(tensor)
        if "layers.0." not in name or "_proj." not in name:
            narrow[name] = exact[name] = ("F32", values)
            continue
        parts, back = rounded(values)
        narrow |= {f"{name.removesuffix('weight')}{part}": entry for part, entry in parts.items()}
        exact[name] = ("F32", back)
    config = json.loads((source / "config.json").read_text())
    for folder, tensors, settings in (("four", narrow, GPTQ4), ("wide", exact, {})):
        write(tmp_path / folder, settings, tensors, **config)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / folder / name).write_bytes((source / name).read_bytes())
        done = invoke("quantize", tmp_path / folder, tmp_path / f"{folder}.gguf", "-q", "F16")
        assert done.code == 0, done.err
    assert digests(read_gguf(tmp_path / "four.gguf")) == digests(read_gguf(tmp_path / "wide.gguf"))


def test_matrices_that_are_stored_by_columns_are_read_in_wide_blocks(tmp_path: Path) -> None:
    found = write(tmp_path, AWQ4, awq()[0])
    assert together(plain_rows(found.config, found.tensors)["a.weight"]) > 1

"""With ggml's kernel our files equal what llama-quantize writes: tensor for tensor, byte for byte, key for key.

The oracle is the quantizer inside the installed engine, the very function that llama-quantize calls. Its input is the
BF16 file of the same checkpoint, whose tensors in turn are compared with digests of what llama.cpp's converter makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import MODELS, ROOT

from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import open_model, through_bf16
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import RECIPES, recipe_named
from llamacli.quantize.run import Output, quantize
from llamacli.runtime import bindings

NEED_A_MATRIX = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XS", "IQ3_XXS", "Q2_K_S"}
PEER = json.loads((ROOT / "tests" / "data" / "converter" / "tensors.json").read_text())


def tensors(path: Path) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """Shape, type and digest of every tensor."""
    content: GGUF = read_gguf(path)
    data = path.read_bytes()
    found = {}
    for tensor in content.tensors:
        start = content.tensor_start(tensor)
        digest = hashlib.sha256(data[start : start + tensor.size_bytes]).hexdigest()
        found[tensor.name] = (tensor.shape, tensor.type.name, digest)
    return found


def engine_quantize(source: Path, target: Path, file_type: int) -> None:
    """llama-quantize's own function."""
    import llama_cpp.llama_cpp as llama_cpp  # the package itself may have been loaded without its heavy parts

    parameters: Any = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = 1
    bindings.load()  # catches the engine's log, which other tests read
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters) == 0


@pytest.mark.parametrize("kind", [name for name in RECIPES if name not in NEED_A_MATRIX])
@pytest.mark.parametrize("name", ["tinystories-656k-wide256", "tinystories-656k-bf16"])
def test_every_file_type_equals_the_engines(
    name: str, kind: str, tmp_path: Path, converted: Callable[..., Path]
) -> None:
    source = converted(name, "BF16")
    model = through_bf16(open_model(MODELS[name]))
    recipe = recipe_named(kind)
    ours = tmp_path / "ours.gguf"
    quantize(model, [Output(make_plan(model, recipe, PlanOptions()), ours)], kernel_named("ggml"), threads=2)
    engine_quantize(source, tmp_path / "engine.gguf", recipe.file_type)
    assert tensors(ours) == tensors(tmp_path / "engine.gguf")
    assert read_gguf(ours).metadata == read_gguf(tmp_path / "engine.gguf").metadata


@pytest.mark.parametrize("name", sorted(PEER))
def test_unquantized_tensors_equal_the_converters(name: str, converted: Callable[..., Path]) -> None:
    assert {n: [list(t[0]), t[1], t[2]] for n, t in tensors(converted(name, "BF16")).items()} == PEER[name]


def test_several_types_in_one_reading_equal_one_by_one(tmp_path: Path) -> None:
    model = open_model(MODELS["tinystories-656k-wide256"])
    kernel = kernel_named("ggml")
    kinds = ("Q4_K_M", "Q8_0", "F16")
    plans = {kind: make_plan(model, recipe_named(kind), PlanOptions()) for kind in kinds}
    quantize(model, [Output(plans[kind], tmp_path / f"{kind}.gguf") for kind in kinds], kernel, threads=2)
    for kind in kinds:
        quantize(model, [Output(plans[kind], tmp_path / "alone.gguf")], kernel, threads=1, force=True)
        assert (tmp_path / f"{kind}.gguf").read_bytes() == (tmp_path / "alone.gguf").read_bytes()


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_same_bytes_on_any_number_of_threads(threads: int, tmp_path: Path, converted: Callable[..., Path]) -> None:
    model = open_model(MODELS["tinystories-656k-wide256"])
    plan = make_plan(model, recipe_named("Q4_K_M"), PlanOptions())
    quantize(model, [Output(plan, tmp_path / "m.gguf")], kernel_named("ggml"), threads=threads)
    assert (tmp_path / "m.gguf").read_bytes() == converted("tinystories-656k-wide256", "Q4_K_M").read_bytes()

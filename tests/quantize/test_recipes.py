"""Recipes against what llama.cpp chose for twelve real models: 33 file types, tensor for tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacli.errors import Unsupported, UsageError
from llamacli.formats.tensor_types import BY_NAME, F16, FILE_TYPES
from llamacli.quantize.choose import choose_types
from llamacli.quantize.fallback import FALLBACKS
from llamacli.quantize.overrides import Overrides
from llamacli.quantize.place import Model
from llamacli.quantize.recipes import ALIASES, RECIPES, recipe_named
from llamacli.quantize.roles import Shape

DATA = sorted((Path(__file__).parent.parent / "data" / "recipes").glob("*.json"))


def unpack(pattern: str) -> Iterator[str]:
    """The names behind `blk.0-3,7.attn_v.weight`."""
    if not pattern.startswith("blk."):
        yield pattern
        return
    _, blocks, rest = pattern.split(".", 2)
    for run in blocks.split(","):
        first, _, last = run.partition("-")
        yield from (f"blk.{block}.{rest}" for block in range(int(first), int(last or first) + 1))


def shapes_of(data: dict[str, Any]) -> list[Shape]:
    return [
        Shape(name, (group["columns"], 64, group["stack"]))
        for group in data["tensors"]
        for pattern in group["names"]
        for name in unpack(pattern)
    ]


def model_of(data: dict[str, Any]) -> Model:
    return Model(data["architecture"], data["blocks"], data["heads"], data["kv_heads"], data["experts"])


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_every_tensor_of_a_real_model_gets_the_type_that_llama_cpp_gives_it(path: Path) -> None:
    data = json.loads(path.read_text())
    shapes = shapes_of(data)
    assert len(data["types"]) == 33
    for name, expected in data["types"].items():
        exceptions = {n: t for t, patterns in expected["exceptions"].items() for p in patterns for n in unpack(p)}
        assert exceptions.keys() <= {shape.name for shape in shapes}
        chosen = choose_types(shapes, model_of(data), RECIPES[name])
        wrong = {
            shape.name: (str(chosen[shape.name].type), exceptions.get(shape.name, expected["default"]))
            for shape in shapes
            if str(chosen[shape.name].type) != exceptions.get(shape.name, expected["default"])
        }
        assert not wrong, name


def test_there_are_twelve_real_models() -> None:
    assert len(DATA) == 12


def test_each_recipe_has_the_number_of_its_file_type() -> None:
    assert {recipe.file_type: name for name, recipe in RECIPES.items()} == {
        number: name for number, name in FILE_TYPES.items() if name != "NVFP4"
    }


@pytest.mark.parametrize("name", ["q4_k_m", "Q4_K_M", " q4_K_m "])
def test_a_recipe_is_found_in_any_case(name: str) -> None:
    assert recipe_named(name) is RECIPES["Q4_K_M"]


def test_aliases_mean_the_medium_mix() -> None:
    assert {alias: recipe_named(alias).name for alias in ALIASES} == {
        "Q3_K": "Q3_K_M",
        "Q4_K": "Q4_K_M",
        "Q5_K": "Q5_K_M",
    }


def test_an_unknown_recipe_names_its_neighbours_and_all_others() -> None:
    with pytest.raises(UsageError) as caught:
        recipe_named("q4_k_n")
    assert "Q4_K_M" in caught.value.hint.split("?")[0]
    assert all(name in caught.value.hint for name in RECIPES)


NAMES = (
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_qkv",
    "attn_output",
    "ffn_up",
    "ffn_gate",
    "ffn_down",
    "ffn_down_exps",
    "ssm_in",
)


@st.composite
def models(draw: st.DrawFn) -> tuple[Model, list[Shape]]:
    blocks = draw(st.integers(1, 12))
    kv = draw(st.integers(0, 8))
    model = Model(
        draw(st.sampled_from(("llama", "falcon", "qwen3moe", "bailingmoe3", "glm5-next"))),
        blocks,
        kv * draw(st.integers(1, 8)),
        kv,
        draw(st.sampled_from((0, 4, 8, 64))),
    )
    columns = st.sampled_from((32, 64, 100, 128, 172, 256, 512, 2880))
    kinds = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    tensors = [Shape("token_embd.weight", (draw(columns), 64))]
    if draw(st.booleans()):
        tensors.append(Shape("output.weight", (draw(columns), 64)))
    for kind in kinds:
        row, stack = draw(columns), draw(st.sampled_from((1, 8)))
        tensors += [Shape(f"blk.{block}.{kind}.weight", (row, 64, stack)) for block in range(blocks)]
    return model, draw(st.permutations(tensors))


@given(models(), st.sampled_from(sorted(RECIPES)), st.booleans(), st.booleans())
def test_every_choice_divides_its_rows_or_is_the_documented_fallback(
    drawn: tuple[Model, list[Shape]], name: str, matrix: bool, pure: bool
) -> None:
    model, tensors = drawn
    recipe = RECIPES[name]
    try:
        chosen = choose_types(tensors, model, recipe, Overrides(pure=pure), has_imatrix=matrix)
    except Unsupported:
        assert recipe.default not in FALLBACKS and recipe.default.block_size > 32
        return
    assert list(chosen) == [tensor.name for tensor in tensors]
    for tensor in tensors:
        choice = chosen[tensor.name]
        assert tensor.columns % choice.type.block_size == 0
        if choice.fallback:
            wanted = BY_NAME[choice.reason.split(":")[0].removeprefix("fallback from ")]
            assert tensor.columns % wanted.block_size
            assert choice.type in (FALLBACKS.get(wanted), F16)


@given(models(), st.sampled_from(sorted(RECIPES)), st.randoms())
def test_the_order_of_the_tensors_changes_nothing(drawn: tuple[Model, list[Shape]], name: str, random: Any) -> None:
    model, tensors = drawn
    other = list(tensors)
    random.shuffle(other)
    try:
        first = choose_types(tensors, model, RECIPES[name])
    except Unsupported:
        return
    assert choose_types(other, model, RECIPES[name]) == first

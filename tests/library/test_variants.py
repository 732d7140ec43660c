"""Sorting a repository's files into models."""

from __future__ import annotations

import pytest

from llamacli.errors import NotFound, UsageError
from llamacli.library.variants import best, drafts, is_model, one, projectors, quant_of, variants


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-2-7b.Q4_0.gguf", "Q4_0"),
        ("model-q8_0.gguf", "Q8_0"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-IQ2_XXS.gguf", "IQ2_XXS"),
        ("m-IQ4_NL.gguf", "IQ4_NL"),
        ("m-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("gpt-oss-20b-mxfp4_moe.gguf", "MXFP4_MOE"),
        ("m-fp16.gguf", "F16"),
        ("m.BF16.gguf", "BF16"),
        ("model-bf16-Q6_K.gguf", "Q6_K"),
        ("Q5_K_M/model-00001-of-00002.gguf", "Q5_K_M"),
        ("Meta-Llama-3.1-70B-Instruct-Q3_K_XL.gguf", "Q3_K_XL"),
        ("m-Q4_K_M_imat.gguf", "Q4_K_M"),
        ("Q-model.gguf", ""),
        ("model.gguf", ""),
        ("Qwen2.5-Q4you.gguf", ""),
    ],
)
def test_a_file_name_tells_its_quantization(name: str, quant: str) -> None:
    assert quant_of(name) == quant


@pytest.mark.parametrize(
    "name",
    ["mmproj-model-f16.gguf", "x/mmproj.gguf", "m.imatrix", "imatrix.gguf", "M-imatrix-Q4_K_M.gguf", "mtp-M-Q8_0.gguf",
     "eagle3-M.gguf", "draft-M-Q4_0.gguf", "model.safetensors"],
)  # fmt: skip
def test_projectors_drafts_and_matrices_are_no_models(name: str) -> None:
    assert not is_model(name)


def test_parts_are_one_model() -> None:
    names = [f"q/M-Q8_0-0000{n}-of-00003.gguf" for n in (3, 1, 2)] + ["M-Q4_K_M.gguf", "mmproj-Q8_0.gguf"]
    big, small = variants(names)
    assert big.quant == "Q8_0" and big.complete and [f[-15] for f in big.files] == ["1", "2", "3"]
    assert small.files == ("M-Q4_K_M.gguf",)
    assert projectors(names) == ["mmproj-Q8_0.gguf"]
    assert projectors(["mmproj-F32.gguf", "mmproj-BF16.gguf", "a/mmproj-F16.gguf"])[:2] == [
        "a/mmproj-F16.gguf",
        "mmproj-BF16.gguf",
    ]
    assert drafts(["M-Q4_0.gguf", "mtp-M-Q8_0.gguf", "x/draft-M-Q4_0.gguf"]) == [
        "x/draft-M-Q4_0.gguf",
        "mtp-M-Q8_0.gguf",
    ]


OFFERED = variants(
    [
        "M-Q4_K_M.gguf",
        "M-UD-Q4_K_XL.gguf",
        "M-Q5_K_M.gguf",
        "M-Q5_K_S.gguf",
        "M-Q6_K.gguf",
        "a/M-Q2_K.gguf",
        "b/M-Q2_K.gguf",
    ]
)


@pytest.mark.parametrize(
    ("selector", "file"),
    [
        ("q4_k_m", "M-Q4_K_M.gguf"),
        ("Q4_K_XL", "M-UD-Q4_K_XL.gguf"),
        ("ud-q4_k_xl", "M-UD-Q4_K_XL.gguf"),
        ("M-Q5_K_S.gguf", "M-Q5_K_S.gguf"),
        ("M-Q5_K_S", "M-Q5_K_S.gguf"),
        ("q6_k", "M-Q6_K.gguf"),
        ("b/M-Q2_K.gguf", "b/M-Q2_K.gguf"),
    ],
)
def test_a_selector_finds_its_file(selector: str, file: str) -> None:
    assert one(selector, OFFERED, "a/M").files == (file,)


def test_an_ambiguous_selector_lists_the_candidates() -> None:
    for selector in ("Q5_K", "Q2_K", "M-Q2_K.gguf"):
        with pytest.raises(UsageError, match="ambiguous") as caught:
            one(selector, OFFERED, "a/M")
        assert caught.value.hint.count("a/M:") == 2


def test_a_selector_that_means_nothing_gets_near_misses() -> None:
    with pytest.raises(NotFound) as caught:
        one("Q4_K_L", OFFERED, "a/M")
    assert "did you mean" in caught.value.hint and "Q4_K_M" in caught.value.hint


def test_the_best_that_fits_is_taken() -> None:
    sizes = {"M-F16.gguf": 160, "M-Q8_0.gguf": 80, "M-Q4_K_M.gguf": 48, "M-Q2_K.gguf": 30}
    offered = variants(sizes)
    taken = {budget: best(offered, sizes, budget)[0].quant for budget in (None, 1000, 79, 40, 10)}
    assert taken == {None: "Q4_K_M", 1000: "Q8_0", 79: "Q4_K_M", 40: "Q2_K", 10: "Q2_K"}
    assert best(variants(["M-F16.gguf"]), sizes, None)[0].quant == "F16"

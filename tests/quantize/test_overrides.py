"""What the user types for `--tensor-type` and `--prune-layers`."""

from __future__ import annotations

import pytest

from llamacli.errors import UsageError
from llamacli.formats.tensor_types import MXFP4, Q4_K, Q8_0
from llamacli.quantize.overrides import Overrides, parse_tensor_type, parse_tensor_types, type_named
from llamacli.quantize.prune import blocks_left, parse_layers, prune_layers


def test_a_pattern_is_read_in_lower_case_up_to_the_first_equals_sign() -> None:
    assert parse_tensor_type("Attn_V=q8_0") == ("attn_v", Q8_0)
    assert parse_tensor_type(r"blk\.[0-3]\.=MXFP4") == (r"blk\.[0-3]\.", MXFP4)


@pytest.mark.parametrize("text", ["attn_v", "=q8_0", "attn_v=", "attn_v=q9_0", "attn_v=i8", "attn_v=q8_k", "(=q8_0"])
def test_a_malformed_pattern_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tensor_type(text)


def test_a_file_of_patterns_may_use_blanks_and_lines() -> None:
    assert parse_tensor_types("attn_v=q8_0  ffn=q4_K\n\n") == (("attn_v", Q8_0), ("ffn", Q4_K))


def test_an_unknown_type_names_its_neighbour() -> None:
    with pytest.raises(UsageError) as caught:
        type_named("q4_k_m")
    assert "Q4_K" in caught.value.hint.split("?")[0]


def test_patterns_that_find_nothing_are_known() -> None:
    overrides = Overrides((("attn_v", Q8_0), ("atn_k", Q8_0)))
    assert overrides.unused(["blk.0.attn_v.weight"]) == ["atn_k"]


def test_layers_left_move_up() -> None:
    names = ["output.weight", "blk.0.a.weight", "blk.1.a.weight", "blk.2.a.weight", "blk.10.a.weight"]
    assert prune_layers(names, [1]) == {
        "output.weight": "output.weight",
        "blk.0.a.weight": "blk.0.a.weight",
        "blk.1.a.weight": None,
        "blk.2.a.weight": "blk.1.a.weight",
        "blk.10.a.weight": "blk.9.a.weight",
    }
    assert blocks_left(4, [1, 1]) == 3


def test_both_sides_of_an_encoder_decoder_lose_the_same_layer() -> None:
    names = [f"{side}.blk.{block}.a.weight" for side in ("enc", "dec") for block in range(11)]
    renamed = prune_layers(names, [1])
    assert renamed["enc.blk.1.a.weight"] is renamed["dec.blk.1.a.weight"] is None
    assert renamed["dec.blk.10.a.weight"] == "dec.blk.9.a.weight"
    assert renamed["enc.blk.2.a.weight"] == "enc.blk.1.a.weight"


def test_pruning_nothing_changes_nothing() -> None:
    names = ["blk.3.a.weight", "output.weight"]
    assert prune_layers(iter(names), []) == {name: name for name in names}


@pytest.mark.parametrize("layers", [[2], [0, 1], [-1]])
def test_layers_that_are_not_there_and_all_layers_are_refused(layers: list[int]) -> None:
    with pytest.raises(UsageError):
        prune_layers(["blk.0.a.weight", "blk.1.a.weight"], layers)


def test_layers_are_read_from_a_list() -> None:
    assert parse_layers("3, 7,3") == {3, 7}
    for text in ("", "a", "1,-2", "1-3"):
        with pytest.raises(UsageError):
            parse_layers(text)

"""GGUF files that are well formed and that the engine would not take, as the source of `quantize`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import Result
from tiny_gguf import Model, tiny_model

from llamacli.formats.gguf_values import u32
from llamacli.formats.tensor_types import F16, I32


def too_fine_for_a_map(model: Model) -> Model:
    return replace(model.with_key("general.alignment", u32(8)), alignment=8)


def vectors_in_float16(model: Model) -> Model:
    return replace(model, tensors=[replace(t, type=F16) if len(t.shape) == 1 else t for t in model.tensors])


@pytest.mark.parametrize("made_odd", [too_fine_for_a_map, vectors_in_float16])
def test_it_becomes_one_that_the_engine_takes(
    made_odd: Callable[[Model], Model], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    odd = made_odd(tiny_model()).write(tmp_path / "odd.gguf")
    assert invoke("verify", odd).code == 9
    assert invoke("quantize", odd, tmp_path / "new.gguf", "-q", "F16").code == 0
    assert invoke("verify", tmp_path / "new.gguf").code == 0


def test_integers_are_not_called_quantized(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    odd = tiny_model().with_tensor("blk.0.attn_q.weight", type=I32).write(tmp_path / "odd.gguf")
    done = invoke("quantize", odd, tmp_path / "new.gguf", "-q", "Q8_0")
    assert done.code == 11 and "attn_q.weight is stored as I32" in done.err

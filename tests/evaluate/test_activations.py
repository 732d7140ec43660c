"""Activations against llama-imatrix's files, experts counted apart, partial results, and the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import MODELS, ROOT, SHARED, Result

from llamacli.evaluate.activations import Activations, gather
from llamacli.evaluate.windows import cut_text
from llamacli.quantize.importance_file import read_importance
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine

DATA = ROOT / "tests" / "data" / "evaluate"
TEXT = DATA / "text.txt"
ONE_THREAD = EngineSettings(threads=1, gpu_layers=0)
Converted = Callable[..., Path]
Invoke = Callable[..., Result]


def compare(model: Path, peer: Path) -> None:
    expected = read_importance(peer)
    with open_engine(model, ONE_THREAD) as engine:
        found = gather(engine, cut_text(engine, TEXT.read_text(), 128, 6))
    assert found.windows == expected.chunks == 6
    assert found.sums.keys() == expected.entries.keys()
    for name, sums in found.sums.items():
        entry = expected.entries[name]
        assert sums.tokens.tolist() == entry.counts.tolist(), name
        assert sums.squares.reshape(-1) == pytest.approx(entry.sums, rel=1e-3), name


def test_activations_are_those_of_llama_imatrix(converted: Converted) -> None:
    compare(converted("tinystories-656k-bf16", "F32"), DATA / "tinystories-656k.imatrix.gguf")


@pytest.mark.skipif(not (SHARED / "families" / "mixtral").is_dir(), reason="needs the fixtures of model families")
def test_each_expert_counts_its_own_tokens_as_llama_imatrix_does(invoke: Invoke, tmp_path: Path) -> None:
    model = tmp_path / "mixtral.gguf"
    assert invoke("quantize", SHARED / "families" / "mixtral", model, "-q", "F32", "-t", 1).code == 0
    compare(model, DATA / "mixtral.imatrix.gguf")
    counts = read_importance(DATA / "mixtral.imatrix.gguf").entries["blk.0.ffn_up_exps.weight"].counts
    assert len(set(counts.tolist())) > 1


def test_an_interrupted_run_goes_on_to_the_same_sums(converted: Converted) -> None:
    with open_engine(converted("tinystories-656k-bf16", "F32"), ONE_THREAD) as engine:
        cut = cut_text(engine, TEXT.read_text(), 64, 4)
        whole = gather(engine, cut)
        begun = Activations()

        def stop(found: Activations) -> None:
            if found.windows == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            gather(engine, cut, begun=begun, each=stop)
        assert begun.windows == 2
        gather(engine, cut, begun=begun)
    assert begun.windows == whole.windows == 4
    for name, sums in whole.sums.items():
        assert np.array_equal(begun.sums[name].squares, sums.squares)
        assert np.array_equal(begun.sums[name].tokens, sums.tokens)


def test_the_head_is_gathered_on_request(converted: Converted) -> None:
    with open_engine(converted("tinystories-656k-wide256", "F32"), ONE_THREAD) as engine:
        cut = cut_text(engine, TEXT.read_text(), 64, 2)
        plain, more = gather(engine, cut), gather(engine, cut, head=True)
    assert more.sums.keys() - plain.sums.keys() == {"output.weight"}
    assert more.sums["output.weight"].tokens.tolist() == [128]


def test_measuring_attends_as_llama_imatrix_does_where_answers_do_otherwise(converted: Converted) -> None:
    sums = {}
    for attention in ("auto", "on", "off"):
        how = replace(ONE_THREAD, flash_attn=attention)
        with open_engine(converted("tinystories-656k-wide256", "F32"), how) as engine:
            if attention == "auto":
                engine.settings = replace(engine.settings, flash_attn="off")  # as on an x86 processor, for its speed
            sums[attention] = gather(engine, cut_text(engine, TEXT.read_text(), 64, 2)).sums
    name = "blk.1.ffn_down.weight"
    assert np.array_equal(sums["auto"][name].squares, sums["on"][name].squares)
    assert not np.array_equal(sums["auto"][name].squares, sums["off"][name].squares)


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_the_command_writes_a_matrix_that_quantize_takes(
    invoke: Invoke, converted: Converted, tmp_path: Path, form: str
) -> None:
    model, matrix = converted("tinystories-656k-wide256", "F32"), tmp_path / f"m.{form}"
    made = invoke("imatrix", model, TEXT, "-o", matrix, "--form", form, "-c", 64, "--chunks", 3, "-t", 1)
    assert made.code == 0, made.err
    assert made.out.strip() == str(matrix)
    assert invoke("imatrix", model, TEXT, "-o", matrix, "-c", 64).code == 12
    done = invoke(
        "quantize", MODELS["tinystories-656k-wide256"], "out.gguf", "-q", "IQ3_XXS", "--imatrix", matrix, "-t", 1,
        "--kernel", "ggml",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert not list(tmp_path.glob("*.partial"))


def test_resuming_takes_up_only_what_is_of_the_same_model_and_text(
    invoke: Invoke, converted: Converted, tmp_path: Path
) -> None:
    from llamacli.quantize.importance_file import write_importance

    model, matrix = converted("tinystories-656k-bf16", "F32"), tmp_path / "m.gguf"
    arguments = ("imatrix", model, TEXT, "-o", matrix, "-c", 64, "--chunks", 3, "-t", 1, "--resume", "--force")
    assert "nothing to resume" in invoke(*arguments).err
    whole = read_importance(matrix)
    write_importance(whole, matrix.with_name("m.gguf.partial"))
    strange = invoke(*arguments)
    assert strange.code == 0 and "another model or text" in strange.err
    assert read_importance(matrix).chunks == 3


def test_a_checkpoint_is_calibrated_on_the_built_in_text(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke(
        "quantize", MODELS["tinystories-chat-2m"], "out.gguf", "-q", "IQ2_S", "--calibrate", "builtin", "-t", 1,
        "--kernel", "ggml", "--dry-run",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "temporary BF16 GGUF" in done.err
    assert "IQ2_S" in done.out
    assert list(tmp_path.glob(".llamacli-*")) == []

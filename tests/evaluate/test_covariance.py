"""How activations go together: against their squares, which llama-imatrix's files confirm, and through the command."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import MODELS, ROOT, SHARED, Result

from llamacli.errors import CannotWrite
from llamacli.evaluate.activations import gather
from llamacli.evaluate.covariance import Products
from llamacli.evaluate.windows import cut_text
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.products import WIDTH, Place
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine

TEXT = ROOT / "tests" / "data" / "evaluate" / "text.txt"
ONE_THREAD = EngineSettings(threads=1, gpu_layers=0)
Converted = Callable[..., Path]
Invoke = Callable[..., Result]


def windows_of(products: Products, name: str) -> list[NDArray[np.float32]]:
    data = products.path.read_bytes()
    windows = products.places[name].windows()
    return [
        np.frombuffer(data[one.offset : one.offset + one.size_bytes], np.float32).reshape(one.columns, one.columns)
        for one in windows
    ]


@pytest.mark.parametrize("columns", [32, 172, 256, 512, 544, 768, 896, 2048, 11008, 14336])
def test_windows_cover_all_columns_once(columns: int) -> None:
    windows = list(Place(64, columns).windows())
    assert windows[0].first == 0 and windows[0].offset == 64
    for one, following in itertools.pairwise(windows):
        assert following.first == one.first + one.columns and following.first % 32 == 0
        assert following.offset == one.offset + one.size_bytes
    assert windows[-1].first + windows[-1].columns == columns
    assert max(one.columns for one in windows) <= WIDTH and len(windows) == -(-columns // WIDTH)


@pytest.mark.parametrize("model", ["tinystories-656k-wide256", "stories260K-hf"])
def test_their_diagonal_is_the_squares_and_inputs_are_shared(converted: Converted, tmp_path: Path, model: str) -> None:
    products = Products(tmp_path / "products")
    with open_engine(converted(model, "F32"), ONE_THREAD) as engine:
        text = cut_text(engine, TEXT.read_text(), 64, 3)
        found = gather(engine, text, head=True, products=products)
    assert products.places.keys() == found.sums.keys()
    for name, sums in found.sums.items():
        place, windows = products.places[name], windows_of(products, name)
        assert [place.tokens] == sums.tokens.tolist()
        assert place.columns == sums.squares.shape[1]
        diagonal = np.concatenate([np.diagonal(window) for window in windows])
        assert diagonal == pytest.approx(sums.squares[0], rel=1e-4, abs=1e-6)
        assert all(np.array_equal(window, window.T) for window in windows)
    places = products.places
    q, k, v, out = (places[f"blk.1.{part}.weight"] for part in ("attn_q", "attn_k", "attn_v", "attn_output"))
    assert q == k == v != out
    assert places["blk.1.ffn_up.weight"] == places["blk.1.ffn_gate.weight"] != places["blk.1.ffn_down.weight"]
    assert products.path.stat().st_size == max(place.end for place in places.values())


@pytest.mark.skipif(not (SHARED / "families" / "mixtral").is_dir(), reason="needs the fixtures of model families")
def test_experts_are_left_out(invoke: Invoke, tmp_path: Path) -> None:
    model, products = tmp_path / "mixtral.gguf", Products(tmp_path / "products")
    assert invoke("quantize", SHARED / "families" / "mixtral", model, "-q", "F32", "-t", 1).code == 0
    with open_engine(model, ONE_THREAD) as engine:
        found = gather(engine, cut_text(engine, TEXT.read_text(), 64, 1), products=products)
    assert {name for name in found.sums if "_exps" not in name} == products.places.keys() != found.sums.keys()


def test_the_command_makes_a_better_file_of_the_same_size(invoke: Invoke, tmp_path: Path) -> None:
    model, divergence = MODELS["tinystories-chat-2m"], {}
    for search in ("usual", "thorough"):
        done = invoke(
            "quantize", model, f"{search}.gguf", "-q", "Q3_K_S", "--calibrate", TEXT, "--search", search, "-t", 1,
            "--check", "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        divergence[search] = done.json["outputs"][0]["check"]["divergence"]["mean"]["value"]
    assert divergence["thorough"] < 0.95 * divergence["usual"]
    usual, thorough = (read_gguf(tmp_path / f"{search}.gguf") for search in ("usual", "thorough"))
    assert thorough.get("llamacli.search") == "thorough" and usual.get("llamacli.search") is None
    assert [(t.name, t.shape) for t in usual.tensors] == [(t.name, t.shape) for t in thorough.tensors]
    assert not list(tmp_path.glob(".llamacli-*"))


@pytest.mark.parametrize(("kernel", "search"), [("auto", "thorough"), ("ggml", None)])
def test_a_text_is_used_for_all_that_it_says_but_not_beside_ggmls_bytes(
    invoke: Invoke, tmp_path: Path, kernel: str, search: str | None
) -> None:
    how = ("-q", "Q4_0", "--calibrate", TEXT, "--kernel", kernel, "-t", 1)
    done = invoke("quantize", MODELS["tinystories-chat-2m"], "out.gguf", *how)
    assert done.code == 0, done.err
    assert read_gguf(tmp_path / "out.gguf").get("llamacli.search") == search


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_a_line() -> None:
    with pytest.raises(CannotWrite, match="the disk is full"):
        Products(Path("/dev/full")).add("blk.0.attn_q.weight", 1, np.ones((4, WIDTH), np.float32))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--search", "thorough"), "add --calibrate TEXT"),
        (("--search", "thorough", "--imatrix", "m.gguf"), "add --calibrate TEXT"),
        (("--search", "thorough", "--calibrate", TEXT, "--kernel", "ggml"), "--kernel ggml writes what"),
        (("--search", "hard"), "auto, usual, thorough"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_is_read(
    invoke: Invoke, tmp_path: Path, arguments: tuple[object, ...], told: str
) -> None:
    done = invoke("quantize", MODELS["tinystories-chat-2m"], "out.gguf", "-q", "Q4_K_M", *arguments)
    assert done.code == 2 and told in done.err, done.err
    assert not list(tmp_path.iterdir())

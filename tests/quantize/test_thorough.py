"""The thorough search: errors as gguf's code restores them, counted with the activations' second moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from support import MODELS

from llamacli.formats.dtypes import widen
from llamacli.formats.products import WIDTH, Place
from llamacli.formats.rows import Arena
from llamacli.formats.tensor_types import BY_NAME
from llamacli.quantize.covariance import Covariance
from llamacli.quantize.damage import measure_errors
from llamacli.quantize.grids import GRIDS
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import Model, open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize
from llamacli.quantize.thorough import DAMPING, Thorough

NAME = "blk.0.ffn_up.weight"
TOKENS = 700


def activations(columns: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows as models have them: a few directions hold most of the size."""
    draw = np.random.default_rng(seed)
    mixed = draw.normal(size=(TOKENS, 24)) @ draw.normal(size=(24, columns)) + 0.4 * draw.normal(size=(TOKENS, columns))
    return (mixed * np.exp(draw.normal(0, 0.5, columns))).astype(np.float32)


def gathered(path: Path, inputs: dict[str, NDArray[np.float32]]) -> Covariance:
    """The sums of products of these inputs, by tensor name."""
    places = {}
    with path.open("wb") as file:
        for name, rows in inputs.items():
            places[name] = Place(file.tell(), rows.shape[1], rows.shape[0])
            for part in cut(rows):
                file.write((part.T @ part).tobytes())
    return Covariance(path, places)


def cut(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """The columns of every window."""
    windows = Place(0, rows.shape[1]).windows()
    return [rows[:, window.first : window.first + window.columns] for window in windows]


def window_errors(errors: NDArray[Any], inputs: NDArray[Any]) -> NDArray[np.float64]:
    """(windows, rows): e'Ce of every window of every row, with the damping that the search counts with."""
    found = []
    for x, e in zip(cut(inputs.astype(np.float64)), cut(errors), strict=True):
        moments = x.T @ x / len(x)
        moments += DAMPING * np.trace(moments) / len(moments) * np.eye(len(moments))
        found.append(np.einsum("ri,ij,rj->r", e, moments, e))
    return np.array(found)


def restored(name: str, blocks: NDArray[Any]) -> NDArray[np.float64]:
    return gguf.dequantize(blocks, gguf.GGMLQuantizationType[name]).astype(np.float64)


@pytest.mark.parametrize("stored", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", sorted(GRIDS))
def test_no_window_of_a_row_gets_worse_and_most_get_much_better(tmp_path: Path, name: str, stored: str) -> None:
    kind, columns = BY_NAME[name], 768 if BY_NAME[name].block_size > 32 else 608
    assert columns > WIDTH  # two windows
    inputs = activations(columns)
    weights = np.random.default_rng(1).standard_t(5, (37, columns)).astype(np.float32) * np.float32(0.02)
    weights[5] = 0
    rows: NDArray[Any] = weights
    if stored == "bf16":
        rows = (weights.view(np.uint32) >> 16).astype(np.uint16)
        weights = (rows.astype(np.uint32) << 16).view(np.float32)
    elif stored == "f16":
        rows = weights.astype(np.float16)
        weights = rows.astype(np.float32)
    importance = np.square(inputs).mean(0)
    before = np.zeros((37, kind.row_bytes(columns)), np.uint8)
    kernel_named("fast").quantize(kind, rows, before.reshape(-1), importance)
    after, at_once = before.copy(), before.copy()
    search = Thorough(gathered(tmp_path / "sums", {NAME: inputs}))
    assert search.improves(NAME, kind)
    search.improve(NAME, kind, rows, at_once.reshape(-1))
    for start, stop in ((0, 1), (1, 19), (19, 37)):
        search.improve(NAME, kind, rows[start:stop], after[start:stop].reshape(-1))
    assert np.array_equal(after, at_once)  # wherever rows are cut into blocks

    old, new = (window_errors(weights - restored(name, blocks), inputs) for blocks in (before, after))
    assert (new <= old * (1 + 1e-4) + 1e-9).all()
    assert new.sum() < 0.8 * old.sum()
    grid = GRIDS[name]
    scales = [grid.scales(blocks.reshape(-1, kind.block_bytes)) for blocks in (before, after)]
    assert all(np.array_equal(a, b) for a, b in zip(*scales, strict=True))


def test_what_is_not_known_stays_as_it_is(tmp_path: Path) -> None:
    unseen = np.zeros((TOKENS, 1024), np.float32)
    unseen[:, 600:] = activations(1024)[:, 600:]
    search = Thorough(gathered(tmp_path / "sums", {NAME: unseen}))
    kind = BY_NAME["Q4_K"]
    assert not search.improves("blk.0.ffn_down.weight", kind)
    assert not search.improves(NAME, BY_NAME["IQ3_S"]) and not search.improves(NAME, BY_NAME["Q8_0"])
    rows = np.random.default_rng(1).normal(size=(8, 1024)).astype(np.float32)
    before = np.zeros((8, 4, kind.block_bytes), np.uint8)
    kernel_named("fast").quantize(kind, rows, before.reshape(-1))
    after = before.copy()
    search.improve(NAME, kind, rows, after.reshape(-1))
    assert np.array_equal(after[:, :2], before[:, :2])  # nothing flows through these columns
    assert not np.array_equal(after[:, 2:], before[:, 2:])


def test_types_are_judged_by_what_the_search_makes_of_them(tmp_path: Path) -> None:
    tensors = open_model(MODELS["tinystories-chat-2m"]).tensors
    rows = np.ascontiguousarray(tensors[NAME].read(0, tensors[NAME].shape[0], Arena()))
    inputs, weights = activations(rows.shape[1]), widen(rows).astype(np.float64)
    search = Thorough(gathered(tmp_path / "sums", {NAME: inputs}))
    kinds = [BY_NAME["Q4_K"], BY_NAME["IQ3_S"]]
    found = measure_errors(tensors, {NAME: kinds}, kernel_named("fast"), thorough=search)[NAME]
    for kind in kinds:
        blocks = np.zeros((len(rows), kind.row_bytes(rows.shape[1])), np.uint8)
        kernel_named("fast").quantize(kind, rows, blocks.reshape(-1))
        if kind.name == "Q4_K":
            search.improve(NAME, kind, rows, blocks.reshape(-1))
        noise = window_errors(weights - restored(kind.name, blocks), inputs).sum()
        assert found[kind] == pytest.approx(noise / window_errors(weights, inputs).sum(), rel=1e-3)


def files(folder: Path, model: Model, covariance: Covariance, threads: int) -> dict[str, bytes]:
    """One file of each type, made in one reading."""
    options = PlanOptions(covariance=covariance)
    kinds = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K", "IQ4_XS", "Q4_0", "Q5_1")
    outputs = [Output(make_plan(model, recipe_named(kind), options), folder / f"{kind}.gguf") for kind in kinds]
    quantize(model, outputs, kernel_named("fast"), threads=threads, force=True)
    return {output.target.name: output.target.read_bytes() for output in outputs}


def test_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    model = open_model(MODELS["tinystories-chat-2m"])
    inputs = {
        name: activations(rows.shape[-1], seed)
        for seed, (name, rows) in enumerate(model.tensors.items())
        if len(rows.shape) == 2 and not name.startswith("token_embd")
    }
    covariance = gathered(tmp_path / "sums", inputs)
    found = [files(tmp_path, model, covariance, threads) for threads in (1, 2, 8)]
    assert found[0] == found[1] == found[2]
    assert gguf.GGUFReader(tmp_path / "Q4_K_M.gguf").fields["llamacli.search"].contents() == "thorough"

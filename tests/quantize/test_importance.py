"""Importance matrices against files that llama-imatrix wrote."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacli.errors import CannotWrite, CorruptFile, LlamacliError, NotFound, UsageError
from llamacli.formats.gguf_values import string, u32
from llamacli.quantize.choose import choose_types, require_matrix
from llamacli.quantize.importance import Entry, ImportanceMatrix, combine
from llamacli.quantize.importance_file import read_importance, write_importance
from llamacli.quantize.place import Model
from llamacli.quantize.prune import prune_layers
from llamacli.quantize.recipes import RECIPES
from llamacli.quantize.roles import Shape

DATA = Path(__file__).parent.parent / "data" / "importance"
GATE = "blk.0.ffn_gate_exps.weight"


@pytest.mark.parametrize("name", ["one", "experts"])
def test_sums_and_counts_are_those_that_the_gguf_package_reads(name: str) -> None:
    matrix = read_importance(DATA / f"{name}.gguf")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(DATA / f"{name}.gguf").tensors}
    assert {f"{entry}.{kind}" for entry in matrix.entries for kind in ("in_sum2", "counts")} == tensors.keys()
    for entry, values in matrix.entries.items():
        assert np.array_equal(values.sums, tensors[f"{entry}.in_sum2"].reshape(-1))
        assert np.array_equal(values.counts, tensors[f"{entry}.counts"].reshape(-1))
    assert matrix.chunk_size == 128
    assert matrix.datasets == ("text.txt",)


@pytest.mark.parametrize("form", ["gguf", "dat"])
@pytest.mark.parametrize("name", ["one", "both", "experts"])
def test_what_is_written_is_byte_for_byte_what_llama_imatrix_writes(name: str, form: str, tmp_path: Path) -> None:
    matrix = read_importance(DATA / f"{name}.gguf")
    write_importance(matrix, tmp_path / "out", "gguf" if form == "gguf" else "dat")
    assert (tmp_path / "out").read_bytes() == (DATA / f"{name}.{form}").read_bytes()


def test_two_matrices_combine_to_the_bytes_that_llama_imatrix_writes(tmp_path: Path) -> None:
    write_importance(
        combine([read_importance(DATA / "one.gguf"), read_importance(DATA / "two.gguf")]), tmp_path / "out"
    )
    assert (tmp_path / "out").read_bytes() == (DATA / "both.gguf").read_bytes()


def test_an_old_matrix_combines_with_a_new_one_as_llama_imatrix_does(tmp_path: Path) -> None:
    parts = [read_importance(DATA / "one.gguf"), read_importance(DATA / "with-head.dat")]
    write_importance(combine(parts), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (DATA / "one-and-with-head.gguf").read_bytes()


@pytest.mark.parametrize("name", ["one", "experts"])
def test_both_formats_give_the_same_weights(name: str) -> None:
    new, old = read_importance(DATA / f"{name}.gguf"), read_importance(DATA / f"{name}.dat")
    shapes = [
        Shape(entry, (values.sums.size // values.counts.size, 8, values.counts.size))
        for entry, values in new.entries.items()
    ]
    fitted, old_fitted = new.fit(shapes), old.fit(shapes)
    for shape in shapes:
        for expert in range(shape.shape[2]):
            weights = fitted.weights_for(shape.name, expert)
            assert weights is not None and weights.shape == (shape.columns,) and weights.dtype == np.float32
            np.testing.assert_allclose(weights, old_fitted.weights_for(shape.name, expert), rtol=3e-7)


def test_each_expert_has_weights_of_its_own() -> None:
    entry = Entry(np.arange(8, dtype=np.float32), np.array([2, 0], np.int64))
    fitted = ImportanceMatrix({GATE: entry}).fit([Shape(GATE, (4, 3, 2))])
    assert np.array_equal(fitted.weights_for(GATE, 0), np.array([0, 0.5, 1, 1.5], np.float32))
    assert np.array_equal(fitted.weights_for(GATE, 1), np.ones(4, np.float32))
    assert fitted.weights_for("blk.0.attn_q.weight") is None


def test_one_count_serves_all_matrices_of_a_dense_stack() -> None:
    entry = Entry(np.arange(8, dtype=np.float32), np.array([2], np.int64))
    fitted = ImportanceMatrix({GATE: entry}).fit([Shape(GATE, (4, 3, 2))])
    assert np.array_equal(fitted.weights_for(GATE, 1), np.array([2, 2.5, 3, 3.5], np.float32))


def test_a_matrix_of_another_model_is_refused_with_the_tensor_and_both_sizes() -> None:
    matrix = read_importance(DATA / "one.gguf")
    with pytest.raises(UsageError, match=r"has 256 values for blk\.0\.attn_q\.weight, which needs 512"):
        matrix.fit([Shape("blk.0.attn_q.weight", (512, 4))])
    with pytest.raises(UsageError, match="names no tensor of this model"):
        matrix.fit([Shape("output.weight", (256, 4))])


def test_embeddings_of_another_size_are_ignored() -> None:
    wrong = Entry(np.ones(4, np.float32), np.array([1], np.int64))
    matrix = ImportanceMatrix({"token_embd.weight": wrong, "blk.0.attn_q.weight": wrong})
    fitted = matrix.fit([Shape("token_embd.weight", (8, 4)), Shape("blk.0.attn_q.weight", (4, 4))])
    assert fitted.weights_for("token_embd.weight") is None


def test_entries_are_chosen_by_parts_of_their_names() -> None:
    matrix = read_importance(DATA / "one.gguf")
    assert all("ffn" in name for name in matrix.only(include=["ffn_up", "ffn_down"]).entries)
    assert len(matrix.only(include=["ffn_up", "ffn_down"]).entries) == 4
    assert not any("attn" in name for name in matrix.only(exclude=["attn"]).entries)
    with pytest.raises(UsageError, match="contradict"):
        matrix.only(["ffn"], ["attn"])
    with pytest.raises(UsageError, match="'atn'"):
        matrix.only(exclude=["atn"])


def test_entries_follow_their_tensors_when_layers_are_pruned() -> None:
    matrix = read_importance(DATA / "one.gguf")
    pruned = matrix.renamed(prune_layers(["output.weight", *matrix.entries], [0]))
    assert pruned.entries["blk.0.attn_q.weight"] is matrix.entries["blk.1.attn_q.weight"]
    assert len(pruned.entries) == len(matrix.entries) // 2


def test_the_quantized_model_cites_its_matrix_as_llama_quantize_does() -> None:
    matrix = replace(read_importance(DATA / "one.gguf"), origin="one.gguf").only(exclude=["attn_v"])
    assert matrix.fit([Shape("blk.0.attn_q.weight", (256, 4))]).metadata() == {
        "quantize.imatrix.file": string("one.gguf"),
        "quantize.imatrix.dataset": string("text.txt"),
        "quantize.imatrix.entries_count": u32(12),
        "quantize.imatrix.chunks_count": u32(20),
    }


def test_a_matrix_that_lacks_a_tensor_does_not_do_for_a_type_that_needs_it() -> None:
    shapes = [Shape(f"blk.0.{kind}.weight", (256, 4)) for kind in ("attn_q", "attn_k")]
    choices = choose_types(shapes, Model("llama", 1, 4, 4), RECIPES["IQ2_XS"], has_imatrix=True)
    matrix = read_importance(DATA / "one.gguf")
    require_matrix(choices, RECIPES["IQ2_XS"], True, known=matrix.fit(shapes).known)
    with pytest.raises(UsageError, match=r"says nothing of blk\.0\.attn_q\.weight"):
        require_matrix(choices, RECIPES["IQ2_XS"], True, known=matrix.only(exclude=["attn_q"]).fit(shapes).known)


def test_matrices_of_two_models_do_not_combine() -> None:
    first = ImportanceMatrix({GATE: Entry(np.ones(4, np.float32), np.array([1], np.int64))}, chunk_size=1)
    second = ImportanceMatrix({GATE: Entry(np.ones(8, np.float32), np.array([1], np.int64))}, chunk_size=1)
    with pytest.raises(UsageError, match=r"4 and 8 values for blk\.0"):
        combine([first, second])


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    matrix = read_importance(DATA / "one.gguf")
    (tmp_path / "out").write_text("precious")
    with pytest.raises(CannotWrite):
        write_importance(matrix, tmp_path / "out")
    write_importance(matrix, tmp_path / "out", force=True)
    assert read_importance(tmp_path / "out").chunks == 20


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_importance(tmp_path / "absent")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("To be, or not to be, that is the question. " * 9)
    for name in ("empty", "text"):
        with pytest.raises(CorruptFile):
            read_importance(tmp_path / name)
    writer = gguf.GGUFWriter(tmp_path / "model", "llama")
    writer.add_tensor("output.weight", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CorruptFile, match="no importance matrix"):
        read_importance(tmp_path / "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_values_that_no_activation_gives_are_refused(value: float, tmp_path: Path) -> None:
    entry = struct.pack("<i4sii2f", 4, b"name", 1, 2, 1.0, value)
    (tmp_path / "bad.dat").write_bytes(struct.pack("<i", 1) + entry)
    with pytest.raises(CorruptFile, match="name"):
        read_importance(tmp_path / "bad.dat")


def test_the_end_of_an_old_file_may_be_missing(tmp_path: Path) -> None:
    entry = struct.pack("<i4sii2f", 4, b"name", 0, 2, 1.0, 3.0)
    (tmp_path / "short.dat").write_bytes(struct.pack("<i", 1) + entry)
    matrix = read_importance(tmp_path / "short.dat")
    assert (matrix.chunks, matrix.datasets) == (0, ())
    assert np.array_equal(matrix.entries["name"].mean_squares(0, 2), np.array([1, 3], np.float32))


@given(st.sampled_from(["one.gguf", "experts.gguf", "one.dat", "experts.dat"]), st.data())
def test_a_cut_or_garbled_file_gives_a_matrix_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    raw = bytearray((DATA / name).read_bytes())
    cut = data.draw(st.integers(0, len(raw)))
    for place in data.draw(st.lists(st.integers(0, min(len(raw) - 1, 3000)), max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "garbled"
    path.write_bytes(raw[:cut] if data.draw(st.booleans()) else raw)
    try:
        matrix = read_importance(path)
    except LlamacliError:
        return
    assert all(np.isfinite(entry.sums).all() for entry in matrix.entries.values())

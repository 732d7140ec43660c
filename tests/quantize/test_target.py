"""Types chosen for a size: measured errors, exact bytes, what the user settled, and the optimum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from support import MODELS

from llamacli.errors import UsageError
from llamacli.formats.rows import InMemory, read_all
from llamacli.formats.tensor_types import BF16, IQ2_S, IQ3_S, Q2_K, Q3_K, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0, TensorType
from llamacli.quantize.damage import measure_errors, restored_tensor, sampled_weights
from llamacli.quantize.importance import Entry, ImportanceMatrix
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import Model, open_model
from llamacli.quantize.overrides import Overrides
from llamacli.quantize.plan import PlanOptions
from llamacli.quantize.roles import Shape
from llamacli.quantize.run import Output, quantize
from llamacli.quantize.target import (
    candidate_types,
    candidates_for,
    estimated_sensitivity,
    open_tensors,
    plan_for_damage,
    plan_for_size,
    probe_type,
)

NAME = "blk.0.ffn_down.weight"
GGML = kernel_named("ggml")


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(MODELS["tinystories-chat-2m"])


@pytest.fixture(scope="module")
def errors(model: Model) -> dict[str, dict[TensorType, float]]:
    candidates = candidates_for(model, open_tensors(model, PlanOptions()), 4.5, PlanOptions())
    return measure_errors(model.tensors, candidates, GGML, sample=1 << 16)


def by_hand(values: np.ndarray, kind: TensorType, weights: np.ndarray) -> float:
    """The error as numpy and the gguf package compute it."""
    columns = values.shape[1]
    out = np.empty(values.shape[0] * kind.row_bytes(columns), np.uint8)
    GGML.quantize(kind, values, out, None if (weights == 1).all() else weights.astype(np.float32))
    back = gguf.dequantize(out.reshape(values.shape[0], -1), gguf.GGMLQuantizationType(kind.id))
    return float((weights * (back - values) ** 2).sum() / (weights * values**2).sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_are_those_that_the_gguf_package_sees(model: Model, weighted: bool) -> None:
    values = read_all(model.tensors[NAME])
    weights = np.ones(values.shape[1])
    importance = None
    if weighted:
        weights = np.random.default_rng(1).exponential(1.0, values.shape[1]).astype(np.float32)
        matrix = ImportanceMatrix({NAME: Entry(weights * 4, np.array([4], np.int64))}, chunk_size=4)
        importance = matrix.fit([Shape(NAME, tuple(reversed(values.shape)))])
    kinds = (Q2_K, Q4_K, Q8_0)
    found = measure_errors(model.tensors, {NAME: kinds}, GGML, importance, threads=2)[NAME]
    assert list(found) == list(kinds)
    for kind in kinds:
        assert found[kind] == pytest.approx(by_hand(values, kind, weights), rel=1e-4)
    assert found[Q2_K] > 5 * found[Q4_K] > 50 * found[Q8_0]


def test_a_sample_of_rows_tells_nearly_the_same_and_always_the_same() -> None:
    random = np.random.default_rng(0)
    rows = {"w": InMemory(random.standard_t(6, (6, 512, 512)).astype(np.float32))}
    whole = measure_errors(rows, {"w": (Q4_K,)}, GGML, sample=1 << 62)["w"][Q4_K]
    part = measure_errors(rows, {"w": (Q4_K,)}, GGML, sample=1 << 18, threads=2)["w"][Q4_K]
    assert part == measure_errors(rows, {"w": (Q4_K,)}, GGML, sample=1 << 18)["w"][Q4_K]
    assert part == pytest.approx(whole, rel=0.05)
    assert sampled_weights(rows, ["w"], 1 << 18) == 1 << 18
    assert sampled_weights(rows, ["w"], 1 << 62) == 6 * 512 * 512


def test_a_tensor_comes_back_from_a_type_as_it_would_from_a_file(model: Model) -> None:
    values = read_all(model.tensors[NAME])
    parts = list(restored_tensor(NAME, model.tensors[NAME], Q4_K, BF16, GGML, None))
    bits = np.concatenate([part.values for part in parts]).astype(np.uint32) << 16
    error = ((bits.view(np.float32) - values) ** 2).sum() / (values**2).sum()
    assert error == pytest.approx(by_hand(values, Q4_K, np.ones(values.shape[1])), rel=0.05)
    assert parts[0].start == 0


@pytest.mark.parametrize("bits", [4.6, 5.0, 6.0, 7.0])
def test_the_file_is_as_planned_and_just_below_the_size(
    model: Model, errors: dict[str, dict[TensorType, float]], tmp_path: Path, bits: float
) -> None:
    size = int(bits * model.weights / 8)
    sensitivity = estimated_sensitivity(model, list(errors))
    found = plan_for_size(model, PlanOptions(), size, errors, sensitivity, name="LQ")
    quantize(model, [Output(found.plan, tmp_path / "out.gguf")], GGML, threads=1)
    written = (tmp_path / "out.gguf").stat().st_size
    assert written == found.plan.size_bytes
    assert 0.995 * size < written <= size
    spent = {tensor.name: tensor.type for tensor in found.plan.tensors}
    damage = sum(sensitivity[name] * errors[name][spent[name]] for name in errors)
    assert found.damage == pytest.approx(damage)


def test_nothing_better_is_as_small(model: Model, errors: dict[str, dict[TensorType, float]]) -> None:
    sensitivity = estimated_sensitivity(model, list(errors))
    sizes = [int(bits * model.weights / 8) for bits in (4.6, 4.8, 5.2, 6.0)]
    plans = [plan_for_size(model, PlanOptions(), size, errors, sensitivity, name="LQ") for size in sizes]
    assert [plan.damage for plan in plans] == sorted((plan.damage for plan in plans), reverse=True)
    small, large = plans[0].plan, plans[-1].plan
    assert small.bits_per_weight < large.bits_per_weight
    with pytest.raises(UsageError):
        plan_for_size(model, PlanOptions(), 100_000, errors, sensitivity, name="LQ")


def test_what_the_user_settled_stays(model: Model) -> None:
    settled = PlanOptions(
        overrides=Overrides(tensor_types=(("attn_v", Q8_0),), output=Q6_K),
        prune=frozenset({1}),
        split_max_bytes=500_000,
    )
    names = open_tensors(model, settled)
    assert names and not any("attn_v" in name or name == "output.weight" or ".1." in name for name in names)
    errors = measure_errors(model.tensors, candidates_for(model, names, 4.5, settled), GGML, sample=1 << 14)
    size = 1_300_000
    found = plan_for_size(model, settled, size, errors, estimated_sensitivity(model, names), name="LQ")
    types = {tensor.name: tensor.type for tensor in found.plan.tensors}
    assert types["blk.0.attn_v.weight"] is Q8_0
    assert len(found.plan.parts) > 1 and found.plan.size_bytes <= size
    with pytest.raises(UsageError, match="--pure"):
        open_tensors(model, replace(settled, overrides=Overrides(pure=True)))


def test_a_divergence_is_met_by_the_smallest_file(model: Model, errors: dict[str, dict[TensorType, float]]) -> None:
    sensitivity = estimated_sensitivity(model, list(errors))
    most = 0.03
    found = plan_for_damage(model, PlanOptions(), most, errors, sensitivity, name="LQ")
    assert found.damage <= most
    size = found.plan.size_bytes * 995 // 1000
    assert plan_for_size(model, PlanOptions(), size, errors, sensitivity, name="LQ").damage > most
    with pytest.raises(UsageError):
        plan_for_damage(model, PlanOptions(), 1e-12, errors, sensitivity, name="LQ")


def test_a_file_says_the_type_of_most_of_its_weights(model: Model, errors: dict[str, dict[TensorType, float]]) -> None:
    sensitivity = estimated_sensitivity(model, list(errors))
    found = plan_for_size(model, PlanOptions(), 1 << 40, errors, sensitivity, name="LQ")
    assert found.plan.metadata["general.file_type"].value == 7  # Q8_0
    assert {tensor.type for tensor in found.plan.tensors if tensor.name in errors} == {Q8_0}


def test_candidates_decode_fast_unless_bits_are_few() -> None:
    assert IQ3_S not in candidate_types(256, 4.5, weighted=True)
    assert IQ3_S in candidate_types(256, 3.5)
    assert IQ2_S not in candidate_types(256, 3.0)
    assert IQ2_S in candidate_types(256, 3.0, weighted=True)
    assert BF16 in candidate_types(256, 9.0)
    narrow = candidate_types(288, 4.5)
    assert Q5_0 in narrow and Q4_K not in narrow
    assert candidate_types(172, 4.5) == (BF16,)
    assert probe_type((Q2_K, Q3_K, Q4_K, Q5_K, Q8_0), 4.6) is Q4_K

"""The same command gives the same bytes on any number of threads, for every type, with and without a matrix.

All files are made in one reading, so blocks of different types pass through the same workers in another order each time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from support import MODELS

from llamacli.quantize.importance import Entry, ImportanceMatrix
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import Model, open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize

PLAIN = (
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K_M",
    "Q4_K_M",
    "Q5_K_M",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
    "IQ3_S",
)
WEIGHTED = (*PLAIN, "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")


def drawn_matrix(model: Model) -> ImportanceMatrix:
    """An importance for every matrix but the embeddings."""
    draw = np.random.default_rng(3)
    entries = {
        name: Entry(draw.gamma(0.5, size=rows.shape[-1]).astype(np.float32) + np.float32(0.01), np.array([1]))
        for name, rows in model.tensors.items()
        if len(rows.shape) == 2 and not name.startswith("token_embd")
    }
    return ImportanceMatrix(entries)


def digests(folder: Path, weighted: bool, threads: int) -> dict[str, str]:
    """The hash of every file."""
    model = open_model(MODELS["tinystories-chat-2m"])
    options = PlanOptions(importance=drawn_matrix(model) if weighted else None, prune=frozenset({1}))
    kinds = WEIGHTED if weighted else PLAIN
    outputs = [Output(make_plan(model, recipe_named(kind), options), folder / f"{kind}.gguf") for kind in kinds]
    quantize(model, outputs, kernel_named("fast"), threads=threads, force=True)
    return {output.target.name: hashlib.sha256(output.target.read_bytes()).hexdigest() for output in outputs}


@pytest.mark.parametrize("weighted", [False, True])
def test_every_type_comes_out_the_same_on_any_number_of_threads(weighted: bool, tmp_path: Path) -> None:
    expected = digests(tmp_path, weighted, threads=1)
    assert digests(tmp_path, weighted, threads=2) == expected
    assert digests(tmp_path, weighted, threads=8) == expected

"""What a model remembers of its context, from metadata alone, against what the engine lays out for each family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import ROOT
from synthetic import write_checkpoint

from llamacli.formats.gguf_reader import read_gguf
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.runtime.fit import estimate, memory_needed

CONTEXT = 2048
ROUNDED = 2 * 10486
"""Bytes: the engine's log has hundredths of a mebibyte, for two kinds of memory."""

FAMILIES = (
    "bamba", "falcon_h1", "falcon_mamba", "granite_hybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "mamba", "mamba2",
    "nemotron_h", "nemotron_h_moe", "qwen3_5_moe", "qwen3_next",
    "deepseek_v3", "deci", "gemma3n", "gemma4", "glm_dsa", "llama4", "mimo2", "nomic",
)  # fmt: skip
"""Those that keep a state, and others that keep something else than a key and a value for each token and layer."""


@pytest.mark.parametrize("name", FAMILIES)
def test_the_header_alone_says_what_the_engine_keeps(name: str, tmp_path: Path) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / f"{name}.json").read_text())
    write_checkpoint(tmp_path / name, case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    plan = make_plan(open_model(tmp_path / name), recipe_named("F16"), PlanOptions())
    path = tmp_path / "header.gguf"
    with path.open("wb") as file:
        file.write(plan.layouts[0].header)
        file.truncate(plan.size_bytes)
    guess = estimate(read_gguf(path, arrays="skip"), CONTEXT)
    assert guess.cache == pytest.approx(memory_needed(path, CONTEXT).cache, abs=ROUNDED)

"""Models with recurrent layers go back to the state that was remembered while a prompt was read."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import SHARED

from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine


@pytest.fixture(scope="module", params=["lfm2", "qwen3_5"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = SHARED / "families" / request.param
    if not source.is_dir():
        pytest.skip("the checkpoint is not here")
    path = tmp_path_factory.mktemp("recurrent") / "model.gguf"
    opened = open_model(source)
    quantize(opened, [Output(make_plan(opened, recipe_named("F32"), PlanOptions()), path)], kernel_named("ggml"))
    return path


def engine_of(path: Path) -> LlamaEngine:
    return open_engine(path, EngineSettings(ctx_size=1024, threads=1))


def test_going_back_computes_what_reading_anew_computes(model: Path) -> None:
    first = [20 + n * n % 200 for n in range(400)]
    second, third = [*first[:384], *range(20, 60)], [*first[:300], *range(20, 60)]
    with engine_of(model) as engine:
        engine.logits_after(first)
        compute = engine._compute
        assert compute.keep(second) == 384
        went_back = engine.logits_after(second)
        assert compute.keep(third) == 0, "further back there is nothing"
        anew = engine.logits_after(third)
    for tokens, found in ((second, went_back), (third, anew)):
        with engine_of(model) as engine:
            assert engine.logits_after(tokens) == found


def test_what_is_remembered_is_no_second_cache(model: Path) -> None:
    with engine_of(model) as engine:
        engine.logits_after([20 + n % 200 for n in range(1000)])
        compute = engine._compute
        kept = compute._kept
        assert len(kept.cells) == 896
        assert len(kept._state) < compute.state_bytes() / 2

"""What the installed engine says about itself, and timing with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamacli.errors import EngineError, UsageError
from llamacli.runtime.backends import device_pointers, engine_info, parse_features
from llamacli.runtime.measure import ContextSettings, ModelSettings, TimedContext, TimedModel, timed
from llamacli.runtime.threadpool import ThreadPool


def test_the_engine_has_a_processor_and_a_version() -> None:
    info = engine_info()
    assert "CPU" in info.backends
    assert [device.backend for device in info.devices if device.kind == "cpu"] == ["CPU"]
    assert info.package_version[0].isdigit()
    assert info.features


def test_features_of_the_processor_are_told_from_those_of_other_backends() -> None:
    text = "CUDA : ARCHS = 890 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX2 = 1 | AMX_INT8 = 0 | OPENMP = 1 | "
    assert parse_features(text) == ("SSE3", "AVX2", "OPENMP")
    assert parse_features("Metal : EMBED_LIBRARY = 1 | CPU : NEON = 1 | DOTPROD = 1 | ") == ("NEON", "DOTPROD")
    assert parse_features("") == ()


def test_an_unknown_device_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageError) as caught:
        device_pointers(("CUDA9",))
    assert "CPU" in caught.value.hint
    assert device_pointers(("CPU",))[1] is None


def test_thread_pools_can_be_closed_twice() -> None:
    pool = ThreadPool(2)
    pool.close()
    pool.close()


@pytest.fixture
def context(converted: Callable[..., Path]) -> Iterator[TimedContext]:
    with timed(ModelSettings(converted("stories260K-hf", "F32")), ContextSettings(300, batch=32)) as ready:
        yield ready


def held(context: TimedContext) -> int:
    """Tokens in the cache."""
    lib = context._lib
    return int(lib.llama_memory_seq_pos_max(lib.llama_get_memory(context.pointer), 0)) + 1


def test_prompts_and_generations_put_their_tokens_into_the_cache(context: TimedContext) -> None:
    context.set_threads(1)
    assert context.time_prompt(100) > 0
    assert held(context) == 100
    assert context.time_generation(20) > 0
    assert held(context) == 120
    context.clear()
    assert held(context) == 0


def test_a_depth_is_filled_again_from_the_kept_state(context: TimedContext) -> None:
    for _ in range(3):
        context.fill(64)
        assert held(context) == 64
        context.time_generation(3)
        assert held(context) == 67
    context.fill(32)
    assert held(context) == 32
    context.fill(0)
    assert held(context) == 0


def test_threads_can_change_between_runs(context: TimedContext) -> None:
    for threads in (1, 2, 1):
        context.set_threads(threads)
        context.clear()
        assert context.time_generation(4) > 0


def test_a_full_cache_is_an_error(context: TimedContext) -> None:
    with pytest.raises(EngineError):
        context.time_prompt(1000)


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"nothing of a model")
    with pytest.raises(EngineError, match=r"x\.gguf"):
        TimedModel(ModelSettings(path))

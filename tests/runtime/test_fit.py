"""Memory that a model needs: the estimate against the engine, and what follows from the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from llamacli.errors import EngineError
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.formats.gguf_values import Value, ValueType, array, string, u32
from llamacli.formats.tensor_types import BY_NAME, F16
from llamacli.runtime.cache_size import cache_bytes, constant_bytes, token_bytes, token_width
from llamacli.runtime.context_limit import RESERVE, context_limit
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.fit import (
    LONGEST_ASKED,
    Need,
    estimate,
    extended,
    fits,
    largest_context,
    logged_sizes,
    memory_needed,
    rounded,
)
from llamacli.runtime.memory import Memory

MIB = 1 << 20


@pytest.fixture(scope="session")
def path(converted: Callable[..., Path]) -> Path:
    return converted("tinystories-656k-wide256", "Q4_K_M")


@pytest.mark.parametrize("context", [512, 4096, 32768])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_the_estimate_agrees_with_the_engine(path: Path, context: int, kind: str) -> None:
    guess = estimate(read_gguf(path, arrays="skip"), context, type_k=kind, type_v=kind)
    exact = memory_needed(path, context, type_k=kind, type_v=kind, gpu_layers=0)
    assert guess.weights == exact.weights
    assert guess.cache == pytest.approx(exact.cache, rel=0.001)
    assert guess.total == pytest.approx(exact.total, rel=0.03)
    assert guess.context == exact.context == context


def test_absurdly_long_contexts_are_extended_not_tried(path: Path) -> None:
    half, whole = memory_needed(path, LONGEST_ASKED // 2), memory_needed(path, LONGEST_ASKED)
    assert extended(memory_needed(path, LONGEST_ASKED // 4), half, LONGEST_ASKED).cache == whole.cache
    assert memory_needed(path, 4 * LONGEST_ASKED).cache == 4 * whole.cache


def test_what_the_engine_refuses_is_an_error_with_its_reason(path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        memory_needed(path, 512, type_k="q8_0", type_v="q8_0")  # heads of 16, blocks of 32
    assert caught.value.hint


def test_sizes_are_read_from_the_log_of_an_8b_model_on_two_devices() -> None:
    lines = [
        "load_tensors:          CPU model buffer size =     0.00 MiB",
        "llama_context:        CPU  output buffer size =     0.50 MiB",
        "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
        "llama_kv_cache: size =  512.00 MiB (  4096 cells,  32 layers,  1/1 seqs), K (f16):  256.00 MiB, V (f16): ...",
        "llama_kv_cache: size =   64.00 MiB (  1024 cells,  10 layers,  1/1 seqs), K (f16):   32.00 MiB, V (f16): ...",
        "llama_memory_recurrent: size =   18.25 MiB (  1 cells,  24 layers,  1 seqs), R (f32): ...",
        "sched_reserve:      CUDA0 compute buffer size =   300.00 MiB",
        "sched_reserve:      CUDA0 compute buffer size =   266.50 MiB",
        "sched_reserve:        CPU compute buffer size =    16.01 MiB",
    ]
    cache, compute = logged_sizes(lines)
    assert cache == round((512 + 64 + 18.25) * MIB)
    assert compute == round((0.5 + 266.5 + 16.01) * MIB)


def with_keys(gguf: GGUF, architecture: str = "llama", **values: Value) -> GGUF:
    """`gguf` under another architecture's name, with keys added or replaced (`__` stands for a dot)."""
    old = gguf.architecture + "."
    metadata = {
        architecture + "." + k.removeprefix(old) if k.startswith(old) else k: v for k, v in gguf.metadata.items()
    }
    metadata |= {f"{architecture}.{key.replace('__', '.')}": value for key, value in values.items()}
    metadata["general.architecture"] = string(architecture)
    return dataclasses.replace(gguf, metadata=metadata)


def test_sliding_windows_hold_the_window_and_a_micro_batch(path: Path) -> None:
    plain = read_gguf(path)
    gemma = with_keys(plain, "gemma2", attention__sliding_window=u32(1000))
    whole = cache_bytes(plain, 8192)
    assert cache_bytes(gemma, 8192) == whole
    assert cache_bytes(gemma, 8192, swa_full=False) == whole // 2 + whole // 2 * 1536 // 8192
    pattern = with_keys(plain, "x", attention__sliding_window=u32(1000))
    pattern.metadata["x.attention.sliding_window_pattern"] = array(ValueType.BOOL, [True, True])  # type: ignore[index]
    assert cache_bytes(pattern, 8192, swa_full=False) == whole * 1536 // 8192


def test_layers_without_a_cache_of_their_own_count_nothing(path: Path) -> None:
    plain = read_gguf(path)
    whole = cache_bytes(plain, 1024)
    assert cache_bytes(with_keys(plain, nextn_predict_layers=u32(1)), 1024) == whole // 2
    assert cache_bytes(with_keys(plain, attention__shared_kv_layers=u32(1)), 1024) == whole // 2
    hybrid = with_keys(plain, attention__head_count_kv=array(ValueType.INT32, [0, 8]))
    assert cache_bytes(hybrid, 1024) == whole // 2


def test_latent_attention_keeps_keys_only(path: Path) -> None:
    keys = {"attention__kv_lora_rank": u32(512), "attention__key_length_mla": u32(192)}
    sizes = {"attention__key_length": u32(576), "attention__value_length": u32(512)}
    heads = {"attention__head_count_kv": u32(1)}
    assert token_width(with_keys(read_gguf(path), "deepseek2", **keys, **sizes, **heads), 0) == (576, 0)


def test_windows_may_have_heads_of_another_width(path: Path) -> None:
    plain = read_gguf(path)
    sizes = {"attention__key_length": u32(512), "attention__key_length_swa": u32(256)}
    window = {"attention__sliding_window_pattern": array(ValueType.BOOL, [True, False])}
    wide = with_keys(plain, "gemma4", attention__head_count_kv=u32(1), **sizes, **window)
    assert [token_width(wide, layer)[0] for layer in (0, 1)] == [256, 512]


def test_encoders_remember_nothing(path: Path) -> None:
    assert cache_bytes(with_keys(read_gguf(path), "nomic-bert"), 1024) == 0


def test_a_longer_context_needs_what_a_token_needs(path: Path) -> None:
    plain = read_gguf(path)
    assert cache_bytes(plain, 1024) - cache_bytes(plain, 512) == 512 * token_bytes(plain)
    mamba = {"ssm__conv_kernel": u32(4), "ssm__inner_size": u32(128), "ssm__state_size": u32(16)}
    recurrent = with_keys(plain, "mamba", **mamba)
    assert token_bytes(recurrent) == 0
    assert cache_bytes(recurrent, 512) == constant_bytes(recurrent) == 2 * 4 * (3 * 128 + 16 * 128)


def test_a_context_is_as_long_as_memory_allows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = with_keys(read_gguf(path), context_length=u32(1 << 20))
    settings = EngineSettings(ctx_size=0)
    room = gguf.size_bytes + RESERVE + 5120 * token_bytes(gguf)
    monkeypatch.setattr("llamacli.runtime.context_limit.memory", lambda: Memory(2 * room, room))
    assert context_limit(gguf, settings) == 5120
    monkeypatch.setattr("llamacli.runtime.context_limit.memory", lambda: Memory(2 * room, 1))
    assert context_limit(gguf, settings) == 512


def test_quantized_caches_are_smaller_by_their_blocks(path: Path) -> None:
    gguf = read_gguf(path)
    q8 = BY_NAME["Q8_0"]
    assert cache_bytes(gguf, 256, q8, q8) == cache_bytes(gguf, 256, F16, F16) * 34 // 64


def test_the_largest_context_fits_and_a_little_more_does_not() -> None:
    small, large = Need(1024, 1000 * MIB, 100 * MIB, 50 * MIB), Need(2048, 1000 * MIB, 200 * MIB, 60 * MIB)
    available = 2000 * MIB
    tokens = largest_context(small, large, available)
    assert tokens % 256 == 0

    def need(context: int) -> Need:
        share = context / 1024
        return Need(context, 1000 * MIB, round(100 * MIB * share), round((40 + 10 * share) * MIB))

    assert fits(need(tokens), available)
    assert not fits(need(tokens + 256), available)
    assert largest_context(small, large, 100 * MIB) == 0


def test_contexts_are_rounded_as_the_engine_rounds_them() -> None:
    assert [rounded(n) for n in (1, 256, 257, 4096)] == [256, 256, 512, 4096]

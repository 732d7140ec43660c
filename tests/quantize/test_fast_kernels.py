"""The fast kernels: errors against ggml's, the same bytes whatever the cut, hostile rows, the compiled code's cache.

gguf's numpy code, which neither kernel shares, turns the bytes back into weights.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llamacli.formats.tensor_types import BY_NAME
from llamacli.quantize.fast.kernel import FastKernel
from llamacli.quantize.fast.methods import METHODS
from llamacli.quantize.kernels import ggml_kernel, kernel_named

TYPES = sorted(METHODS)
PLAIN = [name for name in TYPES if not METHODS[name].always_weighted]
ROOT = Path(__file__).parents[2]


def bf16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The bit patterns of float32 values cut to bf16."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def heavy_tailed(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    """Weights as trained models have them (rows and columns of different size), exact in bf16."""
    draw = np.random.default_rng(seed)
    sizes = np.exp(draw.normal(0, 0.3, (rows, 1)) + draw.normal(0, 0.3, (1, columns)))
    return from_bf16(bf16(draw.standard_t(5, size=(rows, columns)) * sizes * 0.02))


def importance_of(columns: int) -> NDArray[np.float32]:
    """Activations differ by orders of magnitude between channels."""
    return (np.random.default_rng(1).gamma(0.5, size=columns) + 0.01).astype(np.float32)


def quantized(
    kernel: Any, name: str, rows: NDArray[Any], importance: NDArray[np.float32] | None = None
) -> NDArray[Any]:
    """(rows, bytes) of the result."""
    kind = BY_NAME[name]
    out = np.zeros((rows.shape[0], kind.row_bytes(rows.shape[1])), np.uint8)
    kernel.quantize(kind, rows, out.reshape(-1), importance)
    return out


def restored(name: str, blocks: NDArray[np.uint8]) -> NDArray[np.float64]:
    return gguf.dequantize(blocks, gguf.GGMLQuantizationType[name]).astype(np.float64)


def counted(name: str, x: NDArray[np.float32], importance: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """How much ggml counts the error of each weight in its own search; equal where it does not search."""
    squares = x.astype(np.float64) ** 2

    def mean(count: int) -> Any:
        return np.repeat(squares.reshape(-1, count).mean(1), count).reshape(x.shape)

    if importance is not None:
        share = 2 * mean(256)
        if name in ("Q2_K", "IQ2_XS", "IQ2_XXS"):
            share = mean(256)
        if BY_NAME[name].block_size == 32:
            share = 2 * mean(32) if name == "IQ4_NL" else mean(x.shape[1])
        return importance * (np.ones_like(squares) if name == "Q6_K" else np.sqrt(share + squares))
    if name in ("Q4_K", "Q5_K"):
        return np.sqrt(mean(32)) + np.abs(x)
    if name == "IQ2_S":
        return squares + mean(256) / 2
    return squares if name in ("Q3_K", "Q6_K") or name.startswith(("IQ3", "IQ4")) else np.ones_like(squares)


def default_importance(name: str, columns: int) -> NDArray[np.float32] | None:
    """None for the types that need none."""
    return None if name in PLAIN else importance_of(columns)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weighted"), [*((name, False) for name in PLAIN), *((name, True) for name in TYPES)])
def test_error_is_not_above_ggmls(name: str, weighted: bool) -> None:
    x = heavy_tailed(48, 1024)
    importance = importance_of(1024) if weighted else None
    weights = counted(name, x, importance)
    ours = (weights * (restored(name, quantized(FastKernel(), name, x, importance)) - x) ** 2).sum()
    ggmls = (weights * (restored(name, quantized(ggml_kernel(), name, x, importance)) - x) ** 2).sum()
    assert ours <= 1.001 * ggmls


@pytest.mark.parametrize("name", TYPES)
def test_bytes_do_not_depend_on_the_cut(name: str) -> None:
    x = heavy_tailed(37, 768, seed=2)
    for importance in (default_importance(name, 768), importance_of(768)):
        whole = quantized(FastKernel(), name, x, importance)
        for cuts in ((0, 1, 37), (0, 5, 21, 36, 37)):
            parts = [quantized(FastKernel(), name, x[a:b], importance) for a, b in itertools.pairwise(cuts)]
            assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize("name", TYPES)
def test_bytes_do_not_depend_on_how_weights_are_stored(name: str) -> None:
    x = heavy_tailed(5, 512, seed=3)
    weights = default_importance(name, 512)
    assert (quantized(FastKernel(), name, bf16(x), weights) == quantized(FastKernel(), name, x, weights)).all()
    half = (x * np.float32(0.01)).astype(np.float16)  # many of them subnormal
    widened = half.astype(np.float32)
    assert (quantized(FastKernel(), name, half, weights) == quantized(FastKernel(), name, widened, weights)).all()


@pytest.mark.parametrize("name", TYPES)
def test_threads_share_one_kernel(name: str) -> None:
    kernel, x, weights = FastKernel(), heavy_tailed(64, 512, seed=4), default_importance(name, 512)
    expected = quantized(kernel, name, x, weights)
    results: list[NDArray[Any]] = []
    threads = [threading.Thread(target=lambda: results.append(quantized(kernel, name, x, weights))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all((result == expected).all() for result in results)


@pytest.mark.parametrize("name", TYPES)
def test_not_a_byte_is_written_outside(name: str) -> None:
    kind, x = BY_NAME[name], heavy_tailed(3, 768)
    size = 3 * kind.row_bytes(768)
    room = np.full(size + 256, 0xAB, np.uint8)
    FastKernel().quantize(kind, x, room[128 : 128 + size], default_importance(name, 768))
    assert (room[:128] == 0xAB).all() and (room[128 + size :] == 0xAB).all()


HOSTILE = {
    "zeros": np.zeros(512),
    "constant": np.full(512, 0.5),
    "negative constant": np.full(512, -0.37),
    "one outlier": np.where(np.arange(512) == 7, 100, 0.01),
    "first part zero": np.where(np.arange(512) % 256 < 100, 0, np.sin(np.arange(512))),
    "all positive": 1 + np.cos(np.arange(512)) ** 2,
    "tiny": np.sin(np.arange(512)) * 1e-8,
    "subnormal": np.sin(np.arange(512)) * 1e-40,
    "large": np.sin(np.arange(512)) * 1e4,
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("name", TYPES)
def test_hostile_rows_come_back_finite_and_as_near_as_ggmls(name: str, case: str) -> None:
    x = HOSTILE[case].astype(np.float32)[None, :]
    for importance in (default_importance(name, 512), importance_of(512), np.zeros(512, np.float32)):
        ours = restored(name, quantized(FastKernel(), name, x, importance))
        assert np.isfinite(ours).all()
        if importance is None:
            ggmls = restored(name, quantized(ggml_kernel(), name, x))
            scale = float(np.sqrt((x.astype(np.float64) ** 2).mean()))
            assert np.sqrt(((ours - x) ** 2).mean()) <= 1.05 * np.sqrt(((ggmls - x) ** 2).mean()) + 5e-4 * scale


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("value", [1e9, 3e20, 3.4e38, -3.4e38])
def test_weights_beyond_the_scales_reach_come_back_finite(name: str, value: float) -> None:
    x = np.full((2, 512), value, np.float32)
    x[:, ::3] = -1.0
    assert np.isfinite(restored(name, quantized(FastKernel(), name, x, default_importance(name, 512)))).all()


def test_q8_0_is_ggmls_to_the_bit() -> None:
    x = heavy_tailed(64, 1024)
    x[0, :32] = np.arange(32) + 0.5  # halves are rounded away from zero
    x[0, 31] = 127.0
    x[1] *= 1e-7  # subnormal scales
    assert (quantized(FastKernel(), "Q8_0", x) == quantized(ggml_kernel(), "Q8_0", x)).all()


def test_half_precision_scales_round_to_nearest_even() -> None:
    # A block of one weight 127*d has the scale d: every binary16 value and the middles between neighbours.
    exact = np.arange(1, 0x7BFF, 13, dtype=np.uint16).view(np.float16).astype(np.float32)
    above = (np.arange(1, 0x7BFF, 13, dtype=np.uint16) + 1).view(np.float16).astype(np.float32)
    scales = np.concatenate([exact, (exact + above) / 2, exact + (above - exact) * np.float32(0.499)])
    x = np.zeros((len(scales), 32), np.float32)
    x[:, 0] = scales * np.float32(127)
    stored = quantized(FastKernel(), "Q8_0", x)[:, :2].copy().view(np.float16)[:, 0]
    with np.errstate(over="ignore"):
        expected = (x[:, 0] / np.float32(127)).astype(np.float16)
    assert (stored == expected).all()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names an x86 processor")
def test_narrower_vectors_give_the_same_bytes() -> None:
    features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if " avx2 " not in features or " fma " not in features:
        pytest.skip("needs a processor with AVX2 and FMA")
    x = heavy_tailed(17, 512, seed=5)
    expected = [hashlib.sha256(quantized(FastKernel(), name, x)).hexdigest() for name in ("IQ4_NL", "Q4_1")]
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}
    assert in_new_process(NARROW, **narrow).split() == expected


NARROW = """
import hashlib
import itertools
from tests_fast import FastKernel, heavy_tailed, quantized
x = heavy_tailed(17, 512, seed=5)
for name in ("IQ4_NL", "Q4_1"):
    print(hashlib.sha256(quantized(FastKernel(), name, x)).hexdigest())
"""

FIRST_USE = """
from tests_fast import BY_NAME, FastKernel
kernel, types = FastKernel(), [BY_NAME["Q8_0"], BY_NAME["F16"]]
print(kernel.needs_compile(types))
kernel.prepare(types)
print(kernel.needs_compile(types), kernel.needs_compile([BY_NAME["Q4_K"]]), kernel.needs_compile([BY_NAME["F16"]]))
"""


def in_new_process(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    load = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('tests_fast', {str(Path(__file__))!r})\n"
        "sys.modules['tests_fast'] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", load + code], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_code_is_compiled_once_and_kept(tmp_path: Path) -> None:
    folder = str(tmp_path / "cache")
    assert in_new_process(FIRST_USE, NUMBA_CACHE_DIR=folder).split() == ["True", "False", "True", "False"]
    assert in_new_process(FIRST_USE, NUMBA_CACHE_DIR=folder).split() == ["False", "False", "True", "False"]


@pytest.mark.slow
def test_folder_that_cannot_be_made_only_costs_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert in_new_process(FIRST_USE, NUMBA_CACHE_DIR=str(blocked)).split()[0] == "True"


def test_types_that_we_do_not_know_go_to_ggml() -> None:
    x, kind = heavy_tailed(2, 512), BY_NAME["TQ2_0"]
    kernel = kernel_named("fast")
    assert kernel.supports(kind, weighted=False) and not FastKernel().supports(kind, weighted=False)
    assert (quantized(kernel, "TQ2_0", x) == quantized(ggml_kernel(), "TQ2_0", x)).all()
    assert (quantized(kernel, "Q4_K", x) == quantized(FastKernel(), "Q4_K", x)).all()

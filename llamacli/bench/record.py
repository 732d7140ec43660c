"""One measurement as a flat record: llama-bench's fields under its names and in its order, then what we add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llamacli.bench.statistics import Summary, summarize
from llamacli.bench.trials import Measurement
from llamacli.runtime.backends import EngineInfo
from llamacli.runtime.engine_context import FLASH_ATTENTION

FieldKind = Literal["text", "bool", "int", "float"]

FIELDS: tuple[tuple[str, FieldKind], ...] = (
    ("build_commit", "text"), ("build_number", "int"), ("cpu_info", "text"), ("gpu_info", "text"), ("backends", "text"),
    ("model_filename", "text"), ("model_type", "text"), ("model_size", "int"), ("model_n_params", "int"),
    ("n_batch", "int"), ("n_ubatch", "int"), ("n_threads", "int"), ("cpu_mask", "text"), ("cpu_strict", "bool"),
    ("poll", "int"), ("type_k", "text"), ("type_v", "text"), ("n_gpu_layers", "int"), ("n_cpu_moe", "int"),
    ("split_mode", "text"), ("main_gpu", "int"), ("no_kv_offload", "bool"), ("flash_attn", "int"), ("devices", "text"),
    ("tensor_split", "text"), ("tensor_buft_overrides", "text"), ("load_mode", "text"), ("lazy_mode", "text"),
    ("embeddings", "bool"), ("no_op_offload", "int"), ("no_host", "bool"), ("repack", "bool"), ("fit_target", "int"),
    ("fit_min_ctx", "int"), ("n_prompt", "int"), ("n_gen", "int"), ("n_depth", "int"), ("test_time", "text"),
    ("avg_ns", "int"), ("stddev_ns", "int"), ("avg_ts", "float"), ("stddev_ts", "float"),
)  # fmt: skip
"""llama-bench's fields (tools/llama-bench of llama.cpp, October 2026)."""

EXTRA_FIELDS: tuple[tuple[str, FieldKind], ...] = (
    ("median_ts", "float"), ("ci95_low_ts", "float"), ("ci95_high_ts", "float"), ("load_ms", "float"),
    ("ttft_ms", "float"), ("peak_rss", "int"), ("memory_speed_percent", "float"), ("bytes_per_token", "int"),
    ("memory_bytes_per_second", "int"), ("power", "text"), ("governor", "text"), ("llama_cpp_python", "text"),
    ("llamacli", "text"),
)  # fmt: skip
"""Ours. `ttft_ms`: reading the prompt until the first token can be chosen; `peak_rss`: bytes, of the whole process."""

FIXED: Mapping[str, Any] = {
    "build_number": 0, "cpu_mask": "0x0", "cpu_strict": False, "poll": 50, "n_cpu_moe": 0, "split_mode": "layer",
    "main_gpu": 0, "no_kv_offload": False, "tensor_split": "0.00", "tensor_buft_overrides": "none",
    "load_mode": "auto", "lazy_mode": "auto", "embeddings": False, "no_op_offload": 0, "no_host": False,
    "repack": True, "fit_target": 0, "fit_min_ctx": 0,
}  # fmt: skip
"""Settings of llama-bench that we leave at their defaults. (The bindings do not tell the build's number.)"""


@dataclass(frozen=True)
class Surroundings:
    """What is the same for all measurements of one run. `memory_speed` in bytes per second, 0 if it does not apply."""

    engine: EngineInfo
    version: str
    peak_rss: int
    memory_speed: float
    power: str
    governor: str


Record = dict[str, Any]


def record(measurement: Measurement, here: Surroundings, bytes_per_token: int) -> Record:
    """Everything about one measurement, `samples_ns` and `samples_ts` included. Values that do not apply are None."""
    case, test = measurement.case, measurement.case.test
    rates, times = summarize(measurement.rates), summarize([float(ns) for ns in measurement.samples_ns])
    generation = test.generate > 0 and not test.prompt
    values: Record = {
        **FIXED,
        "build_commit": here.engine.commit,
        "cpu_info": ", ".join(d.description for d in here.engine.devices if d.kind in ("cpu", "accel")),
        "gpu_info": ", ".join(d.description for d in here.engine.gpus),
        "backends": here.engine.acceleration,
        "model_filename": str(case.path),
        "model_type": measurement.description,
        "model_size": measurement.size,
        "model_n_params": measurement.weights,
        "n_batch": case.batch,
        "n_ubatch": case.ubatch,
        "n_threads": case.threads,
        "type_k": case.cache_type_k,
        "type_v": case.cache_type_v,
        "n_gpu_layers": case.gpu_layers,
        "flash_attn": FLASH_ATTENTION[case.flash_attn],
        "devices": "/".join(case.devices) or "auto",
        "n_prompt": test.prompt,
        "n_gen": test.generate,
        "n_depth": test.depth,
        "test_time": measurement.time,
        "avg_ns": round(times.mean),
        "stddev_ns": round(times.deviation),
        "avg_ts": rates.mean,
        "stddev_ts": rates.deviation,
        "load_ms": measurement.load_ns / 1e6,
        "ttft_ms": times.median / 1e6 if test.prompt and not test.generate else None,
        "peak_rss": here.peak_rss,
        **_ceiling(rates, here.memory_speed if generation else 0.0, bytes_per_token if generation else None),
        "power": here.power,
        "governor": here.governor,
        "llama_cpp_python": here.engine.package_version,
        "llamacli": here.version,
    }
    ordered = {name: values[name] for name, _ in (*FIELDS, *EXTRA_FIELDS)}
    return {**ordered, "samples_ns": list(measurement.samples_ns), "samples_ts": measurement.rates}


def workload_name(values: Mapping[str, Any]) -> str:
    """The test of a record, ours or llama-bench's: pp512, tg128, pp512+tg128, tg128 @ d4096."""
    from llamacli.bench.cases import Workload

    return Workload(int(values["n_prompt"]), int(values["n_gen"]), int(values["n_depth"])).name


def _ceiling(rates: Summary, speed: float, bytes_per_token: int | None) -> Record:
    per_cent = 100 * rates.median * bytes_per_token / speed if speed and bytes_per_token else None
    return {
        "median_ts": rates.median,
        "ci95_low_ts": rates.low,
        "ci95_high_ts": rates.high,
        "memory_speed_percent": per_cent,
        "bytes_per_token": bytes_per_token,
        "memory_bytes_per_second": round(speed) or None,
    }

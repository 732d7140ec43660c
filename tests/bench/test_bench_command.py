"""`llamacli bench` with the real engine on a tiny model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamacli.bench.record import EXTRA_FIELDS, FIELDS
from llamacli.formats.gguf_reader import read_gguf

SHORT = ("-p", "16", "-n", "4", "-r", "2", "-t", "1")


@pytest.fixture(scope="session")
def model(converted: Callable[..., Path]) -> Path:
    return converted("stories260K-hf", "F32")


@pytest.fixture(scope="session")
def k_quant(converted: Callable[..., Path]) -> Path:
    return converted("tinystories-656k-wide256", "Q4_K_M")


def test_json_has_llama_bench_fields_then_ours(invoke: Any, model: Path) -> None:
    result = invoke("bench", model, *SHORT, "--json")
    assert result.code == 0, result.err
    names = [name for name, _ in (*FIELDS, *EXTRA_FIELDS)]
    prompt, generation = result.json
    assert list(prompt) == [*names, "samples_ns", "samples_ts"]
    assert (prompt["n_prompt"], prompt["n_gen"], generation["n_prompt"], generation["n_gen"]) == (16, 0, 0, 4)
    assert prompt["model_size"] == sum(t.size_bytes for t in read_gguf(model).tensors)
    assert len(prompt["samples_ns"]) == len(generation["samples_ts"]) == 2
    assert prompt["ttft_ms"] > 0 and generation["ttft_ms"] is None
    assert prompt["memory_speed_percent"] is None and generation["memory_speed_percent"] > 0
    assert prompt["peak_rss"] > prompt["model_size"] and prompt["load_ms"] > 0
    for record in result.json:
        assert min(record["samples_ts"]) <= record["ci95_low_ts"] <= record["median_ts"] <= record["ci95_high_ts"]
        for ns, rate in zip(record["samples_ns"], record["samples_ts"], strict=True):
            assert rate == pytest.approx((record["n_prompt"] + record["n_gen"]) * 1e9 / ns)


def test_all_combinations_are_measured(invoke: Any, model: Path, k_quant: Path) -> None:
    flags = ("-p", "8", "-n", "0", "-pg", "4,2", "-d", "0,16", "-t", "1,2", "-fa", "on,off", "-r", "1")
    result = invoke("bench", model, "-m", k_quant, *flags, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert len(rows) == 2 * 2 * 2 * 2 * 2
    assert {row["n_depth"] for row in rows} == {"0", "16"}
    assert {row["flash_attn"] for row in rows} == {"1", "0"}
    assert {Path(row["model_filename"]) for row in rows} == {model, k_quant}
    assert all(float(row["avg_ts"]) > 0 for row in rows)


def test_quantized_cache_works(invoke: Any, k_quant: Path) -> None:
    result = invoke("bench", k_quant, *SHORT, "-ctk", "f16,bf16", "-fa", "on", "-o", "jsonl")
    assert [json.loads(line)["type_k"] for line in result.out.splitlines()] == ["f16", "f16", "bf16", "bf16"]


def test_the_table_goes_to_stdout_and_has_no_escape(invoke: Any, model: Path) -> None:
    result = invoke("bench", model, *SHORT)
    assert result.code == 0
    assert "pp16" in result.out and "tg4" in result.out and "% of memory speed" in result.out
    assert "\x1b" not in result.out + result.err
    assert result.out.endswith("\n") and not result.out.endswith("\n\n")


def test_saving_and_comparing(invoke: Any, model: Path) -> None:
    assert invoke("bench", model, *SHORT, "--save").code == 0
    result = invoke("bench", model, *SHORT, "--compare", "last")
    assert result.code == 0, result.err
    assert "before" in result.out and "change" in result.out


def test_a_limit_that_is_not_kept_exits_1_after_the_results(invoke: Any, model: Path) -> None:
    result = invoke("bench", model, *SHORT, "--fail-below", "1e12")
    assert result.code == 1
    assert "tg4" in result.out and "below" in result.err
    assert invoke("bench", model, *SHORT, "--fail-below", "0.001").code == 0


def test_a_regression_exits_1_only_when_asked(invoke: Any, model: Path, tmp_path: Path) -> None:
    records = invoke("bench", model, *SHORT, "-o", "json").json
    for record in records:
        record["samples_ts"] = [rate * 1e6 for rate in record["samples_ts"]]
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(records))
    assert invoke("bench", model, *SHORT, "--compare", earlier).code == 0
    result = invoke("bench", model, *SHORT, "--compare", earlier, "--fail-on-regression")
    assert result.code == 1 and "slower" in result.err


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("-o", "xml"), 2),
        (("-p", "many"), 2),
        (("-p", "0", "-n", "0"), 2),
        (("-ctk", "q4_k"), 2),
        (("-fa", "maybe"), 2),
        (("-t", "0"), 2),
        (("-t", "100000"), 2),
        (("-dev", "NoSuchDevice"), 2),
        (("-d", "999999999"), 6),
        (("--compare", "last"), 3),
    ],
    ids=str,
)
def test_wrong_flags_end_in_one_line(invoke: Any, model: Path, flags: tuple[str, ...], code: int) -> None:
    result = invoke("bench", model, "-r", "1", *flags)
    assert result.code == code, result.err
    assert result.out == "" and result.err.startswith("error: ")


def test_a_missing_model_exits_3_and_a_broken_one_9(invoke: Any, tmp_path: Path) -> None:
    assert invoke("bench", tmp_path / "none.gguf").code == 3
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    assert invoke("bench", broken).code == 9


def test_a_cache_type_that_does_not_divide_the_heads_is_an_error_not_a_crash(invoke: Any, model: Path) -> None:
    result = invoke("bench", model, *SHORT, "-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on")
    assert result.code in (6, 10), result.err
    assert result.err.startswith("error: ")

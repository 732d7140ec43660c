"""The benchmark as a person reads it: what was measured where, the rates with their intervals, and the ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamacli.bench.compare import Comparison
from llamacli.bench.formats import TITLES, count_text, size_text
from llamacli.bench.record import Record, workload_name
from llamacli.cli.console import Console, clean

VARYING = (
    "n_gpu_layers", "devices", "n_batch", "n_ubatch", "type_k", "type_v", "flash_attn", "n_threads",
)  # fmt: skip
"""Settings that get a column when they differ between the rows."""


def show_records(console: Console, records: Sequence[Record], compared: Sequence[Comparison | None] = ()) -> None:
    """Heading, table and notes on stdout."""
    console.write(clean(_heading(records)) + "\n")
    columns, rows = _table(records, compared)
    console.table(columns, rows)
    console.write(clean(_notes(records)) + "\n")


def show_comparison(console: Console, compared: Sequence[Comparison | None]) -> None:
    """One line per comparison on stderr, for when stdout carries a machine's format."""
    for found in compared:
        if found is not None:
            before, change = _change(found)
            console.status(f"{found.test}: {before} -> {rate(found.now)} t/s, {change}")


def rate(value: float) -> str:
    """Tokens per second with as many digits as mean something."""
    return f"{value:.2f}" if value < 100 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def seconds(milliseconds: float) -> str:
    """A time in the unit that reads best."""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _heading(records: Sequence[Record]) -> str:
    first = records[0]
    models = list(dict.fromkeys(_model(record) for record in records))
    names = models[0] if len(models) == 1 else f"{len(models)} models"
    threads = {record["n_threads"] for record in records}
    on_battery = ["on battery"] if first["power"] == "battery" else []
    parts = [
        names,
        first["gpu_info"] or first["cpu_info"],
        *([f"{first['n_threads']} threads"] if len(threads) == 1 else []),
        *on_battery,
        first["backends"],
        f"llama.cpp {first['build_commit']}",
    ]
    return " · ".join(part for part in parts if part)


def _model(record: Record) -> str:
    weights, size = count_text(record["model_n_params"]), size_text(record["model_size"])
    kind = record["model_type"].replace(" ?B", "")  # llama.cpp's word for sizes that it has no name for
    return f"{Path(record['model_filename']).stem} ({kind}, {weights}, {size})"


def _table(records: Sequence[Record], compared: Sequence[Comparison | None]) -> tuple[list[str], list[list[str]]]:
    varying = [name for name in VARYING if len({record[name] for record in records}) > 1]
    several = len({record["model_filename"] for record in records}) > 1
    ceiling = any(record["memory_speed_percent"] for record in records)
    columns = (["model"] if several else []) + [TITLES.get(name, name) for name in varying] + ["test", "t/s", "±95%"]
    columns += (["% of memory speed"] if ceiling else []) + (["before", "change"] if compared else [])
    rows = []
    for i, record in enumerate(records):
        row = [Path(record["model_filename"]).stem] if several else []
        row += [_setting(name, record[name]) for name in varying]
        row += [workload_name(record), rate(record["median_ts"]), _interval(record)]
        row += [_per_cent(record["memory_speed_percent"])] if ceiling else []
        row += _change(compared[i]) if compared else []
        rows.append(row)
    return columns, rows


def _setting(name: str, value: Any) -> str:
    return {-1: "auto", 0: "off", 1: "on"}.get(value, str(value)) if name == "flash_attn" else str(value)


def _interval(record: Record) -> str:
    return rate((record["ci95_high_ts"] - record["ci95_low_ts"]) / 2)


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _change(compared: Comparison | None) -> list[str]:
    if compared is None:
        return ["-", "not measured before"]
    if compared.verdict == "no difference":
        return [rate(compared.before), "no difference"]
    return [rate(compared.before), f"{compared.change:+.1f} % {compared.verdict}"]


def _notes(records: Sequence[Record]) -> str:
    first = records[0]
    notes = [f"load {seconds(first['load_ms'])}"]
    prompt = next((record for record in records if record["ttft_ms"] is not None), None)
    if prompt is not None:
        notes.append(f"first token after a prompt of {prompt['n_prompt']} in {seconds(prompt['ttft_ms'])}")
    notes.append(f"peak memory {size_text(first['peak_rss'])}")
    if speed := next((r["memory_bytes_per_second"] for r in records if r["memory_bytes_per_second"]), None):
        notes.append(f"memory reads {speed / 1e9:.1f} GB/s")
    return " · ".join(notes)

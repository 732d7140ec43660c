"""Records as text: llama-bench's Markdown, CSV, JSON, JSON lines and SQL, to be pasted beside its own.

CSV and JSON carry our own fields after llama-bench's; Markdown and SQL are exactly its own.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamacli.bench.record import EXTRA_FIELDS, FIELDS, FieldKind, Record, workload_name

WIDTHS: dict[str, int] = {
    "model": -30, "t/s": 20, "size": 10, "params": 10, "n_gpu_layers": 3, "n_threads": 7, "n_batch": 7, "n_ubatch": 8,
    "type_k": 6, "type_v": 6, "flash_attn": 3, "devices": -12, "test": 15,
}  # fmt: skip
"""llama-bench's column widths; negative means left-aligned."""

TITLES: dict[str, str] = {"n_gpu_layers": "ngl", "n_threads": "threads", "flash_attn": "fa", "devices": "dev"}
"""llama-bench's headings where they are not the field's name."""

USUAL: dict[str, Any] = {
    "n_batch": 2048, "n_ubatch": 512, "type_k": "f16", "type_v": "f16", "flash_attn": -1, "devices": "auto",
}  # fmt: skip
"""Settings whose column is left out while they have this value everywhere, in llama-bench's order."""

SQL_TYPES: dict[FieldKind, str] = {"text": "TEXT", "bool": "INTEGER", "int": "INTEGER", "float": "REAL"}


def to_markdown(records: Sequence[Record]) -> str:
    """llama-bench's table and its last line."""
    fields = markdown_fields(records)
    lines = [
        "|" + "".join(f" {_aligned(TITLES.get(name, name), name)} |" for name in fields),
        "|" + "".join(f" {_rule(name)} |" for name in fields),
        *("|" + "".join(f" {_aligned(_cell(record, name), name)} |" for name in fields) for record in records),
    ]
    commits = ", ".join(dict.fromkeys(f"{r['build_commit']} ({r['build_number']})" for r in records))
    return "\n".join(lines) + f"\n\nbuild: {commits}\n"


def markdown_fields(records: Sequence[Record]) -> list[str]:
    """The columns that llama-bench would show for these records."""
    backends = str(records[0]["backends"])
    on_cpu = any(name in backends for name in ("CPU", "BLAS", "ZenDNN"))
    settings = ["n_threads"] if on_cpu else ["n_gpu_layers"]
    settings += [name for name, usual in USUAL.items() if any(record[name] != usual for record in records)]
    if not on_cpu and len({record["n_threads"] for record in records}) > 1:
        settings.insert(1, "n_threads")
    return ["model", "size", "params", "backend", *settings, "test", "t/s"]


def to_csv(records: Sequence[Record]) -> str:
    """A line of names, then every value in quotes; what does not apply is empty."""
    names = [name for name, _ in (*FIELDS, *EXTRA_FIELDS)]
    out = io.StringIO()
    out.write(",".join(names) + "\n")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([[_plain(record[name]) for name in names] for record in records])
    return out.getvalue()


def to_json(records: Sequence[Record]) -> str:
    """One list of objects."""
    return json.dumps(list(records), indent=2, ensure_ascii=False) + "\n"


def to_jsonl(records: Sequence[Record]) -> str:
    """One object per line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def to_sql(records: Sequence[Record]) -> str:
    """llama-bench's table, made if it is not there, and one row per record."""
    columns = ",\n".join(f"  {name} {SQL_TYPES[kind]}" for name, kind in FIELDS)
    names = ", ".join(name for name, _ in FIELDS)
    rows = "".join(f"INSERT INTO llama_bench ({names}) VALUES ({_sql_values(record)});\n" for record in records)
    return f"CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n\n{rows}"


FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "jsonl": to_jsonl,
    "sql": to_sql,
}


def size_text(size: int) -> str:
    """Bytes as llama-bench prints them."""
    return f"{size / 2**20:.2f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"


def count_text(count: int) -> str:
    """A number of weights as llama-bench prints it."""
    return f"{count / 1e6:.2f} M" if count < 10**9 else f"{count / 1e9:.2f} B"


def _cell(record: Mapping[str, Any], name: str) -> str:
    special: dict[str, Callable[[], str]] = {
        "model": lambda: str(record["model_type"]),
        "size": lambda: size_text(record["model_size"]),
        "params": lambda: count_text(record["model_n_params"]),
        "backend": lambda: str(record["backends"]),
        "test": lambda: workload_name(record),
        "t/s": lambda: f"{record['avg_ts']:.2f} ± {record['stddev_ts']:.2f}",
    }
    return special[name]() if name in special else str(record[name])


def _width(name: str) -> int:
    kinds = dict(FIELDS)
    usual = max(len(name), 10)
    return WIDTHS.get(name, -usual if kinds.get(name, "text") == "text" else usual)


def _aligned(text: str, name: str) -> str:
    width = _width(name)
    return f"{text:<{-width}}" if width < 0 else f"{text:>{width}}"


def _rule(name: str) -> str:
    width = _width(name)
    return "-" * (abs(width) - 1) + (":" if width > 0 else "-")


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _sql_values(record: Mapping[str, Any]) -> str:
    return ", ".join("'" + _plain(record[name]).replace("'", "''") + "'" for name, _ in FIELDS)

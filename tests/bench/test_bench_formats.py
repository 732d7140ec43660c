"""Our forms of the results against llama-bench's own output of the same measurements."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from typing import Any

import pytest
from support import ROOT

from llamacli.bench.formats import FORMATS, markdown_fields, to_csv, to_json, to_jsonl, to_markdown, to_sql
from llamacli.bench.record import EXTRA_FIELDS, FIELDS

PEER = ROOT / "tests" / "data" / "llama-bench"


def peer_records(form: str) -> list[dict[str, Any]]:
    """llama-bench's JSON of a run whose other output is peer.FORM; our own fields are empty."""
    found: list[dict[str, Any]] = json.loads((PEER / f"{form}.json").read_text())
    return [{**record, **{name: None for name, _ in EXTRA_FIELDS}} for record in found]


def peer_text(form: str) -> str:
    return (PEER / f"peer.{form}").read_text()


def test_fields_are_those_of_llama_bench_in_its_order() -> None:
    header = peer_text("csv").splitlines()[0].split(",")
    assert [name for name, _ in FIELDS] == header
    assert list(json.loads((PEER / "csv.json").read_text())[0]) == [*header, "samples_ns", "samples_ts"]


def test_markdown_is_the_same_to_the_character() -> None:
    assert to_markdown(peer_records("md")) == peer_text("md")


def test_sql_is_the_same_to_the_character() -> None:
    assert to_sql(peer_records("sql")) == peer_text("sql")


def test_csv_begins_with_llama_bench_columns() -> None:
    ours = list(csv.reader(io.StringIO(to_csv(peer_records("csv")))))
    theirs = list(csv.reader(io.StringIO(peer_text("csv"))))
    width = len(FIELDS)
    assert [row[:width] for row in ours] == theirs
    assert ours[0][width:] == [name for name, _ in EXTRA_FIELDS]
    assert all(value == "" for row in ours[1:] for value in row[width:])


def test_sql_runs_and_names_with_quotes_survive() -> None:
    record = {**peer_records("sql")[0], "model_filename": 'it\'s "mine".gguf'}
    with sqlite3.connect(":memory:") as database:
        database.executescript(to_sql([record]) + peer_text("sql"))
        names = [row[0] for row in database.execute("SELECT model_filename FROM llama_bench")]
    database.close()
    assert names[0] == 'it\'s "mine".gguf'
    assert len(names) == 1 + len(peer_records("sql"))


def test_json_and_jsonl_read_back_as_they_were() -> None:
    records = peer_records("csv")
    assert json.loads(to_json(records)) == records
    assert [json.loads(line) for line in to_jsonl(records).splitlines()] == records


def test_markdown_columns_follow_the_backend() -> None:
    record = {**peer_records("md")[0], "backends": "CUDA", "type_k": "f16"}
    assert markdown_fields([record]) == ["model", "size", "params", "backend", "n_gpu_layers", "test", "t/s"]
    threads = [record, {**record, "n_threads": 7}]
    assert markdown_fields(threads)[4:6] == ["n_gpu_layers", "n_threads"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_ends_with_one_newline_and_has_no_escape(form: str) -> None:
    text = FORMATS[form](peer_records("md"))
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert not re.search(r"\x1b", text)

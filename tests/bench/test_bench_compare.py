"""Earlier results against new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from llamacli.bench.compare import compare, load_records
from llamacli.bench.saved import find, save
from llamacli.errors import CorruptFile, NotFound

PEER = ROOT / "tests" / "data" / "llama-bench"


def with_rates(record: dict[str, Any], factor: float, **changes: Any) -> dict[str, Any]:
    """A record whose samples are steady and `factor` times 100."""
    return {**record, "samples_ts": [factor * rate for rate in (100.0, 101.0, 99.0)], **changes}


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return load_records(PEER / "md.json")


def test_llama_bench_json_and_jsonl_can_be_compared_with(records: list[dict[str, Any]]) -> None:
    assert len(records) == 24
    assert [r["n_gen"] for r in load_records(PEER / "peer.jsonl")] == [0, 8]
    assert all(found is not None and found.verdict == "no difference" for found in compare(records, records))


def test_partners_have_the_same_configuration(records: list[dict[str, Any]]) -> None:
    old = [with_rates(r, 1 + i) for i, r in enumerate(records)]
    found = compare(old, [with_rates(records[3], 2)])[0]
    assert found is not None
    assert (found.before, found.now, found.verdict) == (400, 200, "slower")
    assert found.change == pytest.approx(-50)


def test_another_quantization_is_compared_by_its_test(records: list[dict[str, Any]]) -> None:
    old, new = with_rates(records[0], 1), with_rates(records[0], 2, model_filename="other.gguf", n_threads=9)
    found = compare([old], [new])[0]
    assert found is not None and found.verdict == "faster"
    assert compare([with_rates(records[0], 1, n_prompt=7)], [new]) == [None]


def test_saved_results_are_found_by_id_last_and_path(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    first, second = save(tmp_path / "bench", records, 1.0), save(tmp_path / "bench", records[:1], 100.0)
    assert find(tmp_path / "bench", "last", tmp_path / "last") == second
    assert find(tmp_path / "bench", first.stem, tmp_path / first.stem) == first
    assert find(tmp_path / "bench", str(first), first) == first
    assert load_records(second) == records[:1]
    for wanted in ("1970", "nothing-like-it"):
        with pytest.raises(NotFound):
            find(tmp_path / "bench", wanted, tmp_path / wanted)


def test_nothing_saved_says_how_to_save(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find(tmp_path / "bench", "last", tmp_path / "last")
    assert "--save" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[1]", '[{"n_prompt": 1}]', "[" * 100_000, "nonsense", '{"samples_ts": []}']
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(CorruptFile):
        load_records(path)


def test_impossible_samples_are_refused(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    for samples in ([], [0], ["fast"], [-1.0], None):
        path = tmp_path / "x.json"
        path.write_text(json.dumps([{**records[0], "samples_ts": samples}]))
        with pytest.raises(CorruptFile):
            load_records(path)

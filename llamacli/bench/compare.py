"""Two runs side by side: which of the differences are real."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llamacli.bench.record import Record, workload_name
from llamacli.bench.statistics import overlap, summarize
from llamacli.errors import CorruptFile, NotFound

Verdict = Literal["faster", "slower", "no difference"]

CONFIGURATION = (
    "n_batch", "n_ubatch", "n_threads", "type_k", "type_v", "n_gpu_layers", "flash_attn", "devices", "n_prompt",
    "n_gen", "n_depth",
)  # fmt: skip
"""Fields that must agree for two records to be measurements of the same thing, beside the model."""

_WORKLOAD = ("n_prompt", "n_gen", "n_depth")


@dataclass(frozen=True)
class Comparison:
    """One test before and now; tokens per second, `change` in per cent."""

    test: str
    before: float
    now: float
    change: float
    verdict: Verdict


def compare(before: Sequence[Record], now: Sequence[Record]) -> list[Comparison | None]:
    """For each record of `now` its comparison with the record of `before` that measured the same; None without one.

    The same is: model file and configuration; else the configuration alone; else the test alone, where only one record
    on either side has it. So two quantizations of a model can be compared too.
    """
    return [_against(_partner(before, now, record), record) for record in now]


def verdict(before: Sequence[float], now: Sequence[float]) -> Verdict:
    """Whether samples differ: not if the 95 % intervals of their medians overlap."""
    old, new = summarize(before), summarize(now)
    if overlap(old, new):
        return "no difference"
    return "faster" if new.median > old.median else "slower"


def load_records(path: Path) -> list[Record]:
    """Records from a file of `-o json` or `-o jsonl`, ours or llama-bench's. Raises NotFound, CorruptFile."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NotFound(
            f"cannot read {path}: {error.strerror}", "--compare takes last, a file, or a saved id"
        ) from error
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is not text") from error
    try:
        whole = text.lstrip().startswith("[")
        found = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is not JSON: {error}", "save results with -o json or --save") from error
    if not found or not all(_complete(record) for record in found):
        raise CorruptFile(f"{path} holds no benchmark results", "save results with -o json or --save")
    return list(found)


def _complete(record: Any) -> bool:
    if not isinstance(record, dict) or not all(name in record for name in CONFIGURATION):
        return False
    samples = record.get("samples_ts")
    counts = (record[name] for name in _WORKLOAD)
    return (
        isinstance(samples, list)
        and bool(samples)
        and all(isinstance(sample, (int, float)) and sample > 0 for sample in samples)
        and all(isinstance(count, int) for count in counts)
    )


def _against(old: Record | None, new: Record) -> Comparison | None:
    if old is None:
        return None
    before, now = summarize(old["samples_ts"]).median, summarize(new["samples_ts"]).median
    found = verdict(old["samples_ts"], new["samples_ts"])
    return Comparison(workload_name(new), before, now, 100 * (now / before - 1), found)


def _partner(before: Sequence[Record], now: Sequence[Record], wanted: Record) -> Record | None:
    same = [old for old in before if _agree(old, wanted, CONFIGURATION)]
    named = [old for old in same if _file(old) == _file(wanted)]
    if named:
        return named[-1]
    if len(same) == 1:
        return same[0]
    old_ones = [old for old in before if _agree(old, wanted, _WORKLOAD)]
    new_ones = [new for new in now if _agree(new, wanted, _WORKLOAD)]
    return old_ones[0] if len(old_ones) == len(new_ones) == 1 else None


def _agree(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> bool:
    return all(one[name] == other[name] for name in names)


def _file(record: Mapping[str, Any]) -> str:
    return Path(str(record.get("model_filename", ""))).name

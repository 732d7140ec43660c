"""A plan needs nothing but headers, whatever the family: no weight is read for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import ROOT
from synthetic import write_checkpoint

from llamacli.families.config import Config
from llamacli.families.registry import family_of
from llamacli.formats.file_access import LocalFile
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named

CASES = sorted(path.stem for path in (ROOT / "tests" / "data" / "families").glob("*.json"))


@pytest.mark.parametrize("name", CASES)
def test_a_plan_reads_headers_only(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / f"{name}.json").read_text())
    write_checkpoint(tmp_path / "a", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    with (tmp_path / "a" / "model.safetensors").open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    weights = 0
    read = LocalFile.read_into

    def watched(self: LocalFile, offset: int, buffer: memoryview) -> None:
        nonlocal weights
        weights += len(buffer) if offset >= header else 0
        read(self, offset, buffer)

    monkeypatch.setattr(LocalFile, "read_into", watched)
    plan = make_plan(open_model(tmp_path / "a"), recipe_named("Q8_0"), PlanOptions())
    assert plan.size_bytes > 0
    scalars = 64 if family_of(Config.of(case["config"])).scalars else 0  # a few numbers that become keys
    assert weights <= scalars

"""An engine whose matrix tiles fail runs without them; what was found out is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llamacli.runtime import tiles


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAMACLI_HOME", str(tmp_path))
    tiles.tiles_work.cache_clear()


def test_the_trial_and_the_parameters_agree() -> None:
    trial = subprocess.run([sys.executable, "-c", tiles.TRIAL], capture_output=True)
    assert tiles.tiles_work() == (trial.returncode == 0)
    assert tiles.model_parameters().use_extra_bufts == tiles.tiles_work()


def test_the_answer_is_kept_and_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiles, "FEATURE", "")  # every engine says that
    works = tiles.tiles_work()
    (known,) = (tmp_path / "cache").glob("tiles-*")
    assert known.read_text() == ("work" if works else "fail")
    known.write_text("fail")
    tiles.tiles_work.cache_clear()
    assert not tiles.tiles_work() and not tiles.model_parameters().use_extra_bufts


def test_without_a_cache_it_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setattr(tiles, "FEATURE", "")
    first = tiles.tiles_work()
    tiles.tiles_work.cache_clear()
    assert tiles.tiles_work() == first

"""Trying tensors: what is changed comes back, noise that matters is told from noise that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support import ROOT

from llamacli.errors import EngineError
from llamacli.evaluate.sensitivity import Change, Sensitivity, grouped, probes_worth, windows_worth
from llamacli.evaluate.windows import cut_text
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine

TEXT = (ROOT / "tests" / "data" / "evaluate" / "text.txt").read_text()
HEAD, LAST = "output.weight", "blk.1.ffn_down.weight"


@pytest.fixture(scope="module")
def engine(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    settings = EngineSettings(threads=1, mmap=False)
    with open_engine(converted("tinystories-656k-wide256", "F32"), settings) as engine:
        yield engine


def zeros(name: str, size: int, offset: int = 0) -> Change:
    return Change(name, offset, memoryview(np.zeros(size // 4, np.float32)).cast("B"))


def test_after_every_trial_the_model_is_what_it_was(engine: LlamaEngine) -> None:
    sizes = {tensor.name: tensor.size_bytes for tensor in engine.gguf.tensors}
    with Sensitivity(engine, cut_text(engine, TEXT, 64, 2)) as trial:
        assert trial.divergence([]) == 0
        assert trial.reaches(HEAD) and trial.reaches("token_embd.weight") and not trial.reaches("nothing.weight")
        whole = trial.divergence([zeros(HEAD, sizes[HEAD])])
        half = trial.divergence([zeros(HEAD, sizes[HEAD] // 8, offset=sizes[HEAD] // 2)])
        both = trial.divergence([zeros(HEAD, sizes[HEAD]), zeros(LAST, sizes[LAST])])
        assert 0 < half < whole
        assert both == pytest.approx(whole)  # without a head nothing before it matters
        with pytest.raises(EngineError, match="takes no part"):
            trial.divergence([zeros(LAST, sizes[LAST]), zeros("nothing.weight", 4)])
        assert trial.divergence([]) == 0


def test_large_vocabularies_are_judged_by_some_positions(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacli.evaluate.sensitivity.KEPT_BYTES", 8 * 4 * engine.vocab.size)
    with Sensitivity(engine, cut_text(engine, TEXT, 64, 1)) as trial:
        assert trial.divergence([zeros(LAST, 4096)]) > 0
        assert len(trial._base) <= 8


def test_neighbouring_blocks_are_tried_together_where_there_are_many() -> None:
    names = [f"blk.{block}.{part}.weight" for block in range(30) for part in ("attn_q", "ffn_up")]
    names.append("output.weight")
    assert grouped(names, 100) == [[name] for name in names]
    groups = grouped(names, 20)
    assert len(groups) <= 22 and sorted(name for group in groups for name in group) == sorted(names)
    assert ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.2.attn_q.weight", "blk.3.attn_q.weight"] in groups
    assert ["output.weight"] in groups


def test_small_models_are_tried_on_more_text() -> None:
    assert windows_worth(7_000_000, 44, 100) == 4
    assert windows_worth(7_000_000, 44, 3) == 3
    assert windows_worth(8_000_000_000, 128, 100) == 1
    assert probes_worth(7_000_000) == 128
    assert 24 < probes_worth(1_240_000_000) < 128
    assert probes_worth(70_000_000_000) == 24

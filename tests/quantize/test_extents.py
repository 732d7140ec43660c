"""A block's bytes are known before it is read: no family reads a byte that was not announced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import MODELS, SHARED

from llamacli.checkpoint.source import Folder
from llamacli.errors import LlamacliError
from llamacli.formats.extents import extents
from llamacli.formats.file_access import LocalFile
from llamacli.formats.rows import Arena, row_count, together
from llamacli.quantize.model import open_model

CHECKPOINTS = [*MODELS.values(), *(path.parent for path in sorted((SHARED / "families").glob("*/config.json")))]
LATER = re.compile(r"blk\.([3-9]|\d\d+)\..*")
"""Tensors of blocks that are like the first ones."""


class Recorder:
    """A file that remembers what was read of it."""

    def __init__(self, file: LocalFile) -> None:
        self.file, self.size = file, file.size
        self.reads: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, offset + len(buffer)))
        self.file.read_into(offset, buffer)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.name)
def test_no_more_is_read_than_was_announced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Recorder] = []

    def opened(self: Folder, name: str) -> Recorder:
        files.append(Recorder(LocalFile(self.path / name)))
        return files[-1]

    monkeypatch.setattr(Folder, "open", opened)
    try:
        model = open_model(path)
    except LlamacliError as error:
        pytest.skip(str(error))
    for name, rows in model.tensors.items():
        if LATER.fullmatch(name):
            continue
        count, step = row_count(rows.shape), together(rows)
        for start in range(0, count, max(step, -(-count // 3 // step) * step)):
            stop = min(count, start + max(step, -(-count // 3 // step) * step))
            announced = extents(rows, start, stop)
            for file in files:
                file.reads.clear()
            rows.read(start, stop, Arena())
            for file in files:
                spans = [(low, high) for known, low, high in announced if known is file]
                for low, high in file.reads:
                    assert any(a <= low and high <= b for a, b in spans), f"{name} rows {start} to {stop}"

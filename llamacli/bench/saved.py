"""Results that were kept with --save, one file of JSON each, found again by id, by `last`, or by path."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from llamacli.bench.formats import to_json
from llamacli.bench.record import Record
from llamacli.errors import CannotWrite, NotFound
from llamacli.formats.durable import write_whole


def save(folder: Path, records: Sequence[Record], now: float) -> Path:
    """Keep `records` in `folder` under an id that sorts by time, and return the file. Raises CannotWrite."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    path = folder / f"{stamp}-{secrets.token_hex(2)}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_json(records))
    except OSError as error:
        raise CannotWrite(f"cannot save the results in {folder}: {error.strerror}") from error
    return path


def find(folder: Path, wanted: str, path: Path) -> Path:
    """The file that `wanted` means: `last`, an id or its beginning, or `path`, if it is one. Raises NotFound."""
    kept = sorted(folder.glob("*.json"))
    if wanted == "last":
        if kept:
            return kept[-1]
        raise NotFound("no results have been saved yet", "run the benchmark once with --save")
    if path.is_file():
        return path
    matching = [file for file in kept if file.name.startswith(wanted)]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(file.stem for file in kept[-5:]) or "none"
    reason = "several saved results begin so" if matching else "no such file or saved result"
    raise NotFound(f"--compare {wanted}: {reason}", f"saved last: {known}")

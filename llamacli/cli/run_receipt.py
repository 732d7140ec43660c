"""`run --receipt FILE`: what was asked and answered, with which file, engine and settings, so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llamacli import __version__
from llamacli.cli.context import Context, located
from llamacli.errors import CannotWrite


def check_receipt(here: Context, name: str) -> Path:
    """Where the receipt goes. Raises CannotWrite before anything is generated."""
    from llamacli.formats.atomic import check_target

    path = located(here.cwd, name)
    if path.is_dir():
        raise CannotWrite(f"--receipt {name} is a folder")
    return check_target(path)


def write_receipt(here: Context, path: Path, question: dict[str, Any], answer: dict[str, Any]) -> None:
    """Write the receipt, whole or not at all. Raises CannotWrite."""
    import datetime

    from llamacli.formats.atomic import atomic_file
    from llamacli.runtime.backends import engine_info

    model = dict(answer.get("model", {}))
    model["sha256"] = model.get("sha256") or sha256_of(Path(model["file"]))
    when = datetime.datetime.fromtimestamp(here.now(), datetime.timezone.utc)
    data = {
        "llamacli": __version__,
        "engine": engine_info().acceleration,
        "time": when.isoformat(timespec="seconds"),
        "question": {**question, "sha256": hashlib.sha256(question["text"].encode()).hexdigest()},
        "answer": {**answer, "model": model, "sha256": hashlib.sha256(answer["text"].encode()).hexdigest()},
    }
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    with atomic_file(path) as writing:
        writing.file.write(text.encode())


def sha256_of(path: Path) -> str:
    """The digest of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

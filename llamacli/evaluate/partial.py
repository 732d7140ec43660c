"""What has been measured so far, kept on disk so that an interrupted evaluation goes on instead of starting again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from llamacli.formats.atomic import atomic_file

Samples: TypeAlias = "Mapping[str, NDArray[np.float32]]"
"""One value a token, by what was measured."""

SAVE_EVERY = 20.0
"""Seconds."""

ABANDONED = 14 * 86400.0
"""Seconds after which nobody will go on with an evaluation."""


def sweep(folder: Path, now: float) -> None:
    """Remove what evaluations have left that were broken off long ago."""
    with contextlib.suppress(OSError):
        for path in folder.glob("*.npz"):
            if now - path.stat().st_mtime > ABANDONED:
                path.unlink(missing_ok=True)


class Partial:
    """Samples of several models over the first `windows` windows of a text.

    With a `path` they are kept there; what is there already counts if it was measured under the same `key`, which
    names everything that the samples depend on.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path, self._key = path, key
        self._saved_at = time.monotonic()
        self.windows = 0
        self._parts: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
        if path is not None and path.is_file():
            self._load(path)

    def add(self, windows: int, found: Mapping[str, Samples]) -> None:
        """Take in what was measured on some more windows, for every model."""
        for model, samples in found.items():
            kinds = self._parts.setdefault(model, {})
            for kind, values in samples.items():
                kinds.setdefault(kind, []).append(values)
        self.windows += windows
        if time.monotonic() - self._saved_at > SAVE_EVERY:
            self.save()

    def samples(self, model: str) -> Samples:
        """Everything measured of one model."""
        return {kind: np.concatenate(parts) for kind, parts in self._parts[model].items()}

    def save(self) -> None:
        """Write what there is, if there is a place for it and anything to keep."""
        self._saved_at = time.monotonic()
        if self._path is None or not self.windows:
            return
        arrays: dict[str, Any] = {
            f"{kind}/{model}": values for model in self._parts for kind, values in self.samples(model).items()
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self._path, force=True) as writing:
            np.savez(writing.file, key=np.array(self._key), windows=np.array(self.windows), **arrays)

    def discard(self) -> None:
        """Remove the file: the measurement is complete and reported."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _load(self, path: Path) -> None:
        # A file that cannot be read costs no more than measuring again.
        with contextlib.suppress(OSError, ValueError, KeyError, BadZipFile), np.load(path) as file:
            if str(file["key"]) != self._key:
                return
            for name in file.files:
                kind, _, model = name.partition("/")
                if model:
                    self._parts.setdefault(model, {})[kind] = [file[name]]
            self.windows = int(file["windows"])

"""How activations go together, as the thorough search asks for it: second moments within windows of columns."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import CorruptFile
from llamacli.formats.products import Place, Window


@dataclass(frozen=True, eq=False)
class Covariance:
    """A file of sums of products, and the places in it by the GGUF names of the tensors."""

    path: Path
    places: Mapping[str, Place]

    @property
    def known(self) -> Container[str]:
        """The tensors that something is known about."""
        return self.places.keys()

    def renamed(self, names: Mapping[str, str | None]) -> Covariance:
        """The same under other names, as `prune_layers` gives them; a tensor that is gone goes here too."""
        moved = {names.get(name, name): place for name, place in self.places.items()}
        return replace(self, places={name: place for name, place in moved.items() if name is not None})

    def moments(self, window: Window, tokens: int) -> NDArray[np.float64]:
        """The mean products of a window's columns."""
        with self.path.open("rb") as file:
            file.seek(window.offset)
            data = file.read(window.size_bytes)
        if len(data) != window.size_bytes:
            raise CorruptFile(f"{self.path} ends early", "it was changed while it was in use; start again")
        sums = np.frombuffer(data, np.float32).reshape(window.columns, window.columns)
        means: NDArray[np.float64] = sums / np.float64(tokens)
        return means

    def digest(self) -> bytes:
        """Equal for the same sums."""
        found = hashlib.sha256(repr(sorted((name, place) for name, place in self.places.items())).encode())
        with self.path.open("rb") as file:
            while data := file.read(1 << 22):
                found.update(data)
        return found.digest()

"""How much a model's answers suffer from noise in one of its tensors, found by trying.

The model stands in memory in 16 bits or more. A few tensors at a time get other values, the same windows of a text are
read again, and the divergence from what the untouched model said is the answer; then the old values come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import EngineError
from llamacli.evaluate.divergence import Logits, differences
from llamacli.evaluate.windows import CutText
from llamacli.runtime.llama import LlamaEngine
from llamacli.runtime.weights import Weights
from llamacli.runtime.windows import Windows

KEPT_BYTES = 1 << 28
"""Logits of the untouched model that are kept; where a vocabulary is large, of fewer positions."""


@dataclass(frozen=True, eq=False)
class Change:
    """Other values for a stretch of a tensor: `data` as the tensor is stored, from its byte `offset` on."""

    tensor: str
    offset: int
    data: memoryview


class Sensitivity:
    """The untouched model's answers to `text`, against which changes are held. Used as a context manager.

    `engine` must have been loaded without `mmap`. Raises EngineError where it fails.
    """

    def __init__(self, engine: LlamaEngine, text: CutText) -> None:
        self._windows = [text.window(number) for number in range(len(text))]
        self._sizes = {tensor.name: tensor.size_bytes for tensor in engine.gguf.tensors}
        self._weights = Weights(self._sizes)
        self._step = max(1, -(-4 * engine.vocab.size * len(text) * text.size // KEPT_BYTES))
        self._context = Windows(engine, text.size, sequences=len(text), observer=self._weights)
        self._size = text.size
        self._base = self._read()

    def divergence(self, changes: Iterable[Change]) -> float:
        """Mean KL divergence, in nats, with these changes and no others."""
        old: dict[str, object] = {}
        try:
            for change in changes:
                if change.tensor not in old:
                    old[change.tensor] = self._weights.read(change.tensor, self._sizes.get(change.tensor, 0))
                self._weights.write(change.tensor, change.offset, change.data)
            found = self._read()
        finally:
            for name, data in old.items():
                self._weights.write(name, 0, data)  # type: ignore[arg-type]
        ids = np.zeros(len(found), np.int64)
        mean = float(differences(self._base, found, ids).divergence.mean())
        if not np.isfinite(mean):
            raise EngineError("the model computes NaN with a tensor in fewer bits", "its weights may be damaged")
        return max(mean, 0.0)

    def reaches(self, tensor: str) -> bool:
        """Whether the tensor takes part in what the model computes."""
        return tensor in self._weights

    def _read(self) -> Logits:
        """Logits at the chosen positions: (positions, vocabulary)."""
        parts: list[NDArray[np.float32]] = []
        for stretch in self._context.evaluate(self._windows, self._size // 4):
            shape = (len(self._windows), stretch.stop - stretch.start, self._context.engine.vocab.size)
            view: Logits = np.ctypeslib.as_array(stretch.logits, shape)
            parts.append(view[:, :: self._step].reshape(-1, shape[-1]).copy())
        return np.concatenate(parts)

    def close(self) -> None:
        """Free the context; the engine stays."""
        self._context.close()

    def __enter__(self) -> Sensitivity:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def windows_worth(weights: int, probes: int, available: int) -> int:
    """How many windows to try every probe on: more for small models, where each costs little."""
    return max(1, min(available, MOST_WINDOWS, _WORK // max(1, weights * probes * 512)))


def probes_worth(weights: int) -> int:
    """In how many groups to try the tensors: fewer of large models, where each takes long."""
    return max(FEWEST_PROBES, min(MOST_PROBES, _WORK // (512 * weights)))


_WORK = 2 * 10**13
"""Weights times tokens: three or four minutes on two cores."""
FEWEST_PROBES, MOST_PROBES = 24, 128
MOST_WINDOWS = 4
"""Enough to know a tensor's share to a few per cent; its errors in two types differ by far more."""


def grouped(names: Sequence[str], most: int) -> list[list[str]]:
    """Tensors to be tried together: those of the same name in neighbouring blocks, in at most about `most` groups."""
    together = -(-len(names) // most)
    groups: dict[tuple[str, int], list[str]] = {}
    for name in names:
        parts = name.split(".", 2)
        in_block = parts[0] == "blk" and len(parts) == 3 and parts[1].isdigit()
        key = (parts[2], int(parts[1]) // together) if in_block else (name, 0)
        groups.setdefault(key, []).append(name)
    return list(groups.values())

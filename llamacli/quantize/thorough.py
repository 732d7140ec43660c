"""The thorough search: levels that an ordinary search has chosen are chosen again, so that errors make up for one another.

It works on finished blocks, whichever kernel made them, and leaves their scales as they are. What is done to a window
of columns is in `fast/compensate.py`; here blocks are taken apart and put together, and what the activations say of a
window is prepared once for all rows and for all tensors with the same input.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import UsageError
from llamacli.formats.products import WIDTH, Window
from llamacli.formats.tensor_types import TensorType
from llamacli.quantize.covariance import Covariance
from llamacli.quantize.grids import GRIDS
from llamacli.quantize.kernels import Rows, address

try:
    from llamacli.quantize.fast import compensate as fast
    from llamacli.quantize.fast import compiled
    from llamacli.quantize.fast.tiles import BF16, F16, F32
except ImportError as error:  # numba is absent, or refuses this numpy or this Python
    raise UsageError(
        f"--search thorough needs numba: {error}", "install it with `pip install --upgrade numba`"
    ) from error

SWEEPS = 3
DAMPING = 0.01
"""What is added to the diagonal, as a share of its mean: activations that the text did not show are not impossible."""
INPUTS_KEPT = 4
"""Inputs whose moments are kept: neighbouring tensors are worked on at the same time."""

assert WIDTH <= fast.WIDTH  # compiled code does not look at where its memory ends

_STORAGE = {"float32": F32, "float16": F16, "uint16": BF16}


class Thorough:
    """What one run knows and has prepared. Threads may share it."""

    def __init__(self, covariance: Covariance, *, keep: int = INPUTS_KEPT) -> None:
        self._covariance, self._keep = covariance, keep
        self._lock = threading.Lock()
        self._local = threading.local()
        self._prepared: OrderedDict[int, list[tuple[Window, fast.Moments]]] = OrderedDict()

    def knows(self, name: str) -> bool:
        """Whether anything was seen of what this tensor is multiplied with."""
        return name in self._covariance.known

    def weighted(self, name: str, errors: NDArray[np.float32]) -> float:
        """How much errors (rows, columns) in a tensor matter: the sum of e'Ce over its rows, window by window."""
        total = 0.0
        for window, moments in self._moments(name):
            part = errors[:, window.first + moments.order]
            total += float(np.vdot(part @ moments.matrix.reshape(window.columns, window.columns), part))
        return total

    def improves(self, name: str, kind: TensorType) -> bool:
        """Whether there is anything to do for this tensor in this type."""
        return kind.name in GRIDS and self.knows(name)

    def improve(self, name: str, kind: TensorType, rows: Rows, blocks: NDArray[np.uint8]) -> None:
        """Choose the levels of `blocks`, which hold `rows` (rows, columns) of tensor `name`, anew."""
        grid, each = GRIDS[kind.name], blocks.reshape(-1, kind.block_bytes)
        scales, offsets = (np.ascontiguousarray(values, np.float32).reshape(-1) for values in grid.scales(each))
        levels = np.ascontiguousarray(grid.levels(each))
        flat, columns = levels.reshape(-1), rows.shape[1]
        for window, moments in self._moments(name):
            work = fast.Window(
                source=address(rows),
                storage=_STORAGE[rows.dtype.name],
                stride=columns,
                rows=rows.shape[0],
                first=window.first,
                columns=window.columns,
                part=grid.part,
                least=float(grid.least),
                most=float(grid.most),
                table=int(grid.table),
            )
            fast.compensate(work, flat, scales, offsets, moments, SWEEPS, self._room())
        grid.put(each, levels)

    def _moments(self, name: str) -> list[tuple[Window, fast.Moments]]:
        """The windows of a tensor's columns, but those where all that was seen is zero."""
        place = self._covariance.places[name]
        with self._lock:
            found = self._prepared.get(place.offset)
            if found is None:
                prepared = ((window, self._prepare(window, place.tokens)) for window in place.windows())
                found = [(window, moments) for window, moments in prepared if moments is not None]
                self._prepared[place.offset] = found
                if len(self._prepared) > self._keep:
                    self._prepared.popitem(last=False)
            self._prepared.move_to_end(place.offset)
            return found

    def _prepare(self, window: Window, tokens: int) -> fast.Moments | None:
        square = self._covariance.moments(window, tokens)
        typical = float(np.trace(square)) / window.columns
        if not typical > 0:
            return None
        square[np.diag_indices(window.columns)] += DAMPING * typical
        return fast.factorized(square)

    def _room(self) -> fast.Room:
        room: fast.Room | None = getattr(self._local, "room", None)
        if room is None:
            room = self._local.room = fast.new_room()
        return room


def needs_compile() -> bool:
    """Whether this user has not used the search before."""
    return not compiled.is_kept(fast.compensate.__name__)


def prepare() -> None:
    """Compile or load what is needed, by working on one block of zeros."""
    moments = fast.factorized(np.eye(32))
    zeros, levels = np.zeros(32, np.float32), np.zeros(32, np.uint8)
    window = fast.Window(address(zeros), F32, 32, 1, 0, 32, 32, 0.0, 15.0, 0)
    fast.compensate(window, levels, zeros[:1].copy(), zeros[:1].copy(), moments, 1, fast.new_room())
    compiled.remember(fast.compensate.__name__)

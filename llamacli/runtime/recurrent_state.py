"""The state of a recurrent or hybrid model at one place of a prompt: it cannot be computed back, only put back."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

_RECURRENT_ONLY = 1
"""LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY."""


class RecurrentState:
    """One remembered place. Keys and values of attention stay in the cache, so no copy of them is held."""

    def __init__(self, library: Any) -> None:
        self._lib = library
        self.cells: list[int] = []
        self._state: Any = None

    def forget(self) -> None:
        """Hold nothing."""
        self.cells, self._state = [], None

    def remember(self, context: Any, cells: Sequence[int]) -> None:
        """The state as it is now, after `cells`."""
        self.forget()
        size = self._lib.llama_state_seq_get_size_ext(context, 0, _RECURRENT_ONLY)
        state = (ctypes.c_uint8 * size)()
        if size and self._lib.llama_state_seq_get_data_ext(context, state, size, 0, _RECURRENT_ONLY) == size:
            self.cells, self._state = list(cells), state

    def put_back(self, context: Any, memory: Any) -> bool:
        """Make the remembered state that of the context, and cut its cache back to there."""
        if not self._state:
            return False
        put = self._lib.llama_state_seq_set_data_ext(context, self._state, len(self._state), 0, _RECURRENT_ONLY)
        return bool(put and self._lib.llama_memory_seq_rm(memory, 0, len(self.cells), -1))

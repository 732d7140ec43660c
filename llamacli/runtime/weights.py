"""The weights of a loaded model, found in its graph, to be looked at and changed in place.

Only for a model that was loaded into memory of its own (`EngineSettings.mmap` false): a mapped file is read-only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Container

from llamacli.errors import EngineError
from llamacli.runtime import bindings
from llamacli.runtime.graph import Node


class Weights:
    """An observer that learns, while the model computes, where the tensors of these names lie."""

    def __init__(self, names: Container[str]) -> None:
        self._names = names
        self._at: dict[str, int] = {}
        kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
        self._get = bindings.ggml_function("ggml_backend_tensor_get", None, *kinds)
        self._set = bindings.ggml_function("ggml_backend_tensor_set", None, *kinds)

    def wants(self, node: Node) -> bool:
        """Remember where a weight lies; no node's data is wanted."""
        if node.src[0]:
            weight = node.src[0].contents
            name = weight.name.decode("utf-8", "replace")
            if name in self._names:
                self._at[name] = ctypes.addressof(weight)
        return False

    def see(self, node: Node) -> None:
        """Never called, because nothing is wanted."""

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def read(self, name: str, size: int) -> ctypes.Array[ctypes.c_char]:
        """The first `size` bytes of a tensor, as it is stored. Raises EngineError for one that was not seen."""
        data = (ctypes.c_char * size)()
        self._get(self._place(name), data, 0, size)
        return data

    def write(self, name: str, offset: int, data: ctypes.Array[ctypes.c_char] | memoryview) -> None:
        """Put `data` into a tensor, from its byte `offset` on."""
        size = ctypes.sizeof(data) if isinstance(data, ctypes.Array) else data.nbytes
        source = data if isinstance(data, ctypes.Array) else (ctypes.c_char * size).from_buffer(data)
        self._set(self._place(name), source, offset, size)

    def _place(self, name: str) -> int:
        if name not in self._at:
            raise EngineError(f"{name} takes no part in what the model computes")
        return self._at[name]

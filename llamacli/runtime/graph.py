"""What flows through the engine's graph: nodes seen through its evaluation callback (`cb_eval`).

llama.cpp asks about every node whether anyone wants its data; where the answer is yes it stops after computing it and
hands it over. The layout of a node is ggml's (`struct ggml_tensor` in `ggml.h`), checked before the first use.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Protocol

from llamacli.errors import EngineError
from llamacli.runtime import bindings

_ADDRESS = ctypes.c_void_p
_OVERHEAD = 32
"""Bytes that ggml keeps beside a node (`struct ggml_object`)."""


class Node(ctypes.Structure):
    """ggml_tensor. `ne`: extents, the row's length first; `nb`: strides in bytes; `src`: what it is computed from."""

    type: int
    buffer: int | None
    ne: ctypes.Array[ctypes.c_int64]
    nb: ctypes.Array[ctypes.c_size_t]
    op: int
    src: Any
    data: int | None
    name: bytes


Node._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", _ADDRESS),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Node) * 10),
    ("view_src", _ADDRESS),
    ("view_offs", ctypes.c_size_t),
    ("data", _ADDRESS),
    ("name", ctypes.c_char * 64),
    ("extra", _ADDRESS),
    ("padding", ctypes.c_char * 8),
]


class Observer(Protocol):
    """Someone who looks at nodes while the engine computes; both are called on the engine's thread."""

    def wants(self, node: Node) -> bool:
        """Whether the node's data and its sources' are wanted once it is computed."""

    def see(self, node: Node) -> None:
        """The node is computed. What this raises ends the evaluation and is raised from it."""


class GraphWatch:
    """The callback for `llama_context_params.cb_eval`; it must live as long as the context."""

    def __init__(self, observer: Observer) -> None:
        _check_layout()
        self._observer = observer
        self.fault: BaseException | None = None
        self.callback = bindings.load().ggml_backend_sched_eval_callback(self._called)

    def _called(self, address: int, ask: bool, data: object) -> bool:
        """Called from C: an exception is kept until the evaluation is over, which False ends."""
        try:
            node = Node.from_address(address)
            if ask:
                return self._observer.wants(node)
            if self.fault is None:
                self._observer.see(node)
        except BaseException as error:
            self.fault = self.fault or error
        return self.fault is None


def node_bytes(node: Node) -> memoryview:
    """The node's data, from its first byte to its last: in place where the processor can see it, else a copy."""
    size = _function("ggml_nbytes")(ctypes.byref(node))
    if node.data and node.buffer and _function("ggml_backend_buffer_is_host")(node.buffer):
        return memoryview((ctypes.c_char * size).from_address(node.data))
    copy = (ctypes.c_char * size)()
    _function("ggml_backend_tensor_get")(ctypes.byref(node), copy, 0, size)
    return memoryview(copy)


@functools.cache
def operation(name: str) -> int:
    """The number of an operation of ggml, such as MUL_MAT."""
    names = _function("ggml_op_name")
    for number in range(64):
        if names(number) == name.encode():
            return number
    raise EngineError(f"the engine has no operation {name}", "install a llama-cpp-python that this release supports")


_KINDS: dict[str, tuple[Any, ...]] = {
    "ggml_nbytes": (ctypes.c_size_t, _ADDRESS),
    "ggml_op_name": (ctypes.c_char_p, ctypes.c_int),
    "ggml_tensor_overhead": (ctypes.c_size_t,),
    "ggml_backend_buffer_is_host": (ctypes.c_bool, _ADDRESS),
    "ggml_backend_tensor_get": (None, _ADDRESS, _ADDRESS, ctypes.c_size_t, ctypes.c_size_t),
}
"""Functions by name: what each returns, then what it takes."""


@functools.cache
def _function(name: str) -> Any:
    return bindings.ggml_function(name, *_KINDS[name])


def _check_layout() -> None:
    """Raise EngineError unless this build's nodes are laid out as `Node` says."""
    if _function("ggml_tensor_overhead")() != ctypes.sizeof(Node) + _OVERHEAD:
        raise EngineError(
            "this engine's graph is laid out in a way that is not known here",
            "install the llama-cpp-python that this release was tested with",
        )

"""Whether the engine's matrix tiles (Intel's AMX) compute right on this machine, tried once in a process of its own.

GCC before 13 tells its optimizer that `ldtilecfg` reads 8 of the 64 bytes that it reads, so an engine compiled by it sets
up no tile and ends the process with an illegal instruction at the first prompt. Nothing that the engine says gives that
away: it has to be tried.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import sys
from typing import Any

from llamacli.runtime import bindings
from llamacli.user_cache import user_cache

FEATURE = "AMX_INT8 = 1"
"""How the engine says that its code uses tiles (llama_print_system_info)."""

TRIAL = f"from {__name__} import product_is_right; assert product_is_right()"

_ROWS, _COLUMNS, _TOKENS = 64, 256, 32
_F32, _Q8_0 = 0, 8
"""ggml's numbers for types."""


def model_parameters() -> Any:
    """llama_model_default_params, without the layouts of weights for tiles where these do not work."""
    parameters = bindings.load().llama_model_default_params()
    if not tiles_work():
        parameters.use_extra_bufts = False
    return parameters


@functools.cache
def tiles_work() -> bool:
    """False if the engine would use tiles and fail; the answer is kept for each build of the engine."""
    if FEATURE not in bindings.load().llama_print_system_info().decode("utf-8", "replace"):
        return True
    name = hashlib.sha256(bindings.build().encode()).hexdigest()[:16]
    known = user_cache() / f"tiles-{name}"
    try:
        return known.read_text(encoding="ascii") == "work"
    except (OSError, UnicodeDecodeError):
        works = _tried()
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text("work" if works else "fail", encoding="ascii")
    except OSError:
        pass  # a cache that cannot be written costs the trial again
    return works


def _tried() -> bool:
    try:
        return subprocess.run([sys.executable, "-c", TRIAL], capture_output=True, timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class _Arena(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def product_is_right() -> bool:
    """Multiply ones by ones in the tiles' own layout; every element must be the number of columns."""
    pointer, size = ctypes.c_void_p, ctypes.c_size_t

    def call(name: str, result: Any, *arguments: Any) -> Any:
        return bindings.ggml_function(name, result, *map(type, arguments))(*arguments)

    device = pointer(call("ggml_backend_dev_by_type", pointer, ctypes.c_int(0)))
    layout = _tile_layout(call, device)
    if layout is None:
        return True
    arena = call("ggml_init", pointer, _Arena(1 << 20, None, True))

    def matrix(kind: int, rows: int) -> ctypes.c_void_p:
        wide, high = ctypes.c_int64(_COLUMNS), ctypes.c_int64(rows)
        return pointer(call("ggml_new_tensor_2d", pointer, pointer(arena), ctypes.c_int(kind), wide, high))

    weights, inputs = matrix(_Q8_0, _ROWS), matrix(_F32, _TOKENS)
    room = call("ggml_backend_buft_get_alloc_size", ctypes.c_size_t, layout, weights)
    buffer = pointer(call("ggml_backend_buft_alloc_buffer", pointer, layout, size(room)))
    base = pointer(call("ggml_backend_buffer_get_base", pointer, buffer))
    call("ggml_backend_tensor_alloc", ctypes.c_int, buffer, weights, base)
    product = pointer(call("ggml_mul_mat", pointer, pointer(arena), weights, inputs))
    backend = pointer(call("ggml_backend_dev_init", pointer, device, ctypes.c_char_p(None)))
    call("ggml_backend_alloc_ctx_tensors", pointer, pointer(arena), backend)
    block = b"\x00\x3c" + b"\x01" * 32  # the scale 1.0 as float16, then 32 ones
    _set(call, weights, block * (_ROWS * _COLUMNS // 32))
    _set(call, inputs, bytes((ctypes.c_float * (_COLUMNS * _TOKENS))(*[1.0] * (_COLUMNS * _TOKENS))))
    graph = pointer(call("ggml_new_graph", pointer, pointer(arena)))
    call("ggml_build_forward_expand", None, graph, product)
    call("ggml_backend_graph_compute", ctypes.c_int, backend, graph)
    found = (ctypes.c_float * (_ROWS * _TOKENS))()
    out = ctypes.cast(found, pointer)
    call("ggml_backend_tensor_get", None, product, out, size(0), size(ctypes.sizeof(found)))
    return all(abs(value - _COLUMNS) < 1 for value in found)


def _set(call: Any, tensor: ctypes.c_void_p, data: bytes) -> None:
    size = ctypes.c_size_t
    call("ggml_backend_tensor_set", None, tensor, ctypes.c_char_p(data), size(0), size(len(data)))


def _tile_layout(call: Any, device: ctypes.c_void_p) -> ctypes.c_void_p | None:
    """The buffer type in which weights are laid out for tiles, or None where the engine has none."""
    registry = ctypes.c_void_p(call("ggml_backend_dev_backend_reg", ctypes.c_void_p, device))
    name = ctypes.c_char_p(b"ggml_backend_dev_get_extra_bufts")
    address = call("ggml_backend_reg_get_proc_address", ctypes.c_void_p, registry, name)
    if not address:
        return None
    layouts = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
    for layout in layouts or ():
        if layout is None:
            break
        if call("ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p(layout)) == b"AMX":
            return ctypes.c_void_p(layout)
    return None

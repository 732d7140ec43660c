"""Worker threads that stay alive between tokens, as llama.cpp's own programs attach them to a context.

Without one, an engine that was built without OpenMP (the rule on a Mac) starts and ends its threads for every token.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llamacli.runtime import bindings
from llamacli.runtime.backends import processor_symbol

MOST_THREADS = 512
"""GGML_MAX_N_THREADS."""


class _Params(ctypes.Structure):
    """ggml_threadpool_params (ggml.h)."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * MOST_THREADS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class ThreadPool:
    """`threads` workers. `attach` them to a context; `close` only after that context has been freed or detached."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: int | None = None
        create = processor_symbol("ggml_threadpool_new", ctypes.c_void_p, ctypes.POINTER(_Params))
        if create is not None:
            params = _Params()
            initialise = bindings.ggml_function(
                "ggml_threadpool_params_init", None, ctypes.POINTER(_Params), ctypes.c_int
            )
            initialise(ctypes.byref(params), threads)
            self._pool = create(ctypes.byref(params))

    def attach(self, context: Any) -> None:
        """Let `context` (a llama_context pointer) compute with these workers; without a pool nothing changes."""
        if self._pool:
            attach = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
            attach(("llama_attach_threadpool", bindings.load()._lib))(context, self._pool, None)

    def close(self) -> None:
        """End the workers. Calling it twice does no harm."""
        if self._pool:
            free = processor_symbol("ggml_threadpool_free", None, ctypes.c_void_p)
            free(self._pool)
            self._pool = None

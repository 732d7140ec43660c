"""The low-level bindings of llama.cpp, imported lightly, with the engine's log in a ring instead of on the screen.

llama-cpp-python's package imports numpy, jinja2 and a disk cache (0.2 s). Its module of plain C functions needs none of
them, so the package is entered by a side door: an empty package object whose path is the real one.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from llamacli.errors import EngineError

LOG_LINES = 2000
_CONTINUED = 5
"""ggml's log level for text that goes on with the line before."""

_GPU_TYPES = (1, 2)
"""ggml's numbers for graphics cards of their own and for those in the processor."""

_REINSTALL = "reinstall it for this machine: pip install --force-reinstall --no-cache-dir llama-cpp-python"

_lines: deque[str] = deque(maxlen=LOG_LINES)
_listeners: list[Callable[[str], None]] = []
_kept: list[object] = []
"""Callbacks that C holds pointers to; they must live as long as the process."""


@functools.cache
def load() -> Any:
    """The module of llama.cpp's C functions, its log captured and its backend ready. Raises EngineError."""
    # Every abort in native code would start a debugger and print pages.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    module = _import()
    callback = module.llama_log_callback(keep_line)
    hold(callback)
    module.llama_log_set(callback, None)
    module.llama_backend_init()
    return module


def ggml_function(name: str, result: Any, *kinds: Any) -> Any:
    """A function of the library below llama.cpp: backends, devices, tensors. Raises EngineError where it is missing.

    The prototype is the caller's own, so that nobody changes how others call the same function.
    """
    for library in _ggml_libraries():
        if hasattr(library, name):
            return ctypes.CFUNCTYPE(result, *kinds)((name, library))
    raise EngineError(f"the engine has no function {name}", "install a llama-cpp-python that this release supports")


@functools.cache
def _ggml_libraries() -> tuple[ctypes.CDLL, ...]:
    """Where ggml's functions are looked for.

    `ggml` has the list of backends, `ggml-base` nearly all the rest. Linux and macOS also look in what a library needs;
    Windows does not. There, a library that is loaded already is not loaded a second time.
    """
    module = load()
    names = ("ggml", "ggml-base") if sys.platform == "win32" else ("ggml",)
    open_library = importlib.import_module("llama_cpp._ctypes_extensions").load_shared_library
    try:
        return tuple(open_library(name, module._base_path) for name in names)
    except (RuntimeError, OSError) as error:
        raise EngineError(f"the inference engine is not whole: {error}", _REINSTALL) from error


def _import() -> Any:
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or not spec.submodule_search_locations:
            raise EngineError("llama-cpp-python is not installed", "pip install llama-cpp-python")
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["llama_cpp"] = package
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except (RuntimeError, OSError, ImportError) as error:
        raise EngineError(f"the inference engine cannot be loaded: {error}", _REINSTALL) from error


def hold(callback: object) -> None:
    """Keep what C holds a pointer to for as long as the process lives."""
    _kept.append(callback)


def keep_line(level: int, text: bytes | None, data: object) -> None:
    """Keep one piece of the engine's log. Called from C, on any thread, so it must not raise."""
    with contextlib.suppress(Exception):  # there is nobody above who could handle it
        line = (text or b"").decode("utf-8", "replace").rstrip("\n")
        if level == _CONTINUED and _lines:
            _lines[-1] += line
        elif line:
            _lines.append(line)
            for listener in _listeners:
                listener(line)


def log_lines(last: int = LOG_LINES) -> list[str]:
    """The last lines of the engine's log, oldest first."""
    return list(_lines)[-last:]


@functools.cache
def has_gpu() -> bool:
    """Whether the engine sees any device that is not the processor."""
    count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)()
    device = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    kind = ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    return any(kind(device(index)) in _GPU_TYPES for index in range(count))


def build() -> str:
    """What tells one build of the engine from another: its libraries with sizes and times, and what they use here."""
    module = load()
    parts = [
        f"{entry.name}:{entry.stat().st_size}:{entry.stat().st_mtime_ns}"
        for entry in os.scandir(module._base_path)
        if not entry.is_symlink()
    ]
    return "\n".join([*sorted(parts), module.llama_print_system_info().decode("utf-8", "replace")])


def listen(listener: Callable[[str], None]) -> None:
    """Hand every further line of the log to `listener` as it comes (for -vv)."""
    _listeners.append(listener)


@contextlib.contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Hand the lines of the log to `listener` for as long as the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def failure_hint(last: int = 3) -> str:
    """What the engine said about its failure: the last lines that speak of one, else the last lines."""
    words = ("error", "fail", "unable", "invalid", "unsupported", "out of memory", "not ")
    telling = [line for line in log_lines(60) if any(word in line.lower() for word in words)]
    return "\n".join((telling or log_lines(last))[-last:])

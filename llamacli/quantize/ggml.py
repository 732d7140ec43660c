"""ggml's own row functions, called in the library that the bindings run.

`libggml-base` stands beside the bindings' Python files. It is opened directly, without importing the package, whose
start takes longer than this whole module. Calls through ctypes release the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from pathlib import Path

from llamacli.errors import EngineError

REINSTALL = "Reinstall the engine with `pip install --force-reinstall llama-cpp-python`, then run `llamacli doctor`."


class GgmlRows:
    """Typed entry points of libggml-base. Addresses are plain integers; the caller keeps the memory alive."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        address, count = ctypes.c_void_p, ctypes.c_int64
        self._quantize = library.ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        self._quantize.argtypes = [ctypes.c_int, address, address, count, count, count, address]
        self._from_bf16 = library.ggml_bf16_to_fp32_row
        self._from_f16 = library.ggml_fp16_to_fp32_row
        for widen in (self._from_bf16, self._from_f16):
            widen.restype = None
            widen.argtypes = [address, address, count]

    def quantize(self, type_id: int, source: int, out: int, rows: int, columns: int, importance: int | None) -> int:
        """`rows` x `columns` float32 at `source` to blocks at `out`; returns the bytes written.

        ggml aborts the process on a row that its block does not divide and on a missing importance: check before.
        """
        return int(self._quantize(type_id, source, out, 0, rows, columns, importance))

    def restore(self, type_name: str, blocks: int, out: int, count: int) -> None:
        """The float32 values of `count` weights of a quantized type, from blocks at one address to another."""
        restore = self._library["dequantize_row_" + type_name.lower().replace("_k", "_K")]  # q4_K, but iq4_nl
        restore.restype = None
        restore.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        restore(blocks, out, count)

    def widen_bf16(self, source: int, out: int, count: int) -> None:
        """`count` bf16 bit patterns at `source` to float32 at `out`."""
        self._from_bf16(source, out, count)

    def widen_f16(self, source: int, out: int, count: int) -> None:
        """`count` binary16 values at `source` to float32 at `out`."""
        self._from_f16(source, out, count)


@functools.cache
def ggml_rows() -> GgmlRows:
    """Open the library once per process. Raises EngineError when the bindings are missing or incomplete."""
    # Without this ggml starts a debugger on every abort; it must be set before the library is loaded.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    path = _library_path(_library_folder())
    if sys.platform == "win32":
        os.add_dll_directory(str(path.parent))
    try:
        return GgmlRows(ctypes.CDLL(str(path)))
    except (OSError, AttributeError) as error:
        raise EngineError(f"the engine's library {path.name} cannot be used: {error}", REINSTALL) from error


def _library_folder() -> Path:
    override = os.environ.get("LLAMA_CPP_LIB_PATH")  # honoured by the bindings too
    if override:
        return Path(override)
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("llama-cpp-python is not installed", "Install it with `pip install llama-cpp-python`.")
    return Path(next(iter(spec.submodule_search_locations))) / "lib"


def _library_path(folder: Path) -> Path:
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.dll")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise EngineError(f"no ggml library in {folder}", REINSTALL)

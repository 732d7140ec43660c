"""The engine's functions, each in the library that it is taken from, as Windows wants it."""

from __future__ import annotations

import ast
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamacli.errors import EngineError
from llamacli.runtime import bindings
from llamacli.runtime.backends import processor_symbol

RUNTIME = Path(bindings.__file__).parent


def names_of_ggml() -> Iterator[tuple[str, bool]]:
    """Every function of ggml that is called by name, and whether it is asked of the processor's backend."""
    for path in sorted(RUNTIME.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and str(argument.value).startswith("ggml_"):
                        yield str(argument.value), called == "processor_symbol"


NAMES = sorted(set(names_of_ggml()))


def library_of(function: object) -> str:
    """The file that holds a function, as the loader tells it."""

    class Found(ctypes.Structure):
        _fields_ = (
            ("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("at", ctypes.c_void_p),
        )  # fmt: skip

    found = Found()
    address = ctypes.cast(function, ctypes.c_void_p)  # type: ignore[arg-type]
    assert ctypes.CDLL(None).dladdr(address, ctypes.byref(found))
    return Path(found.file.decode()).name.split(".")[0].removeprefix("lib")


def test_the_source_names_functions_of_ggml() -> None:
    assert len(NAMES) > 25
    assert ("ggml_threadpool_new", True) in NAMES


@pytest.mark.parametrize(("name", "of_processor"), NAMES)
def test_a_function_is_there(name: str, of_processor: bool) -> None:
    if of_processor:
        assert processor_symbol(name, None) is not None
    else:
        assert bindings.ggml_function(name, None)


@pytest.mark.skipif(sys.platform == "win32", reason="there the loader itself finds nothing in other libraries")
@pytest.mark.parametrize("name", [name for name, of_processor in NAMES if not of_processor])
def test_a_function_is_in_a_library_that_windows_would_be_asked_for(name: str) -> None:
    assert library_of(bindings.ggml_function(name, None)) in ("ggml", "ggml-base")


def test_a_function_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(EngineError, match="ggml_no_such_function"):
        bindings.ggml_function("ggml_no_such_function", None)

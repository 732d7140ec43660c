"""How the kernels are compiled, and where the machine code is kept.

Compiling takes seconds, so the code is kept in a folder per user, named after everything it depends on: the sources
here, numba, LLVM, Python and the processor. A new release or another processor gets a folder of its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import llvmlite
import llvmlite.binding
import numba
from numba.core import config

from llamacli.user_cache import user_cache

P = ParamSpec("P")
R = TypeVar("R")

UNUSED_SECONDS = 60 * 24 * 3600


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compiled as a part of an entry; never called from Python."""
    compiled: Callable[P, R] = numba.njit(nogil=True, boundscheck=False, error_model="numpy")(function)
    return compiled


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Compiled when first called, kept on disk, run without the interpreter's lock.

    Where no folder can be written, the code is compiled anew in every process.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = os.access(folder, os.W_OK)
    except OSError:
        kept = False
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    compiled: Callable[P, R] = numba.njit(nogil=True, boundscheck=False, error_model="numpy", cache=kept)(function)
    config.CACHE_DIR = before
    return compiled


@functools.cache
def cache_folder() -> Path:
    """Where this machine code is kept: NUMBA_CACHE_DIR when set, else a folder in the user's cache."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen) / f"llamacli-{_fingerprint()}"
    return user_cache() / "kernels" / _fingerprint()


def is_kept(name: str) -> bool:
    """Whether the entry called `name` was compiled and kept before."""
    return _mark(name).exists()


def remember(name: str) -> None:
    """Note that the entry called `name` is kept and was used today."""
    with contextlib.suppress(OSError):
        _mark(name).touch()
        os.utime(cache_folder())


def forget_older() -> None:
    """Remove machine code that was not used for two months, of older releases say, from the user's cache.

    NUMBA_CACHE_DIR is the user's own affair.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    for folder in cache_folder().parent.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > UNUSED_SECONDS:
                shutil.rmtree(folder)


def _mark(name: str) -> Path:
    return cache_folder() / f"{name}.compiled"


@functools.cache
def _fingerprint() -> str:
    """Names everything that the machine code depends on."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    cpu = config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    features = config.CPU_FEATURES
    if features is None:
        with contextlib.suppress(RuntimeError):  # not known for every processor
            features = llvmlite.binding.get_host_cpu_features().flatten()
    for part in (numba.__version__, llvmlite.__version__, sys.version, sys.platform, cpu, features):
        digest.update(str(part).encode())
    return digest.hexdigest()[:16]

"""What the installed engine was built for: its backends, the devices they see, its processor features, its version."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from llamacli.errors import UsageError
from llamacli.runtime import bindings

Kind = Literal["cpu", "gpu", "igpu", "accel", "meta"]

KINDS: tuple[Kind, ...] = ("cpu", "gpu", "igpu", "accel", "meta")
"""ggml's numbers of device types (ggml-backend.h)."""


@dataclass(frozen=True)
class Device:
    """One device as a backend describes it; memory in bytes."""

    name: str
    description: str
    kind: Kind
    backend: str
    memory_free: int
    memory_total: int

    @property
    def shares_memory(self) -> bool:
        """Whether its memory is the processor's: graphics in the processor, and all of Apple's."""
        return self.kind != "gpu" or self.backend in ("MTL", "Metal")


@dataclass(frozen=True)
class EngineInfo:
    """The engine that is installed here.

    `backends` are all that are compiled in, "CPU" among them; `features` are the vector instructions that its code for
    the processor uses, under ggml's names.
    """

    package_version: str
    version: str
    commit: str
    backends: tuple[str, ...]
    devices: tuple[Device, ...]
    features: tuple[str, ...]

    @property
    def gpus(self) -> tuple[Device, ...]:
        """The devices that layers can be put on."""
        return tuple(device for device in self.devices if device.kind in ("gpu", "igpu"))

    @property
    def identity(self) -> tuple[object, ...]:
        """All that may change a result: not how much memory is free at the moment."""
        named = tuple((device.backend, device.name, device.description) for device in self.devices)
        return self.package_version, self.commit, self.backends, self.features, named

    @property
    def acceleration(self) -> str:
        """The backends beside the processor, comma-separated as in llama-bench; "CPU" without any."""
        served = {device.backend for device in self.devices}
        names = [b for b in self.backends if b != "CPU" and (b != "RPC" or b in served)]
        return ",".join(names) or "CPU"


def engine_info() -> EngineInfo:
    """Ask the installed engine; how much memory is free is asked every time. Raises EngineError where there is none."""
    return replace(_build(), devices=tuple(_device(pointer) for pointer in _device_pointers()))


@functools.cache
def _build() -> EngineInfo:
    """What stays as it is: all but the devices."""
    lib = bindings.load()
    return EngineInfo(
        package_version=importlib.metadata.version("llama-cpp-python"),
        version=_text(lib.llama_version()),
        commit=_commit(),
        backends=_backends(),
        devices=(),
        features=parse_features(_text(lib.llama_print_system_info())),
    )


def parse_features(text: str) -> tuple[str, ...]:
    """What is on in llama.cpp's system information, such as `CPU : AVX = 1 | AVX2 = 1 | ... | REPACK = 1 | `.

    Only the processor's part: what other backends say about themselves stands before another `NAME :`.
    """
    parts = re.split(r"(?:^|\| )(\w+) : ", text)
    own = dict(zip(parts[1::2], parts[2::2], strict=True)).get("CPU", "")
    return tuple(name for name, value in re.findall(r"(\w+) = (\d+)", own) if value != "0")


def device_pointers(names: tuple[str, ...]) -> Any:
    """The devices called `names` as the NULL-terminated array that llama_model_params.devices wants.

    Raises UsageError for a name that no backend knows, with those that exist.
    """
    known = {_call("ggml_backend_dev_name", ctypes.c_char_p, p).decode(): p for p in _device_pointers()}
    for name in names:
        if name not in known:
            raise UsageError(f"no device called {name!r}", f"the engine has: {', '.join(known)}")
    return (ctypes.c_void_p * (len(names) + 1))(*(known[name] for name in names), None)


def processor_symbol(name: str, result: Any, *arguments: Any) -> Any:
    """A function that only the processor's backend exports, reached as ggml prescribes, through its registry."""
    for index in range(_call("ggml_backend_reg_count", ctypes.c_size_t)):
        registry = _pointer("ggml_backend_reg_get", ctypes.c_size_t(index))
        if _call("ggml_backend_reg_name", ctypes.c_char_p, registry) == b"CPU":
            address = _pointer("ggml_backend_reg_get_proc_address", registry, ctypes.c_char_p(name.encode()))
            return ctypes.CFUNCTYPE(result, *arguments)(address.value) if address.value else None
    return None


def _commit() -> str:
    match = re.match(r"[0-9a-f]{7,40}", _text(_call("ggml_commit", ctypes.c_char_p)))
    return match[0] if match else "unknown"


def _backends() -> tuple[str, ...]:
    count = _call("ggml_backend_reg_count", ctypes.c_size_t)
    registries = [_pointer("ggml_backend_reg_get", ctypes.c_size_t(i)) for i in range(count)]
    return tuple(_text(_call("ggml_backend_reg_name", ctypes.c_char_p, registry)) for registry in registries)


def _device_pointers() -> list[ctypes.c_void_p]:
    count = _call("ggml_backend_dev_count", ctypes.c_size_t)
    return [_pointer("ggml_backend_dev_get", ctypes.c_size_t(i)) for i in range(count)]


def _device(pointer: ctypes.c_void_p) -> Device:
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    _call("ggml_backend_dev_memory", None, pointer, ctypes.byref(free), ctypes.byref(total))
    registry = _pointer("ggml_backend_dev_backend_reg", pointer)
    kind = _call("ggml_backend_dev_type", ctypes.c_int, pointer)
    return Device(
        name=_text(_call("ggml_backend_dev_name", ctypes.c_char_p, pointer)),
        description=_text(_call("ggml_backend_dev_description", ctypes.c_char_p, pointer)),
        kind=KINDS[kind] if kind < len(KINDS) else "meta",
        backend=_text(_call("ggml_backend_reg_name", ctypes.c_char_p, registry)),
        memory_free=free.value,
        memory_total=total.value,
    )


def _call(name: str, result: Any, *arguments: Any) -> Any:
    """Call one function of ggml; a prototype of our own leaves those of the shared library's users alone."""
    kinds = (ctypes.c_void_p if not isinstance(a, (ctypes.c_size_t, ctypes.c_char_p)) else type(a) for a in arguments)
    return bindings.ggml_function(name, result, *kinds)(*arguments)


def _pointer(name: str, *arguments: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(_call(name, ctypes.c_void_p, *arguments))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")

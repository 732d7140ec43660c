"""The weights of a file in the engine's hands: loading them, saying why that failed, being stopped meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamacli.errors import CorruptFile, DoesNotFit, EngineError, NotFound, Unsupported
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.runtime import bindings
from llamacli.runtime.copied_weights import CopiedWeights
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.heap import keep_little
from llamacli.runtime.interrupts import Held
from llamacli.runtime.placement import place_weights
from llamacli.runtime.tiles import model_parameters

OnLoading = Callable[[float], None]
"""Told how much of the model is loaded, from 0 to 1."""


def load_weights(library: Any, gguf: GGUF, settings: EngineSettings, progress: OnLoading | None) -> Any:
    """The C pointer of the loaded model. Raises what `open_engine` does."""
    watch = _Watch(progress)
    parameters = model_parameters()
    place_weights(parameters, settings)
    if not settings.mmap:
        parameters.load_mode = library.LLAMA_LOAD_MODE_NONE
    callback = library.llama_progress_callback(watch)
    parameters.progress_callback = callback
    copied, model = CopiedWeights(), None
    keep_little()
    try:
        with Held() as watch.held, bindings.listening(copied.hear):
            model = library.llama_model_load_from_file(file_name(gguf.path), parameters)
        if watch.fault is not None:
            raise watch.fault
    except BaseException:
        if model:
            library.llama_model_free(model)
        raise
    if not model:
        raise _load_failure(gguf.path)
    copied.let_go(gguf)
    return model


def _load_failure(path: Path) -> Exception:
    said = bindings.failure_hint()
    low = said.lower()
    if not path.exists():
        return NotFound(f"no such file: {path}")
    if "unknown model architecture" in low or "unknown pre-tokenizer" in low:
        return Unsupported(f"the engine does not know this kind of model: {path.name}", said)
    if "alloc" in low or "out of memory" in low:
        return DoesNotFit(f"not enough memory to load {path.name}", said)
    return EngineError(f"the engine cannot load {path.name}", said)


class _Watch:
    """The progress callback of a load: called from C, so an exception is kept for later and ends the load."""

    def __init__(self, progress: OnLoading | None) -> None:
        self._progress = progress
        self.held = Held()
        self.fault: BaseException | None = None

    def __call__(self, fraction: float, data: object) -> bool:
        try:
            if self._progress is not None:
                self._progress(fraction)
        except BaseException as error:
            self.fault = error
        return self.fault is None and not self.held


def file_name(path: Path) -> bytes:
    """A path as the engine takes it: the bytes that the system knows, in UTF-8 on Windows."""
    return os.fsencode(path)


def load_adapters(library: Any, model: Any, settings: EngineSettings) -> list[tuple[Any, float]]:
    """The LoRA adapters that `settings` name, each with its scale. Raises CorruptFile, EngineError."""
    pairs = []
    for name, scale in settings.loras:
        check_adapter(Path(name))
        adapter = library.llama_adapter_lora_init(model, file_name(Path(name)))
        if not adapter:
            raise EngineError(f"the LoRA adapter {name} does not fit this model", bindings.failure_hint())
        pairs.append((adapter, scale))
    return pairs


def check_adapter(path: Path) -> None:
    """Raise CorruptFile if `path` is no sound GGUF with a LoRA adapter."""
    gguf = read_gguf(path)
    if gguf.get("general.type") != "adapter":
        raise CorruptFile(f"{path} is no LoRA adapter", "an adapter in GGUF says general.type = adapter")

"""What a kept prefix belongs to: model, engine build, settings and adapters, as one digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime import bindings
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.evaluator import Evaluator
from llamacli.runtime.prompt_cuts import LONG_PROMPT

_BLOCK = 1 << 20


def fingerprint(evaluator: Evaluator, gguf: GGUF, settings: EngineSettings, threads: tuple[int, int]) -> bytes:
    """Everything that the keys and values of a token depend on. Raises OSError."""
    s = settings
    chosen = (s.gpu_layers, s.cpu_moe, s.devices, s.flash_attn, s.cache_type_k, s.cache_type_v, s.sequences)
    steps = (evaluator.step_size, LONG_PROMPT)
    digest = hashlib.sha256(repr((bindings.build(), chosen, threads, steps, s.batch)).encode())
    if any(tensor.name.startswith("rope_factors_long") for tensor in gguf.tensors):
        digest.update(f"context {evaluator.size}".encode())  # chooses between two sets of frequencies
    for path, head in zip(gguf.paths, gguf.data_offsets, strict=True):
        digest.update(_identity(path).encode())
        with path.open("rb") as file:
            while head > 0 and (block := file.read(min(_BLOCK, head))):
                digest.update(block)
                head -= len(block)
    for name, scale in s.loras:
        digest.update(f"{_identity(Path(name))} {scale}".encode())
    return digest.digest()


def _identity(path: Path) -> str:
    """What changes when a file is replaced or written to."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino} {stat.st_dev}"

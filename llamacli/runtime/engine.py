"""The small protocol that chat, run and bench are written against."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llamacli.runtime.messages import Piece, Prompt, Sampling

PROMPT_STEP = 128
"""Tokens of a prompt that a processor takes at a time; more at once is no faster there, and a prompt's beginning can be
reused up to a multiple of it."""


ALL_LAYERS = 1_000_000
"""More layers than any model has."""


@dataclass(frozen=True)
class EngineSettings:
    """How a model is loaded; names are llama.cpp's, None means: choose what suits this machine and model."""

    ctx_size: int | None = None
    gpu_layers: int | None = None
    cpu_moe: int | None = None
    """Layers, from the first on, whose experts stay in main memory."""
    threads: int | None = None
    threads_batch: int | None = None
    batch: int = 2048
    ubatch: int = 512
    flash_attn: str = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    sequences: int = 1
    devices: tuple[str, ...] = ()
    mmap: bool = True
    loras: tuple[tuple[str, float], ...] = ()
    embeddings: bool = False
    power: int = 100
    """Of the time, how many per cent are computed in; the rest is slept, to keep a machine cool and quiet."""
    draft: str = "auto"
    """`auto`, `on` or `off`: whether tokens are drafted from the text and evaluated several at a time."""


class Engine(Protocol):
    """A loaded model. Owned by one thread; `close` frees it."""

    context_size: int
    metadata: Mapping[str, str]

    def tokens(self, prompt: Prompt, *, add_special: bool = True) -> list[int]:
        """Token ids of a prompt. Control tokens are recognised in control spans only."""

    def control_tokens(self, names: Iterable[str]) -> frozenset[int]:
        """Ids of those control tokens of the vocabulary that are spelled by one of `names`."""

    def generate(
        self, tokens: Sequence[int], sampling: Sampling, *, visible: Container[int] = frozenset()
    ) -> Iterator[Piece]:
        """Evaluate what of `tokens` is not yet in the KV cache, then yield the answer piece by piece.

        Control tokens have no text unless they are in `visible`.
        Raises ContextOverflow before anything is evaluated, EngineError when decoding fails.
        """

    def stop(self) -> None:
        """End a running `generate` soon. May be called from a signal handler or another thread."""

    def close(self) -> None:
        """Free the model. Calling it twice does no harm."""

"""What fits this machine, before the first byte: needs of models on the Hub, and the choice between quantizations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from llamacli.cli.sizes import human_size
from llamacli.errors import EngineError, LlamacliError, UsageError
from llamacli.library.hub import Hub, RemoteRepo
from llamacli.library.patience import Patience
from llamacli.library.remote_header import sparse_headers

if TYPE_CHECKING:
    from llamacli.formats.gguf_reader import GGUF
    from llamacli.library.variants import Variant
    from llamacli.runtime.fit import Need

USUAL_CONTEXT = 8192
Mode = Literal["auto", "gpu", "ram", "off"]


def parse_mode(text: str) -> Mode:
    """`--fit`. Raises UsageError."""
    if text not in ("auto", "gpu", "ram", "off"):
        raise UsageError(f"not a way to fit: {text!r}", "--fit auto, gpu, ram or off")
    return cast("Mode", text)


@dataclass(frozen=True)
class Room:
    """Free bytes of main memory, and of all GPUs that the engine can use."""

    memory: int
    gpus: int

    @property
    def text(self) -> str:
        """For people."""
        gpus = f", {human_size(self.gpus)} of GPUs" if self.gpus else ""
        return f"{human_size(self.memory)} of memory{gpus} free"


def room() -> Room:
    """What is free now."""
    from llamacli.runtime.memory import memory

    free, gpus = memory().available, 0
    with suppress(EngineError):
        from llamacli.runtime.backends import engine_info

        found = engine_info().gpus
        # What is not free for anybody is not free for a GPU that shares it either (Apple's, and those in processors).
        shared = min(free, sum(device.memory_free for device in found if device.shares_memory))
        gpus = sum(device.memory_free for device in found if not device.shares_memory) + shared
    return Room(free, gpus)


@dataclass(frozen=True)
class Fit:
    """How much a model needs beside its weights, and how much there is. All in bytes, at `context` tokens."""

    context: int
    beside: int
    """KV cache, compute buffers and the program; the same for all quantizations of a model."""
    room: Room
    mode: Mode = "auto"

    def place(self, weights: int) -> str:
        """Where a model of that many bytes goes whole with a tenth to spare: `gpu`, `ram`, or nowhere, an empty text."""
        need = weights + self.beside
        if self.mode in ("auto", "gpu") and 0 < need <= self._usable(self.room.gpus):
            return "gpu"
        return "ram" if self.mode in ("auto", "ram") and need <= self._usable(self.room.memory) else ""

    @property
    def budget(self) -> int | None:
        """Bytes of weights that fit; None where nobody asks."""
        if self.mode == "off":
            return None
        places = {"gpu": self.room.gpus, "ram": self.room.memory, "auto": max(self.room.gpus, self.room.memory)}
        return max(0, self._usable(places[self.mode]) - self.beside)

    @property
    def there(self) -> str:
        """What there is where it may go, for people."""
        if self.mode != "gpu":
            return self.room.text
        return f"{human_size(self.room.gpus)} of GPUs free" if self.room.gpus else "no GPU that the engine could use"

    def words(self, weights: int) -> str:
        """`yes (gpu)`, `yes`, or `no, needs ...`."""
        found = self.place(weights)
        if found:
            return "yes, on GPU" if found == "gpu" else "yes"
        return f"no, needs {human_size(weights + self.beside)}"

    def _usable(self, free: int) -> int:
        from llamacli.runtime.fit import MARGIN

        return int(free * (1 - MARGIN))


def need_of(path: Path, gguf: GGUF, context: int) -> Need:
    """What the engine says that it needs; from the header alone where it cannot say."""
    from llamacli.formats.gguf_check import check_safe
    from llamacli.runtime.fit import estimate, memory_needed

    try:
        check_safe(gguf)
        return memory_needed(path, context)
    except LlamacliError:
        return estimate(gguf, context)


def fit_of(path: Path, context: int, mode: Mode) -> Fit:
    """The `Fit` of the GGUF at `path`, sparse or whole; `context` 0 is the usual one, or all that it was trained for."""
    from llamacli.formats.gguf_reader import read_gguf

    gguf = read_gguf(path)
    trained = int(gguf.get("{arch}.context_length", 0) or 0)
    need = need_of(path, gguf, context or min(USUAL_CONTEXT, trained or USUAL_CONTEXT))
    return Fit(need.context, need.beside, room(), mode)


def fit_of_repo(hub: Hub, repo: RemoteRepo, offered: Sequence[Variant], context: int, mode: Mode) -> Fit | None:
    """The `Fit` for all quantizations in `repo`, from the header of its smallest file.

    None where the header cannot be had (a gated repository, a file that is no GGUF): then sizes alone must do.
    """
    if not offered or mode == "off":
        return None
    hub = Hub(hub.client, hub.endpoint, Patience(attempts=3))
    sizes = repo.sizes
    smallest = min((v for v in offered if v.complete), key=lambda v: sum(sizes[n] for n in v.files), default=None)
    if smallest is None:
        return None
    try:
        with sparse_headers(hub, repo, [repo.file(name) for name in smallest.files]) as path:
            return fit_of(path, context, mode)
    except (LlamacliError, ValueError, TypeError):  # metadata of a stranger's file may be of any type
        return None


@contextmanager
def remote_gguf(hub: Hub, repo: RemoteRepo, variant: Variant) -> Iterator[tuple[Path, GGUF]]:
    """A sparse file with the header of `variant`, and the header under the name that the Hub knows it by."""
    from llamacli.formats.gguf_reader import read_gguf

    with sparse_headers(hub, repo, [repo.file(name) for name in variant.files]) as path:
        gguf = read_gguf(path)
        yield path, replace(gguf, paths=tuple(Path(repo.name) / name for name in variant.files))

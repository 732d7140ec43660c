"""Opening a model with a line that says how far it is, erased when it is done."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from llamacli.cli.context import Context
from llamacli.cli.gpu_notice import notice_unused_gpu
from llamacli.cli.models import obtain

if TYPE_CHECKING:
    from llamacli.formats.gguf_reader import GGUF
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.llama import LlamaEngine


def load_model(
    context: Context, name: str | None, settings: EngineSettings, watch: Callable[[float], None] | None = None
) -> LlamaEngine:
    """The engine for the model that `name` means (None: the default model). Raises as `obtain` and the engine.

    `watch` is told how much is loaded, from 0 to 1; what it raises ends the load.
    """
    engine = _opened(context, name, settings, watch)
    if settings.draft != "off":
        from llamacli.runtime.speculate import Costs, Drafts

        costs = Costs.of_model(context.cache_dir / "drafts.json", engine.gguf, settings, engine.threads)
        engine.drafts = Drafts(costs, always=settings.draft == "on")
    if engine.placement and not engine.placement.whole and not context.console.quiet:
        context.console.status(engine.placement.text)
    return engine


def _get_ready(gguf: GGUF) -> None:
    """Import what a chat template will need, which takes a while and another core has the time for."""
    if gguf.get("tokenizer.chat_template"):
        importlib.import_module("llamacli.runtime.sandbox")


def _opened(
    context: Context, name: str | None, settings: EngineSettings, watch: Callable[[float], None] | None
) -> LlamaEngine:
    from llamacli.runtime.llama import open_engine

    path = obtain(context, name, pull=context.console.pull)
    console = context.console
    if not console.quiet and settings.gpu_layers != 0:
        notice_unused_gpu(context)
    if console.quiet or not console.err_is_terminal:
        return open_engine(path, settings, progress=watch, meanwhile=_get_ready)
    shown, columns = -1, shutil.get_terminal_size().columns

    def progress(fraction: float) -> None:
        nonlocal shown
        if watch is not None:
            watch(fraction)
        percent = int(100 * fraction)
        if percent > shown:
            shown = percent
            line = f"loading {path.stem[:40]} {percent} %"
            console.err.write(f"\r\x1b[2K{line[: columns - 1]}")
            console.err.flush()

    try:
        return open_engine(path, settings, progress=progress, meanwhile=_get_ready)
    finally:
        console.err.write("\r\x1b[2K")
        console.err.flush()

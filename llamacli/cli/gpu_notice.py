"""One line, once a day, where a graphics processor stands idle because the engine was built without it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llamacli.cli.context import Context

if TYPE_CHECKING:
    from llamacli.runtime.gpus import Gpu

DAY = 86400.0
STAMP = "gpu-notice"


def notice_unused_gpu(here: Context, find: Callable[[], Sequence[Gpu]] | None = None) -> None:
    """Say it, unless it was said or found not to be so within a day. Costs one look at a file on all other calls.

    `find` tells which devices this machine has; without it the machine is asked.
    """
    stamp = here.cache_dir / STAMP
    with contextlib.suppress(OSError):
        if 0 <= here.now() - float(stamp.stat().st_mtime) < DAY:
            return
    from llamacli.runtime import bindings

    if not bindings.has_gpu():
        _tell(here, find)
    with contextlib.suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()


def _tell(here: Context, find: Callable[[], Sequence[Gpu]] | None) -> None:
    from llamacli.cli.diagnosis import unused_gpus
    from llamacli.runtime.backends import engine_info
    from llamacli.runtime.gpus import gpus

    found = unused_gpus(find() if find is not None else gpus(quick=True), engine_info())
    if found:
        here.console.warn(f"{found[0].message}; how to change that: llamacli doctor")

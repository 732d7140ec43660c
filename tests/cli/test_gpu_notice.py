"""A graphics processor that the engine cannot use is told of once a day, on stderr."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from llamacli.cli.context import Context
from llamacli.cli.gpu_notice import STAMP, notice_unused_gpu
from llamacli.runtime import bindings
from llamacli.runtime.gpus import Gpu

CARD = Gpu("NVIDIA GeForce RTX 3060", "nvidia", 12 << 30)


def told(here: Context) -> str:
    err = here.console.err
    assert isinstance(err, io.StringIO)
    return err.getvalue()


@pytest.mark.skipif(bindings.has_gpu(), reason="the engine can use this machine's graphics processor")
def test_it_is_said_once_and_again_the_next_day(context: Callable[..., Context]) -> None:
    here = context()
    for _ in range(3):
        notice_unused_gpu(here, lambda: [CARD])
    assert told(here).count("\n") == 1
    assert "RTX 3060" in told(here) and "llamacli doctor" in told(here)
    assert isinstance(here.console.out, io.StringIO) and here.console.out.getvalue() == ""
    os.utime(here.cache_dir / STAMP, (0, 0))
    notice_unused_gpu(here, lambda: [CARD])
    assert told(here).count("\n") == 2


def test_nothing_is_said_where_there_is_none(context: Callable[..., Context]) -> None:
    here = context()
    notice_unused_gpu(here, lambda: [])
    assert told(here) == ""

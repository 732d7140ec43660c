"""Ctrl-C for real: wherever in the engine it comes it ends the work at once, and what was measured is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import ROOT

from llamacli.evaluate.activations import Activations, gather
from llamacli.evaluate.measure import measure
from llamacli.evaluate.partial import Partial
from llamacli.evaluate.windows import cut_text
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.interrupts import Held
from llamacli.runtime.llama import open_engine

TEXT = (ROOT / "tests" / "data" / "evaluate" / "text.txt").read_text()
Converted = Callable[..., Path]
unix_only = pytest.mark.skipif(os.name == "nt", reason="signals are sent as Unix sends them")


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Press Ctrl-C while the block runs."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_signals_wait_for_the_end_of_the_block_and_blocks_may_be_nested() -> None:
    order = []
    with pytest.raises(KeyboardInterrupt), Held() as outer:
        with Held() as inner:
            signal.raise_signal(signal.SIGINT)
            order.append(bool(inner))
        order.append(bool(outer))
    assert order == [True, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with Held() as held:
        pass
    assert not held


@unix_only
def test_no_interrupt_is_lost_wherever_it_comes(converted: Converted, tmp_path: Path) -> None:
    with open_engine(converted("tinystories-656k-bf16", "F32"), EngineSettings(threads=1)) as engine:
        text = cut_text(engine, 40 * TEXT, 128)
        for attempt in range(10):
            partial = Partial(tmp_path / f"{attempt}.npz", "key")
            with pytest.raises(KeyboardInterrupt), interrupted_after(0.01 + 0.013 * attempt):
                measure({"it": engine}, text, partial=partial)
            assert partial.windows < len(text)
            kept = Partial(tmp_path / f"{attempt}.npz", "key")
            assert kept.windows == partial.windows
            assert not kept.windows or len(kept.samples("it")["loss"]) == 63 * kept.windows
        for attempt in range(10):
            begun = Activations()
            with pytest.raises(KeyboardInterrupt), interrupted_after(0.01 + 0.013 * attempt):
                gather(engine, text, begun=begun)
            assert begun.windows < len(text)
            assert all(sums.tokens.tolist() == [128 * begun.windows] for sums in begun.sums.values())


@unix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["evaluate", "imatrix"])
def test_a_stopped_command_says_so_and_goes_on(
    command: str, number: signal.Signals, converted: Converted, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(200 * TEXT)
    model = converted("tinystories-656k-bf16", "F32")
    more = ("-o", "m.gguf", "--resume") if command == "imatrix" else ()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "llamacli",
            command,
            str(model),
            "text.txt",
            "-c",
            "128",
            "-b",
            "128",
            "-t",
            "1",
            "-vv",
            *more,
        ],
        cwd=tmp_path,
        env={**os.environ, "LLAMACLI_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any("set_abort_callback" in line for line in process.stderr)  # the engine's context is ready
    time.sleep(1)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert "goes on from there" in said
    assert list(tmp_path.rglob("*.npz" if command == "evaluate" else "m.gguf.partial"))

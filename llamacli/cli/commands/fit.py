"""`llamacli fit MODEL`: what the engine would allocate, and whether this machine has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llamacli.cli.context import Context
from llamacli.cli.options import ModelArg
from llamacli.cli.remote import gguf_or_header
from llamacli.cli.sizes import human_size
from llamacli.errors import DoesNotFit

if TYPE_CHECKING:
    from llamacli.formats.gguf_reader import GGUF
    from llamacli.runtime.fit import Need
    from llamacli.runtime.placement import Placement

USUAL_CONTEXT = 8192


@dataclass(frozen=True)
class Verdict:
    """The answer, in bytes: `available` is free main memory, `device` that of all GPUs that the engine can use.

    `together` counts memory that they share once.

    `largest` is the longest context that fits; `place` says what goes to the GPUs, if there are any.
    """

    need: Need
    available: int
    device: int
    together: int
    fits: bool
    largest: int
    place: Placement | None


def fit_command(
    context: typer.Context,
    model: ModelArg = None,
    ctx_size: int = typer.Option(
        0, "-c", "--ctx", "--ctx-size", min=0, metavar="N", help="Tokens of context [8192, or what the model knows]."
    ),
    cache_type_k: str = typer.Option("f16", "-ctk", "--cache-type-k", metavar="TYPE", help="Type of the K cache."),
    cache_type_v: str = typer.Option("f16", "-ctv", "--cache-type-v", metavar="TYPE", help="Type of the V cache."),
) -> None:
    """Say whether a model fits this machine's memory: exit 0 if it does, 6 if not.

    \b
    llamacli fit MODEL
    llamacli fit MODEL --ctx 32768
    llamacli fit MODEL --ctx 32768 -ctk q8_0 -ctv q8_0 --json
    llamacli fit user/repo                                   all its quantizations, before a byte is downloaded
    """
    from llamacli.bench.cases import cache_types
    from llamacli.formats.gguf_check import check_safe

    here: Context = context.obj
    types = (*cache_types("-ctk", cache_type_k)[:1], *cache_types("-ctv", cache_type_v)[:1])
    if quantizations_fit(here, model, ctx_size):
        return
    with gguf_or_header(here, model) as (path, gguf):
        check_safe(gguf)
        trained = int(gguf.get("{arch}.context_length", 0) or 0)
        wanted = ctx_size or min(USUAL_CONTEXT, trained or USUAL_CONTEXT)
        verdict = _verdict(path, gguf, wanted, trained, *types)
    _show(here, gguf, verdict)
    if not verdict.fits:
        raise DoesNotFit(
            f"{gguf.path.name} needs {human_size(verdict.need.total)} with {verdict.need.context} tokens of context, "
            f"and {human_size(verdict.together)} are free",
            _advice(verdict),
        )


def quantizations_fit(here: Context, model: str | None, ctx_size: int) -> bool:
    """Whether `model` was a repository on the Hub without a quantization: then all of its are shown.

    Raises DoesNotFit if none fits.
    """
    from llamacli.cli.quantizations import repository, table

    found = repository(here, model)
    if found is None:
        return False
    fitting = table(here, *found, ctx_size)
    if not fitting:
        raise DoesNotFit(f"no quantization of {found[1].name} fits this machine", "a shorter --ctx may help")
    return True


def _verdict(path: Path, gguf: GGUF, context: int, trained: int, type_k: str, type_v: str) -> Verdict:
    from llamacli.runtime.backends import engine_info
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.fit import fits, largest_context, memory_needed
    from llamacli.runtime.memory import memory
    from llamacli.runtime.placement import choose, gpu_compute, room_on_gpus

    need = memory_needed(path, context, type_k=type_k, type_v=type_v)
    double = memory_needed(path, 2 * need.context, type_k=type_k, type_v=type_v)
    available = memory().available
    gpus = engine_info().gpus
    device = sum(gpu.memory_free for gpu in gpus)
    together = available + sum(gpu.memory_free for gpu in gpus if not gpu.shares_memory)
    settings = EngineSettings(ctx_size=need.context, cache_type_k=type_k, cache_type_v=type_v)
    place = choose(gguf, settings, room_on_gpus(()), lambda chosen: gpu_compute(path, chosen)) if device else None
    largest = largest_context(need, double, together)
    return Verdict(
        need=need,
        available=available,
        together=together,
        device=device,
        fits=fits(need, together),
        largest=min(largest, trained) if trained else largest,
        place=place,
    )


def _show(here: Context, gguf: GGUF, verdict: Verdict) -> None:
    need, place = verdict.need, verdict.place
    data = {
        "model": str(gguf.path),
        "context": need.context,
        "weights_bytes": need.weights,
        "kv_bytes": need.cache,
        "compute_bytes": need.compute,
        "program_bytes": need.program,
        "total_bytes": need.total,
        "available_bytes": verdict.available,
        "gpu_available_bytes": verdict.device,
        "gpu_layers": place.layers if place else 0,
        "cpu_moe": place.experts if place else 0,
        "layers": int(gguf.get("{arch}.block_count", 0)) + 1,
        "fits": verdict.fits,
        "largest_context": verdict.largest,
    }
    rows = [
        ("weights", human_size(need.weights)),
        (f"KV cache of {need.context} tokens", human_size(need.cache)),
        ("compute", human_size(need.compute)),
        ("program and vocabulary", human_size(need.program)),
        ("together", human_size(need.total)),
        ("free memory", human_size(verdict.available)),
        *([("free memory of GPUs", human_size(verdict.device))] if verdict.device else []),
        *([("placed", place.text)] if place else []),
        ("fits", "yes" if verdict.fits else "no"),
        ("longest context", f"{verdict.largest} tokens" if verdict.largest else "none"),
    ]
    here.console.table(("memory", gguf.path.name), rows, data)


def _advice(verdict: Verdict) -> str:
    smaller = "take a smaller quantization, or -ctk q8_0 -ctv q8_0"
    return f"with --ctx {verdict.largest} it fits" if verdict.largest else smaller

"""`llamacli bench [MODEL...]`: how fast a model is here, in llama-bench's terms."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llamacli import __version__
from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context, located
from llamacli.cli.models import model_path
from llamacli.errors import PredicateFalse, UsageError

if TYPE_CHECKING:
    from llamacli.bench.cases import Case, Grid
    from llamacli.bench.compare import Comparison
    from llamacli.bench.record import Record
    from llamacli.bench.trials import Measurement

OUTPUTS = ("table", "md", "csv", "json", "jsonl", "sql")
USUAL = ("512", "128", 5)
QUICK = ("128", "32", 3)
"""Length of prompt, length of generation, repetitions."""


def _list(*flags: str, text: str, default: str | None = None, metavar: str = "LIST") -> str | None:
    option: str | None = typer.Option(default, *flags, metavar=metavar, help=text)
    return option


def bench_command(
    context: typer.Context,
    models: list[str] = typer.Argument(
        None, metavar="[MODEL]...", help="Names, aliases, files, or user/repo[:QUANT].", autocompletion=complete_model
    ),
    more: list[str] = typer.Option(
        [], "-m", "--model", metavar="MODEL", help="The same, as in llama-bench.", autocompletion=complete_model
    ),
    prompts: str | None = _list("-p", "--n-prompt", text="Prompt lengths [512]; 0: none."),
    generates: str | None = _list("-n", "--n-gen", text="Generation lengths [128]; 0: none."),
    pairs: list[str] = typer.Option([], "-pg", metavar="P,N", help="Read P tokens, then generate N."),
    depths: str = typer.Option("0", "-d", "--n-depth", metavar="LIST", help="Tokens that are there before."),
    repetitions: int | None = typer.Option(None, "-r", "--repetitions", min=1, max=1000, help="Repetitions [5]."),
    threads: str | None = _list("-t", "--threads", text="Threads [one per fast core]."),
    layers: str = typer.Option("-1", "-ngl", "--n-gpu-layers", "--gpu-layers", metavar="LIST", help="Layers on GPUs."),
    devices: str = typer.Option("auto", "-dev", "--device", metavar="LIST", help="Devices, A/B for several."),
    flash_attn: str = typer.Option("auto", "-fa", "--flash-attn", metavar="LIST", help="on, off, auto."),
    cache_type_k: str = typer.Option("f16", "-ctk", "--cache-type-k", metavar="LIST", help="Types of the K cache."),
    cache_type_v: str = typer.Option("f16", "-ctv", "--cache-type-v", metavar="LIST", help="Types of the V cache."),
    batches: str = typer.Option("2048", "-b", "--batch-size", metavar="LIST", help="Tokens of a prompt read at once."),
    ubatches: str = typer.Option("512", "-ub", "--ubatch-size", metavar="LIST", help="Of those, at a time."),
    output: str = typer.Option("", "-o", "--output", metavar="|".join(OUTPUTS), help="Form of the results [table]."),
    no_warmup: bool = typer.Option(False, "--no-warmup", help="Do not warm up."),
    quick: bool = typer.Option(False, "--quick", help="A first impression: -p 128 -n 32 -r 3."),
    save: bool = typer.Option(False, "--save", help="Keep the results for --compare."),
    compare: str = typer.Option("", "--compare", metavar="last|FILE|ID", help="Against earlier results."),
    fail_below: float = typer.Option(0.0, "--fail-below", metavar="N", help="Exit 1 if generation is below N t/s."),
    fail_on_regression: bool = typer.Option(False, "--fail-on-regression", help="Exit 1 if --compare finds slower."),
) -> None:
    """Measure speed as llama-bench does: the median of repetitions and its 95 % interval.

    \b
    llamacli bench MODEL                              pp512 and tg128
    llamacli bench MODEL -t 4,8 -fa on,off -o md      all combinations, llama-bench's table
    llamacli bench MODEL --save; llamacli bench MODEL --compare last --fail-on-regression
    """
    from llamacli.bench import cases as c
    from llamacli.bench import compare as against
    from llamacli.bench import saved
    from llamacli.runtime.processors import processor

    here: Context = context.obj
    form = _form(output, here.console.json_output)
    prompt, generate, repeat = QUICK if quick else USUAL
    names: list[str | None] = [*(models or []), *more]
    paths = [model_path(here, name) for name in names or [None]]
    folder = here.data_dir / "bench"
    before = against.load_records(saved.find(folder, compare, located(here.cwd, compare))) if compare else []
    grid = c.Grid(
        prompts=c.numbers("-p", prompts or prompt),
        generates=c.numbers("-n", generates or generate),
        pairs=tuple(c.pair(text) for text in pairs),
        depths=c.numbers("-d", depths),
        threads=c.numbers("-t", threads or str(processor().threads), least=1),
        gpu_layers=c.layers(layers),
        devices=c.device_lists(devices),
        batches=c.numbers("-b", batches, least=1),
        ubatches=c.numbers("-ub", ubatches, least=1),
        cache_types_k=c.cache_types("-ctk", cache_type_k),
        cache_types_v=c.cache_types("-ctv", cache_type_v),
        flash_attn=c.flash_attention(flash_attn),
    )
    records = _measure(here, paths, grid, repetitions or repeat, not no_warmup)
    compared = against.compare(before, records) if compare else []
    _show(here, form, records, compared)
    if save:
        here.console.status(f"saved as {saved.save(folder, records, here.now()).stem}")
    _judge(records, compared, fail_below, fail_on_regression)


def _form(output: str, json_output: bool) -> str:
    form = output or ("json" if json_output else "table")
    if form not in OUTPUTS:
        raise UsageError(f"-o {output}: not one of {', '.join(OUTPUTS)}")
    return form


def _measure(here: Context, paths: Sequence[Path], grid: Grid, repetitions: int, warm_up: bool) -> list[Record]:
    from llamacli.bench.cases import all_cases
    from llamacli.bench.trials import check_cases, measure
    from llamacli.runtime import bindings
    from llamacli.runtime.memory import memory
    from llamacli.runtime.processors import processor

    cases = all_cases(paths, grid)
    check_cases(cases, processor().logical)
    if here.console.verbose >= 2:
        bindings.listen(here.console.status)
    with here.console.progress("bench", len(cases) * repetitions, unit="runs") as progress:
        measured = measure(
            cases, repetitions, available=memory().available or sys.maxsize, progress=progress, warm_up=warm_up
        )
    return _records(measured)


def _records(measured: Sequence[Measurement]) -> list[Record]:
    """What was measured, with what is known about this machine."""
    from llamacli.bench.ceiling import bytes_per_token, memory_speed
    from llamacli.bench.record import Surroundings, record
    from llamacli.formats.gguf_reader import read_gguf
    from llamacli.runtime.backends import engine_info
    from llamacli.runtime.memory import memory, peak_memory
    from llamacli.runtime.power import power
    from llamacli.runtime.processors import processor

    engine, supply = engine_info(), power()
    peak = peak_memory()  # before the memory's speed is measured, which takes memory of its own
    wanted = any(_on_processor(m.case, engine.gpus) and m.case.test.generate for m in measured)
    speed = memory_speed(processor().threads, memory().available) if wanted else 0.0
    around = Surroundings(engine, __version__, peak, speed, supply.source, supply.governor)
    headers = {m.case.path: read_gguf(m.case.path, arrays="skip") for m in measured}
    out = []
    for m in measured:
        case = m.case
        middle = case.test.depth + case.test.generate // 2
        needed = bytes_per_token(headers[case.path], middle, case.cache_type_k, case.cache_type_v)
        fits = _on_processor(case, engine.gpus)
        out.append(record(m, around if fits else replace(around, memory_speed=0.0), needed))
    return out


def _on_processor(case: Case, gpus: Sequence[object]) -> bool:
    """Whether the main memory's speed is what limits this case."""
    return not gpus or case.gpu_layers == 0


def _show(here: Context, form: str, records: Sequence[Record], compared: Sequence[Comparison | None]) -> None:
    from llamacli.bench.formats import FORMATS
    from llamacli.cli.screen.bench_table import show_comparison, show_records

    if form == "table":
        show_records(here.console, records, compared)
        return
    here.console.write(FORMATS[form](records))
    show_comparison(here.console, compared)


def _judge(
    records: Sequence[Record], compared: Sequence[Comparison | None], fail_below: float, fail_on_regression: bool
) -> None:
    """Raise PredicateFalse (exit 1) if a limit was given and is not kept."""
    from llamacli.bench.record import workload_name

    generating = [record for record in records if record["n_gen"] and not record["n_prompt"]]
    for record in generating or records:
        if record["median_ts"] < fail_below:
            raise PredicateFalse(f"{workload_name(record)}: {record['median_ts']:.2f} t/s is below {fail_below:g}")
    slower = [found for found in compared if found is not None and found.verdict == "slower"]
    if fail_on_regression and slower:
        worst = min(slower, key=lambda found: found.change)
        raise PredicateFalse(f"{worst.test} became slower: {worst.before:.2f} -> {worst.now:.2f} t/s")

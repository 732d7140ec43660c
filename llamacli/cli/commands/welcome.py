"""`llamacli` without a command: on a terminal what this machine can do now and what to try; in a pipe the help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamacli import __version__
from llamacli.cli.console import clean
from llamacli.cli.context import Context

if TYPE_CHECKING:
    from llamacli.library.inventory import LocalModel

MOST_MODELS = 4
BYTES_PER_WEIGHT = 4.9 / 8
"""Of Q4_K_M, the usual choice."""
MOST_BYTES = 6e9
"""A first model should not take the afternoon to fetch."""


def welcome(context: Context, help_text: str) -> None:
    """The first screen on stdout. It asks the machine, not the network, and starts no other program."""
    if not context.console.out_is_terminal:
        context.console.write(help_text.rstrip() + "\n")
        return
    models = _models(context)
    lines = [
        f"llamacli {__version__} — run language models on this computer. Nothing leaves it except downloads you ask for.",
        *_machine_lines(),
        *_model_lines(models),
        f"{'Or:  ' if models else 'Try: '}  llamacli download {_suggestion(context)}",
        'Pipe:  git diff | llamacli run "explain"',
        "Help:  llamacli --help",
    ]
    context.console.write("".join(f"  {clean(line)}\n" for line in lines))


def _machine_lines() -> list[str]:
    from llamacli.cli.diagnosis import installed_engine, unused_gpus
    from llamacli.cli.sizes import human_size
    from llamacli.runtime.hardware import machine

    computer = machine(quick=True)
    cpu, memory = computer.processor, computer.memory
    engine, error = installed_engine()
    parts = [
        f"{cpu.model} ({cpu.physical} cores)",
        f"{human_size(memory.total)} RAM ({human_size(memory.available)} free)",
        *(gpu.name for gpu in computer.gpus),
    ]
    if engine is None:
        return [
            f"This machine: {', '.join(parts)}",
            f"  ! {error.message if error else 'no engine'}   (llamacli doctor)",
        ]
    built = "engine built for CPU only" if engine.acceleration in ("CPU", "RPC") else f"engine: {engine.acceleration}"
    lines = [f"This machine: {', '.join(parts)} — {built}"]
    for problem in unused_gpus(computer.gpus, engine):
        lines += [f"  ! {problem.message}. To use it:", f"    {problem.fix}", "    (llamacli doctor)"]
    return lines


def _models(context: Context) -> list[LocalModel]:
    """What can be run at once, last used first."""
    from llamacli.cli.models import places
    from llamacli.library.inventory import local_models

    found = local_models(places(context), everywhere=True)
    return [model for model in found if not model.error and model.quant != "safetensors"]


def _model_lines(models: list[LocalModel]) -> list[str]:
    from llamacli.cli.sizes import human_size

    if not models:
        return []
    foreign = sum(model.where not in ("hf", "file") for model in models)
    others = f", {foreign} of them from other tools, that run here as they are" if foreign else ""
    lines = [f"You have {len(models)} model{'s' * (len(models) > 1)} here{others}:"]
    lines += [f"   {model.name:<48} {human_size(model.size):>8}" for model in models[:MOST_MODELS]]
    lines += ["   ... (llamacli list --all)"] * (len(models) > MOST_MODELS)
    return [*lines, f"Try:   llamacli chat {models[0].name}"]


def _suggestion(context: Context) -> str:
    """The catalog's largest chat model, free to download, of which 4 bits per weight fit; else how names look."""
    from llamacli.library.catalog import catalog
    from llamacli.library.memory import memory_budget

    budget = memory_budget() or 0
    fitting = {}
    for entry in catalog(context.config_dir).values():
        size = _weights(entry.parameters) * BYTES_PER_WEIGHT
        if entry.kind == "chat" and not entry.gated and 0 < size <= min(budget, MOST_BYTES):
            fitting[size] = f"{entry.name:<20} about {size / 1e9:.1f} GB"
    return fitting[max(fitting)] if fitting else "user/repo"


def _weights(text: str) -> float:
    """`3.2B` or `135M` as a number; 0 for anything else."""
    factor = {"B": 1e9, "M": 1e6}.get(text[-1:], 0)
    try:
        return float(text[:-1]) * factor
    except ValueError:
        return 0

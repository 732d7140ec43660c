"""`llamacli` without a command: on a terminal what this machine can do now and what to try; in a pipe the help."""

from __future__ import annotations

from llamacli import __version__
from llamacli.cli.console import clean
from llamacli.cli.context import Context

MOST_MODELS = 4


def welcome(context: Context, help_text: str) -> None:
    """The first screen on stdout. It asks the machine, not the network, and starts no other program."""
    if not context.console.out_is_terminal:
        context.console.write(help_text.rstrip() + "\n")
        return
    lines = [
        f"llamacli {__version__} — run language models on this computer. Nothing leaves it except downloads you ask for.",
        *_machine_lines(),
    ]
    models = _models(context)
    if models:
        lines.append(f"You have {len(models)} model{'s' * (len(models) > 1)} here:")
        lines += [f"   {label:<40} {size:>8}" for label, size in models[:MOST_MODELS]]
        if len(models) > MOST_MODELS:
            lines.append("   ... (llamacli list --all)")
        lines.append(f"Try:   llamacli chat {models[0][0]}")
    lines.append(f"{'Or' if models else 'Try'}:{'    ' if models else '   '}llamacli download {_suggestion(context)}")
    lines.append('Pipe:  git diff | llamacli run "explain"')
    lines.append("Help:  llamacli --help")
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


def _models(context: Context) -> list[tuple[str, str]]:
    """What a user can run at once: the label to type, and the size."""
    from llamacli.cli.diagnosis import homeless
    from llamacli.cli.models import places
    from llamacli.cli.sizes import human_size
    from llamacli.library.foreign import foreign_models

    found = []
    for model in foreign_models(places(context)):
        label = model.label if model.store in ("ollama", "lms") else homeless(model.path, context.home)
        try:
            found.append((label, human_size(model.path.stat().st_size)))
        except OSError:
            continue  # another tool is just removing it
    return found


def _suggestion(context: Context) -> str:
    """A name of the catalog whose chat model is the first that the list recommends; else the grammar of names."""
    from llamacli.library.catalog import catalog

    entries = catalog(context.config_dir).values()
    return next((entry.name for entry in entries if entry.kind == "chat" and not entry.gated), "user/repo")

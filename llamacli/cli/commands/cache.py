"""`llamacli cache ls|clear`: the prompts that are remembered on disk."""

from __future__ import annotations

from pathlib import Path

import typer

from llamacli.cli.context import Context
from llamacli.cli.prompt_cache import cache_root
from llamacli.cli.sizes import human_age, human_size
from llamacli.errors import NotFound, UsageError
from llamacli.runtime.prefix_files import Entry, all_entries, remove, sweep


def cache_command(
    context: typer.Context,
    action: str = typer.Argument("ls", metavar="ls|clear", help="Show what is kept, or remove it."),
    name: str = typer.Argument("", metavar="[NAME]", help="Only what was kept under this name, or for this model."),
) -> None:
    """The beginnings of long prompts, kept so that they are read only once.

    \b
    llamacli cache ls                what is kept, and how large it is
    llamacli cache clear             remove all of it
    llamacli cache clear NAME        remove what --cache NAME has kept, or what belongs to a model
    """
    here: Context = context.obj
    if action not in ("ls", "list", "clear"):
        raise UsageError(f"cache {action}: ls or clear")
    root = cache_root(here)
    chosen = [entry for entry in all_entries(root) if not name or name in (entry.label, _model(entry), entry.model)]
    if name and not chosen:
        raise NotFound(f"no kept prompt is called {name} or belongs to a model of that name", "see: llamacli cache ls")
    if action == "clear":
        _clear(here, root, chosen)
    else:
        _show(here, chosen)


def _clear(here: Context, root: Path, chosen: list[Entry]) -> None:
    freed = sum(entry.size for entry in chosen if remove(entry))
    sweep(root)
    here.console.status(f"removed {len(chosen)} kept prompts, {human_size(freed)}")


def _show(here: Context, chosen: list[Entry]) -> None:
    now = here.now()
    rows = [
        (_model(entry), entry.label or "-", f"{entry.count:,}", human_size(entry.size), human_age(now - entry.used))
        for entry in chosen
    ]
    data = [
        {"model": entry.model, "name": entry.label, "tokens": entry.count, "bytes": entry.size, "used": entry.used,
         "path": str(entry.path)}
        for entry in chosen
    ]  # fmt: skip
    here.console.table(("MODEL", "NAME", "TOKENS", "SIZE", "USED"), rows, data)
    if chosen:
        here.console.status(f"{len(chosen)} kept prompts, {human_size(sum(entry.size for entry in chosen))}")


def _model(entry: Entry) -> str:
    return Path(entry.model).stem if entry.model else "?"

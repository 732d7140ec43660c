"""`llamacli rm`: remove models from the Hub cache, after saying what that frees."""

from __future__ import annotations

from typing import Annotated

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context
from llamacli.cli.made import all_made
from llamacli.cli.models import places
from llamacli.cli.sizes import human_size
from llamacli.errors import NotFound, UsageError
from llamacli.library.catalog import catalog
from llamacli.library.find import expand
from llamacli.library.names import ModelName
from llamacli.library.removing import Removal, carry_out, plan_removal, removal_of_made
from llamacli.library.store import HubCache

OWNERS = {"ollama": "Ollama: ollama rm {name}", "lms": "LM Studio: remove it there"}


def rm_command(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="user/repo, user/repo:QUANT or an alias.", autocompletion=complete_model),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a model that was downloaded, or made from a repository; files that another revision still uses stay.

    \b
    llamacli rm bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M
    llamacli rm --dry-run bartowski/Llama-3.2-3B-Instruct-GGUF
    llamacli rm -y some/repo other/repo
    """
    here: Context = context.obj
    cache = HubCache(places(here).hub_cache)
    removals = [removal for text in models for removal in _planned(here, cache, text)]
    for removal in removals:
        _tell(here, removal)
    if dry_run:
        return
    if not yes:
        _ask(here, sum(r.freed for r in removals))
    for removal in removals:
        carry_out(cache, removal)
    freed = sum(r.freed for r in removals)
    here.console.status(f"freed {human_size(freed)}")
    if here.console.json_output:
        here.console.result("", {"removed": [str(p) for r in removals for p in r.pointers], "freed": freed})


def _planned(here: Context, cache: HubCache, text: str) -> list[Removal]:
    """What `text` means in the Hub cache, and what was made from it here. Raises NotFound if that is nothing."""
    name = _name(here, text)
    made = [removal_of_made(path, name.name) for path in all_made(here, text)]
    try:
        return [plan_removal(cache, name), *made]
    except NotFound:
        if not made:
            raise
        return made


def _name(here: Context, text: str) -> ModelName:
    name = expand(catalog(here.config_dir), ModelName.parse(text))
    if name.kind in OWNERS:
        raise UsageError(f"{text} belongs to {OWNERS[name.kind].format(name=name.name)}")
    if name.kind == "path":
        raise UsageError(f"{text} is a file of yours", "llamacli rm removes what llamacli download brought")
    return name


def _tell(here: Context, removal: Removal) -> None:
    files = f"{len(removal.pointers)} file" + ("s" if len(removal.pointers) != 1 else "")
    parts = " and unfinished downloads" if any("part" in p.suffixes[-1] for p in removal.blobs if p.suffixes) else ""
    here.console.status(f"{removal.repo}: {files}{parts}, {human_size(removal.freed)}")
    for pointer in removal.pointers[:20]:
        here.console.status(f"  {pointer}")
    if removal.kept:
        here.console.status(f"  {len(removal.kept)} of them stay on disk: another revision uses them")


def _ask(here: Context, freed: int) -> None:
    if here.console.no_input or not here.console.err_is_terminal:
        raise UsageError("removing needs a yes, and nobody can be asked here", "add -y")
    typer.confirm(f"remove {human_size(freed)}?", abort=True, err=True)

"""`llamacli prune`: remove what unfinished downloads have left."""

from __future__ import annotations

from typing import Annotated

import typer

from llamacli.cli.context import Context
from llamacli.cli.models import places
from llamacli.cli.sizes import human_age, human_size
from llamacli.errors import UsageError
from llamacli.library.pruning import Unfinished, prune, unfinished
from llamacli.library.store import HubCache


def prune_command(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Remove unfinished downloads; one that is running is left alone.

    \b
    llamacli prune --dry-run
    llamacli prune
    llamacli prune -y
    """
    here: Context = context.obj
    cache = HubCache(places(here).hub_cache)
    found = unfinished(cache)
    if dry_run or here.console.json_output:
        _show(here, found)
    if dry_run:
        return
    if found and not yes:
        _ask(here, found)
    if not found:
        here.console.status("nothing is unfinished")
        return
    freed = sum(item.here for item in found if prune(cache, item))
    here.console.status(f"freed {human_size(freed)}")


def _show(here: Context, found: list[Unfinished]) -> None:
    now = here.now()
    rows = [(u.repo, human_size(u.here), human_age(now - u.changed), u.path.name[:12]) for u in found]
    data = [{"repo": u.repo, "bytes": u.here, "path": str(u.path)} for u in found]
    here.console.table(("REPOSITORY", "SIZE", "AGE", "FILE"), rows, data)


def _ask(here: Context, found: list[Unfinished]) -> None:
    if here.console.no_input or not here.console.err_is_terminal:
        raise UsageError("removing needs a yes, and nobody can be asked here", "add -y")
    total = human_size(sum(u.here for u in found))
    typer.confirm(f"remove {len(found)} unfinished downloads, {total}?", abort=True, err=True)

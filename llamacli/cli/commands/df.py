"""`llamacli df`: what models take on this disk, store by store, and what is there twice."""

from __future__ import annotations

import typer

from llamacli.cli.context import Context
from llamacli.cli.models import places
from llamacli.cli.sizes import human_size
from llamacli.library.duplicates import Duplicate, by_store, copies_of, duplicates
from llamacli.library.inventory import LocalModel, local_models
from llamacli.library.pruning import unfinished
from llamacli.library.store import HubCache


def df_command(context: typer.Context) -> None:
    """Show the bytes that models take in each store, and models that are here more than once.

    \b
    llamacli df
    llamacli df --json
    llamacli dedupe            what could be linked
    """
    here: Context = context.obj
    sizes, twice = by_store(copies_of(all_models(here))), find_duplicates(here)
    rows = [(store, human_size(size)) for store, size in sorted(sizes.items(), key=lambda item: -item[1])]
    partial = sum(item.here for item in unfinished(HubCache(places(here).hub_cache)))
    data = {"stores": sizes, "unfinished": partial, "duplicates": [facts(found) for found in twice]}
    if rows or here.console.json_output:
        here.console.table(("STORE", "SIZE"), rows, data)
    if partial and not here.console.json_output:
        here.console.status(f"{human_size(partial)} of unfinished downloads; llamacli prune removes them")
    if not sizes and not partial:
        here.console.status("no models yet")
    if twice and not here.console.json_output:
        wasted = human_size(sum(found.wasted for found in twice))
        here.console.status(f"{wasted} are here more than once; llamacli dedupe shows them")


def all_models(here: Context) -> list[LocalModel]:
    """Every model on this computer."""
    return local_models(places(here), everywhere=True, made=here.data_dir / "models")


def find_duplicates(here: Context) -> list[Duplicate]:
    """Files that are here more than once, under a bar while they are compared."""
    with here.console.progress("comparing", None) as progress:
        return duplicates(copies_of(all_models(here)), here.cache_dir / "digests.json", progress)


def facts(found: Duplicate) -> dict[str, object]:
    """For --json."""
    return {
        "bytes": found.size,
        "wasted": found.wasted,
        "files": [{"path": str(copy.path), "store": copy.store} for copy in found.copies],
    }

"""`llamacli dedupe`: one copy of what is here twice, when asked."""

from __future__ import annotations

from typing import Annotated

import typer

from llamacli.cli.commands.df import facts, find_duplicates
from llamacli.cli.context import Context
from llamacli.cli.sizes import human_size
from llamacli.library.duplicates import link_copies


def dedupe_command(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without it nothing is changed.")] = False,
) -> None:
    """Let equal model files share one copy, by clones where the disk has them, else by hard links.

    \b
    llamacli dedupe             show what is here more than once
    llamacli dedupe --apply     link it

    Other tools' stores are changed only by --apply, and keep working: every name stays.
    """
    here: Context = context.obj
    found = find_duplicates(here)
    rows = [
        (human_size(one.size), copy.store, "kept" if copy is one.copies[0] else "the same", str(copy.path))
        for one in found
        for copy in one.copies
    ]
    if rows or here.console.json_output:
        here.console.table(("SIZE", "STORE", "", "FILE"), rows, [facts(one) for one in found])
    if not found:
        here.console.status("nothing is here twice")
    elif apply:
        here.console.status(f"freed {human_size(sum(link_copies(one) for one in found))}")
    else:
        here.console.status(f"{human_size(sum(one.wasted for one in found))} could be freed: llamacli dedupe --apply")

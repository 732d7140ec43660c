"""`llamacli alias`: short names of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context
from llamacli.cli.models import lasting, warn_if_missing
from llamacli.errors import UsageError
from llamacli.library.aliases import aliases, remove_alias, set_alias


def alias_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The short name.")] = "",
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="What it stands for.", autocompletion=complete_model)
    ] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Forget the name.")] = False,
) -> None:
    """Give a model a short name; without arguments show the names there are.

    \b
    llamacli alias code Qwen/Qwen2.5-Coder-7B-Instruct-GGUF:Q4_K_M
    llamacli alias
    llamacli alias code --remove
    """
    here: Context = context.obj
    if remove:
        remove_alias(here.config_dir, name)
        here.console.status(f"{name} is no name of yours any more")
    elif name and model:
        kept = lasting(here, model)
        set_alias(here.config_dir, name, kept)
        here.console.status(f"{name} is {kept} now")
        warn_if_missing(here, kept)
    elif name:
        raise UsageError("what does it stand for?", f"llamacli alias {name} MODEL")
    else:
        found = aliases(here.config_dir).values()
        here.console.table(("NAME", "MODEL"), [(e.name, e.model) for e in found])
        if not found:
            here.console.status("no names of your own yet: llamacli alias NAME MODEL")

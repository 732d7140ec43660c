"""`llamacli config`: settings that need no flag, and where each value comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from llamacli.cli.configuration import configured, converted, files, names, write_setting
from llamacli.cli.context import Context
from llamacli.cli.engine_options import check_setting
from llamacli.errors import NotFound, UsageError

ACTIONS = ("get", "set", "unset", "explain", "path")


def config_command(
    context: typer.Context,
    action: Annotated[str, typer.Argument(metavar="|".join(ACTIONS), help="What to do.")] = "explain",
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A flag's long name, such as ctx-size.")] = "",
    value: Annotated[str, typer.Argument(metavar="[VALUE]", help="Its value.")] = "",
) -> None:
    """Show and change settings. A flag wins over a variable, ./llamacli.toml, and config.toml, in this order.

    \b
    llamacli config set ctx-size 8192
    llamacli config explain ctx-size
    llamacli config path
    """
    here: Context = context.obj
    if action not in ACTIONS:
        raise UsageError(f"config {action}: one of {', '.join(ACTIONS)}")
    project, own = files(here)
    if action == "path":
        here.console.result(own, {"config": str(own), "project": str(project) if project.is_file() else None})
        return
    key = _known(name) if name else ""
    if action in ("get", "set", "unset") and not key:
        raise UsageError(f"config {action}: which setting?", "llamacli config explain lists all names")
    if action in ("set", "unset"):
        if action == "set" and not value:
            raise UsageError(f"config set {name}: to what?", f"llamacli config unset {name} takes it out")
        new = converted(key, value, names()[key], "config set") if action == "set" else None
        if new is not None:
            check_setting(key, new, "config set")
        write_setting(own, key, new)
    elif action == "get":
        found = configured(here).get(key)
        if found is None:
            raise NotFound(f"{name} is not set", "the model or the machine decides")
        here.console.result(found.value, found.value)
    else:
        _explain(here, [key] if key else list(names()))


def _explain(here: Context, keys: list[str]) -> None:
    found = configured(here)
    rows = []
    for key in keys:
        setting = found.get(key)
        shown = (setting.value, setting.source) if setting else ("", "not set: the model or the machine decides")
        rows.append((key.replace("_", "-"), *shown))
    here.console.table(("NAME", "VALUE", "FROM"), rows)


def _known(name: str) -> str:
    """The setting's name. Raises NotFound with near misses."""
    from llamacli.library.catalog import near

    key = name.lstrip("-").replace("-", "_")
    if key in names():
        return key
    guesses = [guess.replace("_", "-") for guess in near(key, names())]
    raise NotFound(f"no setting is called {name}", f"did you mean {', '.join(guesses)}?" if guesses else "")

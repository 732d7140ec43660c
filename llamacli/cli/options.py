"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.console import Console

ModelArg = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]", help="A name, an alias, a file, or user/repo[:QUANT].", autocompletion=complete_model
    ),
]


def add_global_options(command: Any) -> None:
    """Give `command` the flags that every command has; they act on its Context and do not reach its function."""
    taken = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    shared = typer.Typer(add_completion=False, rich_markup_mode=None)
    shared.command("shared")(_globals)
    for param in typer.main.get_command(shared).params:
        param.opts = [name for name in param.opts if name not in taken]
        if param.opts and param.name != "help":
            command.params.append(param)


def _set(attribute: str) -> Any:
    def callback(context: typer.Context, value: Any) -> Any:
        if value:
            console: Console = context.obj.console
            setattr(console, attribute, value)
        return value

    return callback


def _globals(
    json: bool = typer.Option(
        False, "--json", help="Machine-readable output.", expose_value=False, callback=_set("json_output")
    ),
    quiet: bool = typer.Option(
        False, "-q", "--quiet", help="Only the product and errors.", expose_value=False, callback=_set("quiet")
    ),
    verbose: int = typer.Option(
        0,
        "-v",
        "--verbose",
        count=True,
        help="More talk; -vv shows the engine's log.",
        expose_value=False,
        callback=_set("verbose"),
    ),
    color: str = typer.Option(
        "",
        "--color",
        metavar="auto|always|never",
        help="Colour on the terminal.",
        expose_value=False,
        callback=_set("color"),
    ),
    no_input: bool = typer.Option(
        False, "--no-input", help="Never ask; fail instead.", expose_value=False, callback=_set("no_input")
    ),
    offline: bool = typer.Option(
        False, "--offline", help="Never use the network.", expose_value=False, callback=_set("offline")
    ),
) -> None:
    """Flags of every command."""

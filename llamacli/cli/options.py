"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.console import Console
from llamacli.cli.shared_options import add_options

ModelArg = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]", help="A name, an alias, a file, or user/repo[:QUANT].", autocompletion=complete_model
    ),
]


def add_global_options(command: Any) -> None:
    """Give `command` the flags that every command has; they act on its Context and do not reach its function."""
    add_options(command, _globals)


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
        show_default=False,
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

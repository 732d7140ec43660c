"""`llamacli default`: the model that commands use when none is named."""

from __future__ import annotations

import typer

from llamacli.cli.context import Context
from llamacli.cli.models import default_model, lasting, warn_if_missing
from llamacli.cli.options import ModelArg
from llamacli.errors import PredicateFalse
from llamacli.library.aliases import DEFAULT, set_alias


def default_command(context: typer.Context, model: ModelArg = None) -> None:
    """Choose the model that commands use when none is named; without argument show it.

    \b
    llamacli default llama-3.2-3b
    llamacli default
    LLAMACLI_MODEL=qwen3-8b llamacli run "hello"        for one command
    """
    here: Context = context.obj
    if model is not None:
        kept = lasting(here, model)
        set_alias(here.config_dir, DEFAULT, kept)
        here.console.status(f"commands use {kept} now")
        warn_if_missing(here, kept)
    elif current := default_model(here):
        here.console.result(current)
    else:
        raise PredicateFalse("there is no default model", "llamacli default MODEL sets it")

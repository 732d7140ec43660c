"""`llamacli help TOPIC`: what is documented beside the commands."""

from __future__ import annotations

import typer

from llamacli.cli.context import Context
from llamacli.errors import EXIT_CODES, NotFound

ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("LLAMACLI_MODEL", "the model that commands use when none is named"),
    ("LLAMACLI_HOME", "one folder for settings, conversations and caches"),
    ("HF_TOKEN, HF_TOKEN_PATH", "token for gated models; sent to the Hub only"),
    ("HF_HOME, HF_HUB_CACHE", "where downloaded models live"),
    ("HF_ENDPOINT, MODEL_ENDPOINT", "another Hub"),
    ("HF_HUB_OFFLINE", "never use the network"),
    ("NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, TERM", "colour on the terminal"),
    ("LLAMA_ARG_CTX_SIZE, LLAMA_ARG_N_GPU_LAYERS, LLAMA_ARG_THREADS", "as llama.cpp reads them"),
)


def help_command(
    context: typer.Context,
    topic: str = typer.Argument("", metavar="[TOPIC]", help="exit-codes, env, or a command."),
) -> None:
    """Explain exit codes, environment variables or a command.

    \b
    llamacli help exit-codes
    llamacli help env
    llamacli help run
    """
    here: Context = context.obj
    if topic in ("exit-codes", "exit"):
        here.console.table(("code", "meaning"), EXIT_CODES)
    elif topic in ("env", "environment"):
        here.console.table(("variable", "meaning"), ENVIRONMENT)
    else:
        _command_help(context, topic)


def _command_help(context: typer.Context, topic: str) -> None:
    here: Context = context.obj
    group = context.parent
    assert group is not None
    command = group.command.get_command(group, topic) if topic else group.command  # type: ignore[attr-defined]
    if command is None:
        raise NotFound(f"no help on {topic!r}", "topics: exit-codes, env, or any command of llamacli --help")
    with command.make_context(topic or "llamacli", [], parent=group, resilient_parsing=True) as inner:
        here.console.write(command.get_help(inner).rstrip() + "\n")

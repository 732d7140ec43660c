"""Which model a command works on: from what the user typed, or did not type, to a file."""

from __future__ import annotations

from pathlib import Path

from llamacli.cli.context import Context, located
from llamacli.cli.made import made_here
from llamacli.errors import LlamacliError, NotFound, Unsupported, UsageError
from llamacli.library.aliases import DEFAULT, aliases
from llamacli.library.catalog import read_toml
from llamacli.library.find import find_model
from llamacli.library.memory import memory_budget
from llamacli.library.places import Places


def model_path(context: Context, name: str | None) -> Path:
    """The GGUF that `name` means, found without the network; None or "-" is the default model.

    Of a split model it is the first part. Raises NotFound (exit 3) with the line that downloads it, UsageError (exit 2)
    if no model is named anywhere or the name is ambiguous.
    """
    text = name if name not in (None, "", "-") else default_model(context)
    if not text:
        raise UsageError(
            "no model named, and there is no default model",
            "name one (llamacli list shows what is here), or set one: llamacli default MODEL",
        )
    try:
        return find_model(places(context), context.cwd, text, memory_budget())
    except (NotFound, Unsupported):
        if (made := made_here(context, text)) is not None:
            return made
        raise


def obtain(context: Context, name: str | None, *, pull: bool = False) -> Path:
    """As `model_path`; what is not here but on the Hub is downloaded with `pull`, or after asking on a terminal.

    A repository that has only safetensors is quantized straight from the Hub instead. Without a terminal NotFound
    (exit 3) names the command, so that no script fetches gigabytes by surprise.
    """
    try:
        return model_path(context, name)
    except (NotFound, Unsupported) as error:
        console = context.console
        if context.offline or not (pull or (console.err_is_terminal and not console.no_input)):
            raise
        from llamacli.cli.downloading import Downloads  # TLS and threads, only for who needs them

        downloads = Downloads(context)
        wanted = downloads.name(name or default_model(context), "")
        if wanted.kind != "hub":
            raise
        console.status(error.message)
        return downloads.ask_and_fetch(wanted, yes=pull)


def lasting(context: Context, name: str) -> str:
    """`name` as it may be kept: what is a file here means the same in every folder later."""
    path = located(context.cwd, name)
    return str(path.absolute()) if path.is_file() else name


def warn_if_missing(context: Context, name: str) -> None:
    """Tell that a name which was just kept leads nowhere yet: it may be downloaded later, or misspelled."""
    try:
        model_path(context, name)
    except LlamacliError as error:
        context.console.warn(error.message)


def default_model(context: Context) -> str:
    """The model that commands use when none is named, or nothing.

    LLAMACLI_MODEL, else `model` in config.toml, else what `llamacli default` has set.
    """
    if own := context.env.get("LLAMACLI_MODEL", "").strip():
        return own
    settings = context.config_dir / "config.toml"
    value = read_toml(settings).get("model", "") if settings.is_file() else ""
    if isinstance(value, str) and value:
        return value
    chosen = aliases(context.config_dir).get(DEFAULT)
    return chosen.model if chosen else ""


def places(context: Context) -> Places:
    """The library's view of `context`."""
    return Places(context.env, context.home, context.config_dir, context.cache_dir, context.offline)

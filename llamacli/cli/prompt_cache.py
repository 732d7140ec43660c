"""`--cache auto|off|NAME`: whether long prompts are remembered on disk, for every command that reads some."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.context import Context
from llamacli.cli.shared_options import add_options
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.runtime.llama import LlamaEngine

_KEY = "llamacli.prompt_cache"
VARIABLE = "LLAMACLI_CACHE_SIZE"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.I)


def add_cache_option(command: Any) -> None:
    """Give `command` the flag; its value waits in Click's context for `use_prompt_cache`."""
    add_options(command, _cache)


def cache_root(context: Context) -> Path:
    """Where prefixes of prompts are kept."""
    return context.cache_dir / "prompts"


def use_prompt_cache(context: typer.Context, engine: LlamaEngine, *, chat: str = "") -> None:
    """Let `engine` look for the beginnings of its prompts on disk, unless --cache off. Raises UsageError."""
    choice = context.meta.get(_KEY, "auto")
    here: Context = context.obj
    limit = size_limit(here.env)
    if choice == "off" or limit == 0:
        return
    from llamacli.runtime.prefix_cache import LIMIT, PrefixCache

    engine.prefixes = PrefixCache(
        cache_root(here),
        engine.gguf,
        engine.settings,
        engine.threads,
        name="" if choice == "auto" else choice,
        limit=LIMIT if limit is None else limit,
    )
    engine.prefixes.chat = chat


@contextlib.contextmanager
def prompt_cache(context: typer.Context, engine: LlamaEngine) -> Iterator[None]:
    """Within the block prompts are looked for on disk; after it the last one is kept, however the block ended.

    Only an impatient Ctrl-C is not made to wait for that.
    """
    use_prompt_cache(context, engine)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        engine.keep_prefix()
        raise
    engine.keep_prefix()


def size_limit(env: Mapping[str, str]) -> int | None:
    """Bytes from LLAMACLI_CACHE_SIZE (such as 500M or 10G; 0: keep nothing); None where it is not set."""
    text = env.get(VARIABLE, "").strip()
    if not text:
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise UsageError(f"{VARIABLE}={text}: a size such as 500M or 10G")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def _keep(context: typer.Context, value: str | None) -> str | None:
    if value is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._]{0,63}", value):
            raise typer.BadParameter(f"{value!r}: auto, off, or a name of letters, digits, dots and underscores")
        context.meta[_KEY] = value
    return value


def _cache(
    cache: str | None = typer.Option(
        None,
        "--cache",
        metavar="auto|off|NAME",
        help="Remember long prompts on disk; NAME keeps this one until it is cleared.",
        expose_value=False,
        callback=_keep,
    ),
) -> None:
    """Whether long prompts are remembered."""

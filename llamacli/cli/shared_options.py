"""Flags that a command takes from another module: they do not reach its function but wait in Click's context."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import typer


class SharedOptions:
    """A group of flags, kept in Click's context under `key`: only those that the user gave."""

    def __init__(self, key: str) -> None:
        self._key = f"llamacli.{key}"

    def given(self, context: typer.Context) -> Mapping[str, Any]:
        """The flags that the user gave, by name. An empty text counts as not given."""
        values: Mapping[str, Any] = context.meta.get(self._key, {})
        return values

    def option(self, name: str, *flags: str, text: str, metavar: str | None = None, **more: Any) -> Any:
        """One flag, as the default of a function's argument; `more` is passed to Typer."""

        def keep(context: typer.Context, value: Any) -> Any:
            return self.keep(context, name, value)

        return typer.Option(None, *flags, help=text, metavar=metavar, expose_value=False, callback=keep, **more)

    def choice(self, name: str, *flags: str, text: str, allowed: tuple[str, ...], metavar: str) -> Any:
        """One flag whose value is a word of `allowed`."""

        def keep(context: typer.Context, value: str | None) -> str | None:
            if value is not None and value not in allowed:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}")
            self.keep(context, name, value)
            return value

        return typer.Option(None, *flags, help=text, metavar=metavar, expose_value=False, callback=keep)

    def keep(self, context: typer.Context, name: str, value: Any) -> Any:
        """Remember a value that was given."""
        if isinstance(value, float) and not math.isfinite(value):
            raise typer.BadParameter(f"{value} is not a finite number")
        if value not in (None, "", []):
            context.meta.setdefault(self._key, {})[name] = value
        return value


def add_options(command: Any, function: Any) -> None:
    """Give `command` those of `function`'s flags whose names are free."""
    taken = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    shared = typer.Typer(add_completion=False, rich_markup_mode=None)
    shared.command("shared")(function)
    for param in typer.main.get_command(shared).params:
        param.opts = [name for name in param.opts if name not in taken]
        if param.opts and param.name != "help":
            command.params.append(param)

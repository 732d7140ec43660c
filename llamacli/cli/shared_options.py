"""Flags that a command takes from another module: they do not reach its function but wait in Click's context."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import typer

from llamacli.errors import UsageError


class SharedOptions:
    """A group of flags, kept in Click's context under `key`: only those that the user gave."""

    def __init__(self, key: str) -> None:
        self._key = f"llamacli.{key}"
        self._limits: dict[str, tuple[float | None, float | None]] = {}
        self._words: dict[str, tuple[str, ...]] = {}

    def given(self, context: typer.Context) -> Mapping[str, Any]:
        """The flags that the user gave, by name. An empty text counts as not given."""
        values: Mapping[str, Any] = context.meta.get(self._key, {})
        return values

    def option(
        self, name: str, *flags: str, text: str, metavar: str | None = None, filled: bool = False, **more: Any
    ) -> Any:
        """One flag, as the default of a function's argument; `more` is passed to Typer.

        With `filled` an empty value is an error: a variable that is not set must not lift what it was to ask for.
        """
        self._limits[name] = more.get("min"), more.get("max")

        def keep(context: typer.Context, value: Any) -> Any:
            if filled and value == "":
                raise typer.BadParameter("it is empty")
            return self.keep(context, name, value)

        return typer.Option(None, *flags, help=text, metavar=metavar, expose_value=False, callback=keep, **more)

    def choice(self, name: str, *flags: str, text: str, allowed: tuple[str, ...], metavar: str) -> Any:
        """One flag whose value is a word of `allowed`."""
        self._words[name] = allowed

        def keep(context: typer.Context, value: str | None) -> str | None:
            if value is not None and value not in allowed:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}")
            self.keep(context, name, value)
            return value

        return typer.Option(None, *flags, help=text, metavar=metavar, expose_value=False, callback=keep)

    def check(self, name: str, value: Any, where: str) -> None:
        """Raise UsageError for a value, set elsewhere than by its flag, that the flag would refuse."""
        said = f"{where}: {name.replace('_', '-')} = {value}"
        if name in self._words and value not in self._words[name]:
            raise UsageError(f"{said}: one of {', '.join(self._words[name])}")
        least, most = self._limits.get(name, (None, None))
        if least is not None and isinstance(value, (int, float)) and value < least:
            raise UsageError(f"{said}: at least {least:g}")
        if most is not None and isinstance(value, (int, float)) and value > most:
            raise UsageError(f"{said}: at most {most:g}")

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

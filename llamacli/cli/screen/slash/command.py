"""One slash command as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk

Completes = Literal["", "files", "commands", "settings", "branches", "models"]


@dataclass(frozen=True)
class Slash:
    """`/name arguments`: what it does in a few words, the function that does it, and what Tab offers after it."""

    name: str
    arguments: str
    help: str
    run: Callable[[Talk, str], None]
    aliases: tuple[str, ...] = ()
    completes: Completes = ""


def count_of(argument: str, default: int = 1) -> int:
    """A positive whole number, or `default` for nothing. Raises UsageError."""
    if not argument:
        return default
    if not argument.isdecimal() or int(argument) < 1:
        raise UsageError(f"{argument}: not a number from 1 on")
    return int(argument)

"""`llamacli` without a command: what this is and what to try."""

from __future__ import annotations

from llamacli.cli.context import Context


def welcome(context: Context, help_text: str) -> None:
    """Show the help on stdout; a pipe gets just that."""
    context.console.write(help_text.rstrip() + "\n")

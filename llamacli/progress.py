"""How long work reports where it stands, without knowing who is looking."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A measure of work done, in the unit the caller chose (bytes, rows, tokens)."""

    def advance(self, amount: int) -> None:
        """`amount` more units are done."""

    def describe(self, text: str) -> None:
        """What is being worked on right now."""


class Silent:
    """A `Progress` that nobody watches."""

    def advance(self, amount: int) -> None:
        """Count nothing."""

    def describe(self, text: str) -> None:
        """Say nothing."""

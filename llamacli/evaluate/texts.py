"""The texts that ship with the project: one to calibrate on, and another, never mixed with it, to measure on.

Both hold a little of everything: prose, letters, chats, recipes, sums, tables, code in several languages, and stretches
of two dozen human languages. They were written for this project, but for scenes from Shakespeare's plays.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

Name = Literal["calibration", "heldout"]


def builtin_text(name: Name) -> str:
    """The text of that name."""
    return (files("llamacli.evaluate") / f"{name}.txt").read_text(encoding="utf-8")

"""What the README says is so: its table of families is the registry, its commands exist."""

from __future__ import annotations

import re
import sys

from support import ROOT

sys.path.insert(0, str(ROOT / "docs"))

from readme_families import README, updated

from llamacli.cli.app import ALIASES, COMMANDS


def test_the_table_of_families_is_the_registry() -> None:
    text = README.read_text(encoding="utf-8")
    assert updated(text) == text, "run: python docs/readme_families.py"


def test_every_command_in_an_example_exists() -> None:
    text = README.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    used = set(re.findall(r"\bllamacli ([a-z]+)\b", blocks))
    assert used <= {name for name, _ in COMMANDS} | set(ALIASES)
    assert {"quantize", "run", "chat"} <= used

"""Write the table of families into README.md from the registry itself: `python docs/readme_families.py`."""

from __future__ import annotations

import re
from pathlib import Path

from llamacli.families.registry import FAMILIES

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- families -->\n).*?(<!-- /families -->)", re.DOTALL)


def table() -> str:
    """One row per family: what people call it, its architectures in config.json, a checkpoint on the Hub."""
    rows = [
        f"| {family.title or family.name} | {', '.join(f'`{name}`' for name in family.classes)} | {family.example} |"
        for family in FAMILIES
    ]
    return "\n".join(["| family | architectures | for example |", "|---|---|---|", *rows, ""])


def updated(text: str) -> str:
    """The README with the table of today."""
    return BLOCK.sub(lambda match: match[1] + table() + match[2], text)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")

"""Every family that is converted, in one explicit tuple: a new family is one file and one line here."""

from __future__ import annotations

import difflib

from llamacli.errors import Unsupported
from llamacli.families.base import Family
from llamacli.families.config import Config
from llamacli.families.llama import LLAMA

FAMILIES: tuple[Family, ...] = (LLAMA,)


def family_of(config: Config) -> Family:
    """The family of a config.json. Raises Unsupported that names the nearest ones."""
    known = {name: family for family in FAMILIES for name in family.architectures}
    wanted = config.architecture
    if not wanted:
        raise Unsupported("config.json names no architecture", 'it should have "architectures": ["..."]')
    outer = (config.wrapper.get("architectures") or [""])[0]
    if family := known.get(wanted) or known.get(str(outer)):
        return family
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    like = f"nearest: {', '.join(near)}; " if near else ""
    raise Unsupported(f"architecture {wanted} is not supported", f"{like}all: llamacli quantize --list-families")

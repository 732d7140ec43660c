"""The catalog of names: models.toml that ships with the program, and the user's own models.toml beside the settings.

    [llama-3.2-3b]
    model = "bartowski/Llama-3.2-3B-Instruct-GGUF"        any model name (see names.py); the only required key
    source = "meta-llama/Llama-3.2-3B-Instruct"           the repository of the original weights
    licence = "llama3.2"                                  as the source's card names it
    parameters = "3.2B"
    context = 131072                                      tokens
    good_for = "chat and summaries on a laptop"

A user's entry with the same name replaces ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llamacli.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One model of the catalog."""

    name: str
    model: str
    source: str = ""
    licence: str = ""
    parameters: str = ""
    context: int = 0
    gated: bool = False
    kind: str = "chat"
    """chat, base or embedding."""
    good_for: str = ""


def catalog(config_dir: Path | None = None) -> dict[str, Entry]:
    """All entries by name: the user's over ours. Raises UsageError for a file that cannot be read."""
    return _read(shipped()) | (own_entries(config_dir) if config_dir else {})


def own_entries(config_dir: Path) -> dict[str, Entry]:
    """The user's: aliases over models.toml."""
    from llamacli.library.aliases import aliases  # which are entries themselves

    own = config_dir / "models.toml"
    return (_read(own) if own.is_file() else {}) | aliases(config_dir)


def shipped() -> Path:
    """Our models.toml: inside the package of a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "models.toml"
    return inside if inside.is_file() else package.parent / "models.toml"


def near(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names that `word` may have meant, best first; case and punctuation count little."""
    import difflib  # only a mistake needs it

    plain = {_plain(n): n for n in names}
    wanted = _plain(word)
    found = difflib.get_close_matches(wanted, plain, n=count, cutoff=0.6)
    found += [p for p in plain if wanted and len(wanted) > 2 and wanted in p and p not in found]
    return [plain[p] for p in found[:count]]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum() or c == "/")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary. Raises UsageError that names the file."""
    if sys.version_info >= (3, 11):  # most commands read no TOML at all
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows may mark it
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def _read(path: Path) -> dict[str, Entry]:
    entries = {}
    for name, table in read_toml(path).items():
        if not isinstance(table, Mapping) or not isinstance(table.get("model"), str):
            raise UsageError(f'{path}: [{name}] has no model = "user/repo"')
        known = {f.name: table[f.name] for f in fields(Entry) if f.name != "name" and f.name in table}
        for key, value in known.items():
            if type(value) is not type(getattr(_DEFAULTS, key)):
                raise UsageError(
                    f"{path}: [{name}] {key} = {value!r} is not a {type(getattr(_DEFAULTS, key)).__name__}"
                )
        entries[name] = Entry(name=name, **known)
    return entries


_DEFAULTS = Entry("", "")

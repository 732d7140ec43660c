"""The user's short names for models: aliases.toml in the configuration folder, written by `llamacli alias`.

mine = "user/repo:Q4_K_M"
default = "mine"                  the model that commands use when none is named
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from llamacli.errors import CannotWrite, NotFound, UsageError
from llamacli.formats.durable import write_whole
from llamacli.library.catalog import Entry, near, read_toml
from llamacli.library.names import ModelName

DEFAULT = "default"


def aliases(config_dir: Path) -> dict[str, Entry]:
    """The aliases as entries of the catalog. Raises UsageError for a file that cannot be read."""
    path = config_dir / "aliases.toml"
    table = read_toml(path) if path.is_file() else {}
    return {
        name: Entry(name, model, good_for="your own name") for name, model in table.items() if isinstance(model, str)
    }


def set_alias(config_dir: Path, name: str, model: str) -> None:
    """Make `name` mean `model`. Raises UsageError for a name or a model that is none, CannotWrite."""
    try:
        good = ModelName.parse(name) == ModelName("alias", name)
    except UsageError:
        good = False
    if not good:
        raise UsageError(f"not a name: {name!r}", "an alias has letters, digits, dots, - and _")
    ModelName.parse(model)
    table = {**{n: e.model for n, e in aliases(config_dir).items()}, name: model}
    _check_end(name, table)
    _write(config_dir, table)


def _check_end(name: str, table: Mapping[str, str]) -> None:
    """Raise UsageError if `name` would lead back to itself."""
    at, seen = name, {name}
    while (at := table.get(at, "")) and at not in seen:
        seen.add(at)
    if at:
        raise UsageError(f"the alias {name} would lead back to itself", "name a model: a file, or user/repo[:QUANT]")


def remove_alias(config_dir: Path, name: str) -> None:
    """Forget `name`. Raises NotFound, CannotWrite."""
    known = {n: e.model for n, e in aliases(config_dir).items()}
    if name not in known:
        guesses = near(name, known)
        raise NotFound(f"no alias is called {name}", f"did you mean {', '.join(guesses)}?" if guesses else "")
    del known[name]
    _write(config_dir, known)


def _write(config_dir: Path, table: dict[str, str]) -> None:
    """A JSON string is a TOML string too, as long as nothing beyond ASCII is left bare."""
    lines = [f"{json.dumps(name)} = {json.dumps(model)}\n" for name, model in sorted(table.items())]
    try:
        config_dir.mkdir(parents=True, exist_ok=True)
        write_whole(config_dir / "aliases.toml", "".join(lines))
    except OSError as error:
        raise CannotWrite(f"cannot write in {config_dir}: {(error.strerror or '').lower()}") from None

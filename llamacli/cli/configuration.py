"""Settings that stand in files and variables, and where each value comes from.

The order: a flag, a variable of the environment, `llamacli.toml` in the folder at hand, `config.toml` among the user's
settings, then what suits the machine or the model. Names are those of the flags: `ctx-size = 8192`, `temp = 0.3`;
`LLAMACLI_CTX_SIZE=8192` is the variable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llamacli.cli.context import Context
from llamacli.errors import CannotWrite, UsageError
from llamacli.formats.durable import write_whole

ENGINE_VARIABLES: Mapping[str, str] = {
    "ctx_size": "LLAMA_ARG_CTX_SIZE",
    "gpu_layers": "LLAMA_ARG_N_GPU_LAYERS",
    "threads": "LLAMA_ARG_THREADS",
}
"""Variables that llama.cpp reads with the same meaning; ours win over them."""

MODEL, CHAT_OVERFLOW = "model", "chat_overflow"
_NOT_SETTINGS = frozenset({"loras", "devices", "logit_bias", "grammar", "sequences", "embeddings"})
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Setting:
    """A value and where it stands."""

    value: Any
    source: str


def names() -> dict[str, str]:
    """Everything that can be set, with its type as it is written in Python."""
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.messages import Sampling

    known = {field.name: str(field.type) for kind in (EngineSettings, Sampling) for field in fields(kind)}
    return {
        MODEL: "str",
        CHAT_OVERFLOW: "str",
        **{name: kind for name, kind in known.items() if name not in _NOT_SETTINGS},
    }


def files(here: Context) -> tuple[Path, Path]:
    """The project's file and the user's; neither has to exist."""
    own = here.env.get("LLAMACLI_CONFIG")
    return here.cwd / "llamacli.toml", Path(own) if own else here.config_dir / "config.toml"


def configured(here: Context) -> dict[str, Setting]:
    """What is set anywhere but on the command line. Raises UsageError for a name that is none, or a value."""
    out: dict[str, Setting] = {}
    present = [path for path in files(here) if path.is_file()]
    if not present and not any(key.startswith(("LLAMACLI_", "LLAMA_ARG_")) for key in here.env):
        return out
    known = names()
    for path in reversed(present):
        out.update(_in_file(path, known))
    variables = [*((ENGINE_VARIABLES[n], n) for n in ENGINE_VARIABLES), *((f"LLAMACLI_{n.upper()}", n) for n in known)]
    for variable, name in variables:
        if text := here.env.get(variable):
            out[name] = Setting(converted(name, text, known[name], variable), variable)
    return out


def _in_file(path: Path, known: Mapping[str, str]) -> dict[str, Setting]:
    from llamacli.library.catalog import near, read_toml

    out = {}
    for key, value in read_toml(path).items():
        name = key.replace("-", "_")
        if name not in known:
            guesses = near(name, known)
            hint = f"did you mean {', '.join(guesses)}?" if guesses else "llamacli config explain lists all names"
            raise UsageError(f"{path}: no setting is called {key}", hint)
        out[name] = Setting(converted(name, value, known[name], str(path)), str(path))
    return out


def converted(name: str, value: Any, kind: str, where: str) -> Any:
    """`value` as the setting's type; words such as auto stay, the flags' own check follows. Raises UsageError."""
    try:
        if kind == "bool":
            return _BOOLEANS[str(value).lower()]
        if kind == "float":
            return _finite(float(value))
        if kind.startswith("tuple"):
            return [str(part) for part in value] if isinstance(value, list) else [str(value)]
        if kind.startswith("int") and name not in ENGINE_VARIABLES:
            return int(str(value))
        if isinstance(value, (str, int, float)):
            return str(value)
    except (KeyError, ValueError, TypeError):
        pass
    raise UsageError(f"{where}: {name.replace('_', '-')} = {value!r} is not of its kind ({kind.split(' ')[0]})")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value


def write_setting(path: Path, name: str, value: Any) -> None:
    """Put `name = value` in a file; its other lines stay as they are. None takes the line out. Raises CannotWrite."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
        key = name.replace("_", "-")
        kept = [line for line in lines if line.partition("=")[0].strip().replace("-", "_") != name or "=" not in line]
        first_table = next((i for i, line in enumerate(kept) if line.lstrip().startswith("[")), len(kept))
        if value is not None:
            kept.insert(first_table, f"{key} = {json.dumps(value)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(f"{line}\n" for line in kept))
    except (OSError, UnicodeDecodeError) as error:
        raise CannotWrite(f"cannot write {path}: {error}") from None

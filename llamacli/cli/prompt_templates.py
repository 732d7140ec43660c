r"""Prompt templates of a user: files in the folder `templates` beside the settings.

`NAME.txt` or `NAME.md` holds the prompt itself. `NAME.toml` holds `prompt`, and perhaps `system` and a table
`[defaults]` of values. `{name}` is replaced by a value, `{input}` by the words, files and standard input of the command
line (which otherwise come after the prompt), `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamacli.errors import NotFound, UsageError

INPUT = "input"
_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KINDS = (".toml", ".txt", ".md")


@dataclass(frozen=True)
class PromptTemplate:
    """One template."""

    name: str
    prompt: str
    system: str = ""
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The values that it asks for, besides the input."""
        found = (match[1] for text in (self.prompt, self.system) for match in _PLACE.finditer(text))
        return list(dict.fromkeys(name for name in found if name and name != INPUT))

    def filled(self, values: Mapping[str, str], given: str | None) -> tuple[str, str]:
        """Prompt and system prompt. Raises UsageError for a value that is missing or not asked for."""
        if unknown := [name for name in values if name not in self.names]:
            raise UsageError(f"-P {unknown[0]}: the template {self.name} has no such value", self._known())
        known = {**self.defaults, **values}
        if missing := [name for name in self.names if name not in known]:
            raise UsageError(f"the template {self.name} needs a value: -P {missing[0]}=...", self._known())
        known[INPUT] = given or ""
        wants_input = any(match[1] == INPUT for match in _PLACE.finditer(self.prompt + self.system))
        prompt = _fill(self.prompt, known)
        if given and not wants_input:
            prompt = f"{prompt.rstrip()}\n{given}"
        return prompt, _fill(self.system, known)

    def _known(self) -> str:
        return f"its values: {', '.join(self.names)}" if self.names else "it has none"


def find_template(folder: Path, name: str) -> PromptTemplate:
    """The template called `name`. Raises NotFound with the names there are, UsageError for a file that is wrong."""
    for kind in _KINDS:
        path = folder / f"{name}{kind}"
        if Path(name).name == name and path.is_file():
            return _read(path, name)
    names = sorted({path.stem for path in folder.glob("*") if path.suffix in _KINDS}) if folder.is_dir() else []
    known = f"there are: {', '.join(names)}" if names else f"write one: {folder / (Path(name).name + '.txt')}"
    raise NotFound(f"no prompt template {name!r}", known)


def _read(path: Path, name: str) -> PromptTemplate:
    from llamacli.library.catalog import read_toml

    if path.suffix != ".toml":
        try:
            return PromptTemplate(name, path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the template {path}: {error}") from None
    data = read_toml(path)
    defaults = data.get("defaults", {})
    prompt, system = data.get("prompt", ""), data.get("system", "")
    if (
        not isinstance(prompt, str)
        or not isinstance(system, str)
        or not isinstance(defaults, dict)
        or not prompt + system
    ):
        raise UsageError(f"the template {path} is wrong", 'prompt = "..." is expected, perhaps system and [defaults]')
    return PromptTemplate(name, prompt, system, {key: str(value) for key, value in defaults.items()})


def _fill(text: str, values: Mapping[str, str]) -> str:
    """Every place replaced at once: what a value says is never a place itself."""
    return _PLACE.sub(lambda match: values[match[1]] if match[1] else match[0][0], text)

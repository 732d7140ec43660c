"""The chat templates of a checkpoint, which live in one of five places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamacli.checkpoint.checkpoint import read_json
from llamacli.checkpoint.source import Source
from llamacli.errors import CorruptFile

FURTHER = "additional_chat_templates"
"""A folder with the templates that are not the default one, a file for each."""
MAX_TEMPLATE_BYTES = 1 << 20
"""The longest real templates have 30 KB."""


@dataclass(frozen=True)
class Templates:
    """The default template and the named ones beside it."""

    default: str | None = None
    named: tuple[tuple[str, str], ...] = ()


def read_templates(source: Source, tokenizer_config: Mapping[str, Any]) -> Templates:
    """chat_template.jinja, else chat_template.json, else tokenizer_config.json: transformers' own order.

    Those of the folder `additional_chat_templates` come on top. Raises CorruptFile for a template that is no text.
    """
    default, named = _listed(source, tokenizer_config)
    further = (name for name in source.within(FURTHER) if name.endswith(".jinja"))
    for file in further:
        named[_key(file.removesuffix(".jinja"))] = _file(source, f"{FURTHER}/{file}")
    return Templates(default, tuple((name, text) for name, text in named.items() if name))


def _listed(source: Source, tokenizer_config: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """The default template, and those that stand beside it in one file."""
    files = source.files()
    if "chat_template.jinja" in files:
        return _file(source, "chat_template.jinja"), _named(tokenizer_config.get("chat_template"))[1]
    if "chat_template.json" in files:
        value = read_json(source, "chat_template.json").get("chat_template")
    else:
        value = tokenizer_config.get("chat_template")
    return _named(value)


def _named(value: Any) -> tuple[str | None, dict[str, str]]:
    """The default template and the others of a `chat_template` entry: a text, or a list of names and texts."""
    if isinstance(value, str):
        return _checked(value), {}
    if isinstance(value, dict):
        value = [{"name": name, "template": template} for name, template in value.items()]
    default: str | None = None
    named: dict[str, str] = {}
    for entry in value if isinstance(value, list) else []:
        name, template = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(template, str):
            raise CorruptFile("tokenizer_config.json: a chat template has no name or no text")
        if name == "default":
            default = _checked(template)
        else:
            named[_key(name)] = _checked(template)
    return default, named


def _key(name: str) -> str:
    """What of a template's name a metadata key can hold; nothing for the default one."""
    return "" if name == "default" else "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def _file(source: Source, name: str) -> str:
    try:
        return _checked(source.read(name).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{source.label}/{name} is not valid UTF-8") from error


def _checked(template: str) -> str:
    if len(template) > MAX_TEMPLATE_BYTES:
        raise CorruptFile(f"the chat template is {len(template):,} characters long, more than any real one")
    return template

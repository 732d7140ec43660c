"""The chat templates of a checkpoint, which live in one of four places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamacli.checkpoint.checkpoint import read_json
from llamacli.checkpoint.source import Source
from llamacli.errors import CorruptFile

MAX_TEMPLATE_BYTES = 1 << 20
"""The longest real templates have 30 KB."""


@dataclass(frozen=True)
class Templates:
    """The default template and the named ones beside it."""

    default: str | None = None
    named: tuple[tuple[str, str], ...] = ()


def read_templates(source: Source, tokenizer_config: Mapping[str, Any]) -> Templates:
    """chat_template.jinja, else chat_template.json, else tokenizer_config.json: transformers' own order.

    Raises CorruptFile for a template that is no text.
    """
    files = source.files()
    if "chat_template.jinja" in files:
        default = _text(source.read("chat_template.jinja"), f"{source.label}/chat_template.jinja")
        return Templates(default, _named(tokenizer_config.get("chat_template"))[1])
    if "chat_template.json" in files:
        value = read_json(source, "chat_template.json").get("chat_template")
    else:
        value = tokenizer_config.get("chat_template")
    default_or_none, named = _named(value)
    return Templates(default_or_none, named)


def _named(value: Any) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The default template and the others of a `chat_template` entry: a text, or a list of names and texts."""
    if isinstance(value, str):
        return _checked(value), ()
    if isinstance(value, dict):
        value = [{"name": name, "template": template} for name, template in value.items()]
    default, named = None, {}
    for entry in value if isinstance(value, list) else []:
        name, template = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(template, str):
            raise CorruptFile("tokenizer_config.json: a chat template has no name or no text")
        if name == "default":
            default = _checked(template)
        elif key := "".join(c if c.isascii() and c.isalnum() else "_" for c in name):
            named[key] = _checked(template)
    return default, tuple(named.items())


def _text(data: bytes, label: str) -> str:
    try:
        return _checked(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{label} is not valid UTF-8") from error


def _checked(template: str) -> str:
    if len(template) > MAX_TEMPLATE_BYTES:
        raise CorruptFile(f"the chat template is {len(template):,} characters long, more than any real one")
    return template

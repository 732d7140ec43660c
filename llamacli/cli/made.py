"""GGUF files that we have made from repositories on the Hub, where the repository's name leads to them."""

from __future__ import annotations

from pathlib import Path

from llamacli.cli.context import Context
from llamacli.errors import NotFound, UsageError
from llamacli.library.catalog import catalog
from llamacli.library.find import expand
from llamacli.library.names import ModelName


def folder_of(context: Context, text: str) -> Path:
    """Where the GGUFs of the repository `text` are or would be; a revision has a folder of its own."""
    name = ModelName.parse(text)
    revision = f"@{name.revision.replace('/', '--')}" if name.revision else ""
    return context.data_dir / "models" / (name.name.replace("/", "--") + revision)


def made_here(context: Context, text: str) -> Path | None:
    """The GGUF that was made for `text`, in the quantization that it names, else the newest; None if there is none."""
    return max(all_made(context, text), key=lambda p: p.stat().st_mtime, default=None)


def all_made(context: Context, text: str) -> list[Path]:
    """All GGUFs that were made for `text`; with a quantization in it the one in that."""
    try:
        name = expand(catalog(context.config_dir), ModelName.parse(text))
    except (NotFound, UsageError):
        return []
    if name.kind != "hub":
        return []
    folder = folder_of(context, str(ModelName("hub", name.name, "", name.revision)))
    ending = f"-{name.selector}.gguf".lower() if name.selector else ".gguf"
    try:
        return sorted(p for p in folder.iterdir() if p.name.lower().endswith(ending) and not p.name.startswith("."))
    except OSError:
        return []

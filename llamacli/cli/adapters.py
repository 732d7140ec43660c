"""LoRA adapters as `quantize` takes them: where they lie, how strongly they count, what they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacli.cli.context import Context, located
from llamacli.errors import LlamacliError, NotFound, UsageError

if TYPE_CHECKING:
    from llamacli.checkpoint.adapter import Adapter
    from llamacli.quantize.model import Model


def open_adapters(here: Context, texts: Sequence[str]) -> list[Adapter]:
    """The adapters of `--lora FOLDER[:scale]`, in order. Raises NotFound, Unsupported, CorruptFile."""
    from llamacli.checkpoint.adapter import read_adapter
    from llamacli.checkpoint.source import Folder
    from llamacli.quantize.model import is_adapter

    adapters = []
    for text in texts:
        folder, scale = _folder_and_scale(here.cwd, text)
        if not is_adapter(folder):
            raise NotFound(f"{folder} holds no LoRA adapter", "an adapter is a folder with adapter_config.json")
        adapters.append(read_adapter(Folder(folder)).scaled(scale))
    return adapters


def _folder_and_scale(cwd: Path, text: str) -> tuple[Path, float]:
    """`FOLDER:0.5`; a folder whose name ends so is meant as it is."""
    whole = located(cwd, text)
    folder, colon, number = text.rpartition(":")
    if whole.exists() or not colon:
        return whole, 1.0
    try:
        return located(cwd, folder), float(number)
    except ValueError:
        return whole, 1.0  # a Windows drive, or a folder that is not there


def adapter_model(here: Context, folder: Path, base: str) -> Model:
    """An adapter's folder as a model for `quantize`; `base` is what the user gave with --base."""
    from llamacli.checkpoint.source import Folder
    from llamacli.quantize.model import model_of_adapter

    return model_of_adapter(Folder(folder), _base_config(here, folder, base))


def _base_config(here: Context, folder: Path, base: str) -> Mapping[str, Any]:
    """config.json of the model that the adapter was trained on: its rows may stand in another order in GGUF."""
    from llamacli.checkpoint.checkpoint import read_json
    from llamacli.checkpoint.source import Folder

    named = base or str(read_json(Folder(folder), "adapter_config.json").get("base_model_name_or_path") or "")
    for path in (located(here.cwd, named), folder / named) if named else ():
        if (path / "config.json").is_file():
            config: Mapping[str, Any] = read_json(Folder(path), "config.json")
            return config
    source = _on_the_hub(here, named) if named else None
    if source is None:
        raise UsageError(
            f"{folder} is a LoRA adapter of {named or 'an unnamed base'}, whose config.json is not here",
            "name the base: llamacli quantize ADAPTER --base FOLDER; or merge: llamacli quantize BASE --lora ADAPTER",
        )
    found: Mapping[str, Any] = read_json(source, "config.json")
    return found


def _on_the_hub(here: Context, name: str) -> Any:
    """The base among what is on the Hub, or None where it cannot be had."""
    from llamacli.cli.remote import checkpoint_source

    try:
        return checkpoint_source(here, name)
    except LlamacliError:  # no network, no such repository: the message that follows says what helps
        return None

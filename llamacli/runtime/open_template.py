"""From a loaded model to its chat template: the one that the user chose, or the model's own."""

from __future__ import annotations

from pathlib import Path

from llamacli.errors import UsageError
from llamacli.runtime.builtin_templates import BUILTIN, own_template
from llamacli.runtime.llama import LlamaEngine
from llamacli.runtime.template import ChatTemplate


def template_for(engine: LlamaEngine, choice: str = "") -> ChatTemplate | None:
    """The template for `engine`'s model; `choice` is a file, one of BUILTIN, or a name of one that the model brings.

    None if nothing was chosen and the model brings none: a base model. Raises UsageError for an unknown choice.
    """
    source = _chosen(engine, choice) if choice else own_template(engine.metadata)
    if not source:
        return None
    return ChatTemplate(source, specials=engine.vocab.special_names(), controls=engine.control_names)


def _chosen(engine: LlamaEngine, choice: str) -> str:
    if source := own_template(engine.metadata, choice) or BUILTIN.get(choice, ""):
        return source
    try:
        return Path(choice).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--chat-template {choice}: neither a readable file nor a known name ({type(error).__name__})",
            f"known names: {', '.join(BUILTIN)}",
        ) from None

"""How a sentence-transformers model makes one vector of many: its modules.json names a folder that says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacli.checkpoint.checkpoint import read_json
from llamacli.checkpoint.source import Source
from llamacli.errors import Unsupported

_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_pooling(source: Source) -> str | None:
    """`mean`, `cls` or `lasttoken`; None for a model that is no sentence embedder. Raises Unsupported for other ways."""
    if "modules.json" not in source.files():
        return None
    modules = read_json(source, "modules.json", kind=list)
    for module in modules:
        if isinstance(module, Mapping) and str(module.get("type", "")).endswith("Pooling"):
            return _mode(read_json(source, f"{module.get('path', '')}/config.json"), source.label)
    return None


def _mode(settings: Mapping[str, Any], label: str) -> str:
    mode = next((name for flag, name in _FLAGS.items() if settings.get(flag)), settings.get("pooling_mode"))
    if mode not in _FLAGS.values():
        raise Unsupported(
            f"{label} pools its tokens in a way that the engine does not have", "mean, cls and lasttoken work"
        )
    return str(mode)

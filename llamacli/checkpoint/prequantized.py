"""Checkpoints whose weights are already quantized: what can be read as plain rows, and a clear word for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacli.errors import Unsupported


def refuse_unreadable(config: Mapping[str, Any], label: str) -> None:
    """Raises Unsupported, by the method's name, for weights that are no plain numbers."""
    settings = config.get("quantization_config")
    if not isinstance(settings, Mapping) or not settings:
        return
    method = str(settings.get("quant_method") or ("bitsandbytes" if settings.get("load_in_4bit") else "unknown"))
    raise Unsupported(
        f"{label} is already quantized ({method})", "its weights are no plain numbers; use the original checkpoint"
    )

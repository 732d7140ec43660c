"""Where things live that are not worth asking the user about: compiled kernels, what was tried once on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The user's cache folder of this program, as the environment and the system say; it need not exist."""
    if home := os.environ.get("LLAMACLI_HOME"):
        return Path(home) / "cache"
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "llamacli"
    if os.name == "nt" and (base := os.environ.get("LOCALAPPDATA")):
        return Path(base) / "llamacli"
    return Path.home() / ".cache" / "llamacli"

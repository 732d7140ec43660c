"""Where things live that are not worth asking the user about: compiled kernels, what was tried once on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """The user's cache folder of this program, as the environment and the system say; it need not exist."""
    if home := os.environ.get("LLAMACLI_HOME"):
        return Path(home) / "cache"
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "llamacli"
    if sys.platform == "win32" and (base := os.environ.get("LOCALAPPDATA")):
        return Path(base) / "llamacli"
    return home_folder() / ".cache" / "llamacli"


def home_folder() -> Path:
    """The user's home; where the system knows of none (a container, run as a number without a name) the folder at hand."""
    try:
        return Path.home()
    except RuntimeError:
        return Path.cwd()

"""What a command needs from the world, as one argument: streams, environment, folders, clock."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from llamacli.cli.console import Console, nowhere
from llamacli.user_cache import home_folder


def located(cwd: Path, text: str | Path) -> Path:
    """The path that a user means by `text`; where `~` has no meaning it is a name like any other."""
    path = Path(text)
    try:
        return cwd / path.expanduser()
    except RuntimeError:  # another user's home, and there is no such user
        return cwd / path


@dataclass(frozen=True)
class Context:
    """The environment of one run of the program; tests build their own."""

    console: Console
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    home: Path = field(default_factory=home_folder)
    cwd: Path = field(default_factory=Path.cwd)
    now: Callable[[], float] = time.time
    stdin: TextIO = field(default_factory=lambda: sys.stdin if sys.stdin is not None else nowhere("r"))

    @property
    def offline(self) -> bool:
        """Whether the network is forbidden (--offline, HF_HUB_OFFLINE)."""
        return self.console.offline

    @property
    def config_dir(self) -> Path:
        """Where the user's settings and own models.toml live."""
        if own := self.env.get("LLAMACLI_HOME"):
            return Path(own)
        return _folder(self.env, self.home, "XDG_CONFIG_HOME", ".config", "APPDATA")

    @property
    def data_dir(self) -> Path:
        """Where saved conversations live."""
        if own := self.env.get("LLAMACLI_HOME"):
            return Path(own) / "data"
        return _folder(self.env, self.home, "XDG_DATA_HOME", ".local/share", "LOCALAPPDATA")

    @property
    def cache_dir(self) -> Path:
        """Where things live that can be made again: prompt states, the header index."""
        if own := self.env.get("LLAMACLI_HOME"):
            return Path(own) / "cache"
        return _folder(self.env, self.home, "XDG_CACHE_HOME", ".cache", "LOCALAPPDATA")


def _folder(env: Mapping[str, str], home: Path, xdg: str, default: str, windows: str) -> Path:
    if base := env.get(xdg):
        return Path(base) / "llamacli"
    if os.name == "nt" and (base := env.get(windows)):
        return Path(base) / "llamacli"
    return home / default / "llamacli"

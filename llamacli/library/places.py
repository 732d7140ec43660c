"""Where models live on this computer and where the Hub is, read from the environment that the caller passes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llamacli.errors import UsageError

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Places:
    """The environment of the library: variables, folders, and whether the network is forbidden."""

    env: Mapping[str, str]
    home: Path
    config_dir: Path
    cache_dir: Path
    offline: bool = False

    @property
    def hub_home(self) -> Path:
        """HF_HOME, by the rules of huggingface_hub."""
        if own := self.env.get("HF_HOME"):
            return self._expanded(own)
        if base := self.env.get("XDG_CACHE_HOME"):
            return self._expanded(base) / "huggingface"
        return self.home / ".cache" / "huggingface"

    @property
    def hub_cache(self) -> Path:
        """The Hub cache that transformers, hf and llama.cpp share with us."""
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            if own := self.env.get(name):
                return self._expanded(own)
        return self.hub_home / "hub"

    @property
    def endpoint(self) -> str:
        """The Hub's address without a final slash. Raises UsageError if the variable holds no http(s) address."""
        for name in ("HF_ENDPOINT", "MODEL_ENDPOINT"):
            if own := self.env.get(name, "").strip().rstrip("/"):
                parts = urlsplit(own)
                if "@" in parts.netloc:  # not shown: a password may stand there
                    raise UsageError(
                        f"{name} holds a user name or a password", "leave them out; HF_TOKEN is what the Hub asks for"
                    )
                if parts.scheme not in ("http", "https") or not parts.hostname:
                    raise UsageError(
                        f"{name} is not an address: {_without_secrets(own)!r}", f"for example {name}={HUB}"
                    )
                return own
        return HUB

    def token(self) -> str:
        """The user's token, or an empty string. Nobody but `http.Client` needs it."""
        if self.env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0").lower() in ("1", "true", "yes", "on"):
            return ""
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            if own := self.env.get(name, "").strip():
                return own
        path = self._expanded(self.env["HF_TOKEN_PATH"]) if "HF_TOKEN_PATH" in self.env else self.hub_home / "token"
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _expanded(self, text: str) -> Path:
        """`~` is the home of this run, `$NAME` a variable of this run."""
        for name in sorted(self.env, key=len, reverse=True):
            text = text.replace(f"${{{name}}}", self.env[name]).replace(f"${name}", self.env[name])
        if text == "~" or text.startswith(("~/", "~" + os.sep)):
            return self.home / text[2:]
        return Path(text)


def _without_secrets(address: str) -> str:
    """What may be shown of an address: a name and a password may stand before an @, a token behind a question mark."""
    return address.rpartition("@")[2].partition("?")[0]

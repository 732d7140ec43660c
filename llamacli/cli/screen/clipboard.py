"""Copying text: through the system's own tool, else through the terminal."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import TextIO

from llamacli.errors import UsageError

_LONGEST_OSC52 = 74_000
"""Bytes that terminals are known to take; more is cut or ignored."""


def copy(text: str, env: Mapping[str, str], terminal: TextIO | None) -> str:
    """Put `text` on the clipboard and say which way it went. `terminal` is asked (OSC 52) where no tool is found.

    Raises UsageError if there is no way.
    """
    for tool in _tools(env):
        if shutil.which(tool[0]) and _through(tool, text):
            return tool[0]
    data = base64.b64encode(text.encode("utf-8", "replace")).decode()
    if terminal is None or len(data) > _LONGEST_OSC52:
        raise UsageError("there is no clipboard here", "install wl-copy or xclip, or use /save FILE")
    terminal.write(f"\x1b]52;c;{data}\x07")
    terminal.flush()
    return "through the terminal"


def _tools(env: Mapping[str, str]) -> list[list[str]]:
    if sys.platform == "darwin":
        return [["pbcopy"]]
    if sys.platform == "win32":
        return [["clip"]]
    tools = []
    if env.get("WAYLAND_DISPLAY"):
        tools.append(["wl-copy"])
    if env.get("DISPLAY"):
        tools += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    return tools


def _through(tool: list[str], text: str) -> bool:
    encoding = "utf-16" if tool[0] == "clip" else "utf-8"
    try:
        done = subprocess.run(
            tool,
            input=text.encode(encoding, "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0

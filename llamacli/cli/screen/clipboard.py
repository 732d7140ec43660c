"""The clipboard, through the system's own tools; text can also be copied through the terminal."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
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


def pasted(env: Mapping[str, str]) -> str | bytes:
    """What is on the clipboard: text, or the bytes of a PNG where the tools can hand over pictures.

    Raises UsageError if there is no clipboard or nothing of use on it.
    """
    tools = [tool for tool in _sources(env) if shutil.which(tool.text[0])]
    for tool in tools:
        if tool.kinds and _PNG in _output(tool.kinds).decode("utf-8", "replace").split():
            return _output(tool.picture)
        text = _output(tool.text).decode("utf-8-sig", "replace").replace("\r\n", "\n")
        if text.strip():
            return text
    if tools:
        raise UsageError("there is neither text nor a PNG on the clipboard", "/file PATH and /image PATH take files")
    raise UsageError("there is no clipboard here", "install wl-clipboard or xclip, or paste as the terminal does it")


_PNG = "image/png"


@dataclass(frozen=True)
class _Source:
    """Commands that print the clipboard: as text, what kinds of things are there, as a picture."""

    text: list[str]
    kinds: list[str] = field(default_factory=list)
    picture: list[str] = field(default_factory=list)


def _sources(env: Mapping[str, str]) -> list[_Source]:
    if sys.platform == "darwin":
        return [_Source(["pbpaste"])]
    if sys.platform == "win32":
        utf8 = "[Console]::OutputEncoding = [Text.Encoding]::UTF8; Get-Clipboard -Raw"
        return [_Source(["powershell", "-NoProfile", "-Command", utf8])]
    sources = []
    if env.get("WAYLAND_DISPLAY"):
        paste = ["wl-paste", "--no-newline"]
        sources.append(_Source([*paste, "--type", "text"], ["wl-paste", "--list-types"], [*paste, "--type", _PNG]))
    if env.get("DISPLAY"):
        paste = ["xclip", "-selection", "clipboard", "-out"]
        sources.append(_Source(paste, [*paste, "-target", "TARGETS"], [*paste, "-target", _PNG]))
        sources.append(_Source(["xsel", "--clipboard", "--output"]))
    return sources


def _output(command: list[str]) -> bytes:
    """What a command prints; nothing where it fails."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""

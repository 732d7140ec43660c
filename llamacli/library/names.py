r"""How a model is called, everywhere the same.

    name       = path | store | hub | alias
    path       = a file or folder: "./x.gguf", "../x", "/x", "~/x", "C:\\x", or any name that ends in .gguf and
                 has no ":"
    store      = ("ollama" | "lms") ":" words         a model another tool already has: ollama:llama3.2:3b
    hub        = [prefix] owner "/" repo ["@" revision] [":" selector]
               | [prefix] owner "/" repo ":" selector "@" revision
    prefix     = "hf:" | "hf.co/" | "huggingface.co/" | "https://hf.co/" | "https://huggingface.co/"
    selector   = a quantization (Q4_K_M, UD-Q4_K_XL; case does not matter) or a file of the repository (x.gguf)
    revision   = a branch, tag, commit or refs/pr/N
    alias      = letters, digits, ".", "-", "_"        from `llamacli alias` or models.toml

A page's address (https://huggingface.co/owner/repo/blob/main/x.gguf) is read as owner/repo@main:x.gguf. Case is kept;
only comparing quantizations ignores it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from llamacli.errors import UsageError

Kind = Literal["path", "ollama", "lms", "hub", "alias"]

_HUB_PREFIX = re.compile(r"(?:hf:|(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/)", re.IGNORECASE)
_PAGE = re.compile(r"(?P<repo>[^/]+/[^/]+)/(?:blob|resolve|tree|raw)/(?P<revision>[^/]+)(?:/(?P<file>.+))?")
_PATH = re.compile(r"(?:[/~\\]|\.\.?(?:[/\\]|$)|[A-Za-z]:[/\\])|[^:]*\\|[^:]*\.gguf$", re.IGNORECASE)
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,254}[A-Za-z0-9_-])?")
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_STORES: tuple[Literal["ollama", "lms"], ...] = ("ollama", "lms")


@dataclass(frozen=True)
class ModelName:
    """One name, taken apart. `str()` gives it back in its canonical form, which parses to an equal value."""

    kind: Kind
    name: str
    """The path, the other tool's own name, owner/repo, or the alias."""
    selector: str = ""
    """A quantization or a file within the repository; empty: the best for this machine."""
    revision: str = ""
    """A branch, tag or commit; empty: the repository's main branch."""

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Raises UsageError if `text` is no name at all."""
        if not text.strip() or any(c < " " or c == "\x7f" for c in text):
            raise UsageError(f"not a model name: {text!r}", NAME_HINT)
        for store in _STORES:
            if text.startswith(f"{store}:") and len(text) > len(store) + 1:
                return cls(store, text[len(store) + 1 :])
        if prefix := _HUB_PREFIX.match(text):
            return _hub(text[prefix.end() :], text)
        if _PATH.match(text):
            return cls("path", text)
        if "/" in text:
            return _hub(text, text)
        if _ALIAS.fullmatch(text):
            return cls("alias", text)
        raise UsageError(f"not a model name: {text!r}", NAME_HINT)

    def __str__(self) -> str:
        if self.kind in _STORES:
            return f"{self.kind}:{self.name}"
        if self.kind != "hub":
            return self.name
        text = (
            self.name + (f"@{self.revision}" if self.revision else "") + (f":{self.selector}" if self.selector else "")
        )
        return f"hf:{text}" if _PATH.match(text) else text

    @property
    def wants_file(self) -> bool:
        """Whether the selector names a file rather than a quantization."""
        return self.selector.lower().endswith((".gguf", ".safetensors", ".json"))


NAME_HINT = "a model is a file (./x.gguf), user/repo[:QUANT], ollama:NAME, lms:PUBLISHER/MODEL or an alias"


def _hub(text: str, original: str) -> ModelName:
    """`owner/repo` with its revision and selector in either order."""
    if page := _PAGE.fullmatch(text.split("?")[0]):
        repo, revision, selector = page["repo"], page["revision"], page["file"] or ""
    else:
        head, _, selector = text.partition(":")
        repo, _, revision = head.partition("@")
        if not revision and "@" in selector:
            selector, _, revision = selector.rpartition("@")
        if (text.endswith((":", "@"))) or ("@" in head and not revision):
            raise UsageError(f"not a model name: {original!r}", "something is missing after the last sign")
    owner, slash, name = repo.rstrip("/").partition("/")
    if not (slash and valid_repo_part(owner) and valid_repo_part(name)):
        raise UsageError(f"not a repository: {original!r}", NAME_HINT)
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise UsageError(f"not a revision: {revision!r}", "a branch, a tag, a commit or refs/pr/N")
    if selector and not safe_file(selector):
        raise UsageError(f"not a file or quantization: {selector!r}", NAME_HINT)
    return ModelName("hub", f"{owner}/{name}", selector, revision)


def valid_repo_part(part: str) -> bool:
    """Whether `part` can be an owner or a repository on the Hub: its own rule, no `--` and no `..`."""
    return bool(_PART.fullmatch(part)) and "--" not in part and ".." not in part and not part.endswith(".git")


def safe_file(name: str) -> bool:
    """Whether a repository's file may be written under a folder of ours, on every system.

    Folders are allowed, each part plain: no `..`, no drive, no separator of another system, no control character, no
    trailing dot or blank, no more than 255 bytes, no name that Windows keeps for its devices.
    """
    return bool(name) and all(_plain_part(part) for part in name.split("/"))


_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


def _plain_part(part: str) -> bool:
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return False
    return (
        0 < size <= 255
        and part not in (".", "..")
        and not any(c in '\\:*?"<>|' or c < " " or "\x7f" <= c <= "\x9f" for c in part)
        and part[-1] not in ". "
        and not _DEVICES.fullmatch(part)
    )

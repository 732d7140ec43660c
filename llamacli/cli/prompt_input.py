"""What `run` is asked: words of the command line, then files, then standard input, always in this order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from llamacli.cli.context import Context
from llamacli.cli.models import default_model, model_path
from llamacli.cli.plain_text import decoded, is_binary
from llamacli.cli.screen.attach import block, blocks_of
from llamacli.cli.streams import is_terminal
from llamacli.errors import ContextOverflow, LlamacliError, UsageError
from llamacli.library.names import ModelName

LARGEST_INPUT = 64 << 20
"""Bytes of standard input; more text than any context holds, and little enough to read at once."""

STDIN = "-"


@dataclass(frozen=True)
class Request:
    """A model's name (None: the default model) and the words for it."""

    model: str | None
    words: tuple[str, ...]


def request(context: Context, words: Sequence[str], named: str | None, literal: int) -> Request:
    """Is the first word a model? It is if it leads to one here, or can be nothing else.

    `named` is the model given by an option: then all words are the prompt. `literal` words at the end stood after `--`
    and are always the prompt.
    """
    words = tuple(words)
    if named or not words or len(words) <= literal:
        return Request(named, words)
    first, rest = words[0], words[1:]
    if first == STDIN:
        return Request(None, words)
    kind = _kind(first)
    if kind is None:
        return Request(None, words)
    try:
        model_path(context, first)
    except LlamacliError:
        # A short name that leads nowhere is more likely a prompt, if there is a model to give it to.
        if kind == "alias" and default_model(context):
            return Request(None, words)
        if kind != "hub":  # what is on the Hub can be fetched, after asking, when it is loaded
            raise
    return Request(first, rest)


def _kind(word: str) -> str | None:
    """What kind of model name this is; None for what must be a prompt."""
    if len(word) > 4096 or any(c in word for c in "\n\t"):
        return None
    try:
        name = ModelName.parse(word)
    except UsageError:
        return None
    spaced = " " in word and not word.lower().endswith(".gguf")
    return None if spaced and name.kind != "path" else name.kind


def prompt_text(context: Context, words: Sequence[str], files: Sequence[str], *, exact: bool) -> str | None:
    """The whole prompt, or None if there was nothing to make one of. `exact` (--raw) keeps the input as it is.

    Raises UsageError for input that is no text, NotFound for a missing file, ContextOverflow for far too much.
    """
    stdin = context.stdin
    asked = STDIN in words
    text = " ".join(word for word in words if word != STDIN)
    parts = [text] if any(word != STDIN for word in words) else []
    for pattern in files:
        parts += [block(name, content) for name, content in blocks_of(context.cwd, pattern)]
    if asked or not is_terminal(stdin):
        piped = _read(stdin)
        piped = piped.removesuffix("\n") if exact else piped.strip("\n")
        if piped or not parts:
            parts.append(piped)
    return ("" if exact and len(parts) == 1 else "\n").join(parts) if parts else None


def _read(stdin: TextIO) -> str:
    """Standard input as text. What is no UTF-8 is refused, not mangled."""
    raw = getattr(stdin, "buffer", None)
    if raw is None:
        return stdin.read()
    try:
        data: bytes = raw.read(LARGEST_INPUT + 1)
    except (OSError, ValueError):
        return ""
    if is_binary(data[: 1 << 20]):
        raise UsageError(f"standard input is not text: it has a NUL byte at offset {data.index(0)}")
    if len(data) > LARGEST_INPUT:
        raise ContextOverflow(
            f"standard input is larger than {LARGEST_INPUT >> 20} MiB; no context holds that", "pipe in a part of it"
        )
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}",
            "convert it first, for example: iconv -f latin1 -t utf-8",
        ) from None

"""Conversations whose state is kept: resumed at once, and answered as if they had never been left."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.context import Context

LONG = "I have a dog and a cat and a big red ball. " * 60


def talk(make: Callable[..., Context], *lines: str, flags: tuple[str, ...]) -> tuple[list[str], Context]:
    here = replace(make(), stdin=io.StringIO("".join(line + "\n" for line in lines)))
    assert invoke_app(["chat", *flags, "--temp", "0", "-t", "1", "-n", "12", "-c", "2048"], here) == 0
    out = here.console.out
    assert isinstance(out, io.StringIO)
    return out.getvalue().splitlines(), here


def test_a_resumed_conversation_says_what_it_would_have_said(
    converted: Callable[..., Path], context: Callable[..., Context]
) -> None:
    model = str(converted("tinystories-chat-2m", "Q8_0"))
    whole, _ = talk(context, LONG, "And then?", flags=(model, "--no-save"))
    first, here = talk(context, LONG, flags=(model,))
    kept = list((here.cache_dir / "prompts").rglob("chat-*.kv"))
    assert len(kept) == 1
    second, _ = talk(context, "And then?", flags=("-C",))
    assert [*first, *second] == whole


def test_what_must_not_be_saved_leaves_nothing(converted: Callable[..., Path], context: Callable[..., Context]) -> None:
    model = str(converted("tinystories-chat-2m", "Q8_0"))
    for flags in ((model, "--no-save"), (model, "--cache", "off")):
        _, here = talk(context, LONG, flags=flags)
        assert not list(here.cache_dir.rglob("*.kv"))


def test_the_cache_lists_conversations_and_clears_them(
    converted: Callable[..., Path], context: Callable[..., Context]
) -> None:
    talk(context, LONG, flags=(str(converted("tinystories-chat-2m", "Q8_0")),))
    here = context()
    assert invoke_app(["cache", "ls", "--json"], here) == 0
    out = here.console.out
    assert isinstance(out, io.StringIO)
    assert [entry["name"] for entry in json.loads(out.getvalue())] == ["chat"]
    assert invoke_app(["cache", "clear", "chat"], context()) == 0
    assert not list(here.cache_dir.rglob("*.kv"))
    assert invoke_app(["cache", "clear", "chat"], context()) == 3

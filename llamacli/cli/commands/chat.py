"""`llamacli chat`: a conversation on this terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context, located
from llamacli.cli.engine_options import add_engine_options, engine_settings, sampling
from llamacli.cli.options import ModelArg
from llamacli.cli.prompt_cache import add_cache_option, use_prompt_cache
from llamacli.cli.streams import is_terminal
from llamacli.errors import NotFound, UsageError

if TYPE_CHECKING:
    from llamacli.cli.screen.model import ChatModel
    from llamacli.cli.screen.reader import Reader
    from llamacli.cli.screen.talk import Talk
    from llamacli.library.chats import Chats, Journal

EXTRA_OPTIONS = (add_engine_options, add_cache_option)

_SHOWN_OF_QUESTION, _SHOWN_OF_ANSWER = 12, 40
"""Lines that remind of a resumed conversation."""


def chat_command(
    context: typer.Context,
    model: ModelArg = None,
    named: str = typer.Option(
        "", "-m", "--model", "-hf", metavar="MODEL", help="The same as MODEL.", autocompletion=complete_model
    ),
    continued: bool = typer.Option(False, "-C", "--continue", help="Go on with the last conversation."),
    resume: str = typer.Option("", "--resume", metavar="ID|TITLE", help="Go on with another one."),
    new: str = typer.Option("", "--new", metavar="TITLE", help="Begin a conversation with a title."),
    system: str = typer.Option("", "-sys", "--system", metavar="TEXT", help="The system prompt."),
    system_file: Path | None = typer.Option(None, "-sysf", "--system-file", metavar="FILE", help="It from a file."),
    files: list[str] = typer.Option([], "-f", "--file", metavar="FILE", help="Goes with the first message."),
    images: list[str] = typer.Option(
        [], "--image", metavar="FILE", help="A picture for the first message (repeatable)."
    ),
    projector: str = typer.Option("", "--mmproj", metavar="FILE", help="The projector, if it is not beside the model."),
    template: str = typer.Option("", "--chat-template", metavar="FILE|NAME", help="Instead of the model's own."),
    think: str = typer.Option("", "--think", metavar="on|off|auto|N", help="Whether the model thinks first."),
    overflow: str = typer.Option("", "--overflow", metavar="stop|drop|compact", help="What a full context does."),
    no_save: bool = typer.Option(False, "--no-save", help="Keep nothing of this conversation."),
    plain: bool = typer.Option(False, "--plain", help="Line by line, without colour; for screen readers."),
) -> None:
    """Talk to a model. Conversations are saved on this computer.

    \b
    llamacli chat ./model.gguf                   begin a conversation
    llamacli chat -C                             go on where you left off
    printf 'Hello\\n' | llamacli chat MODEL      one answer per line
    """
    from llamacli.cli.images import Gallery
    from llamacli.cli.loading import load_model
    from llamacli.cli.screen.look import look_of
    from llamacli.cli.screen.model import ChatModel, thinking_of
    from llamacli.cli.screen.talk import Talk
    from llamacli.cli.screen.type_ahead import unseen_typing
    from llamacli.library.chats import Chats

    here: Context = context.obj
    overflow = _overflow(here, overflow)
    chats = Chats(here.data_dir / "chats")
    journal = _saved(chats, continued, resume)
    settings, thinking = engine_settings(context, here.env), thinking_of(think)

    def open_model(name: str | None, projector: str = "") -> ChatModel:
        engine = load_model(here, name, settings)
        chosen = ChatModel(engine, Gallery(here, engine, projector), template=template, thinking=thinking)
        use_prompt_cache(context, chosen.engine, chat=journal.chat.id if journal else "")
        chosen.defaults = sampling(context, chosen.defaults)
        return chosen

    look = look_of(here.console, plain=plain)
    person = is_terminal(here.stdin)
    editable = person and look.redraw
    with unseen_typing(here.stdin) if editable else contextlib.nullcontext():
        with _gone(journal if not (model or named) else None):
            loaded = open_model(model or named or (journal.chat.model if journal else None), projector)
        talk = Talk(
            context=here,
            look=look,
            chats=chats,
            journal=journal or chats.new(loaded.name, here.now(), title=new, save=not no_save),
            model=loaded,
            open_model=open_model,
            sampling=loaded.defaults,
            overflow=overflow,
            person=person,
        )
        try:
            _prepare(talk, no_save, _system_text(here, system, system_file), files, images)
            talk.loop(_reader(talk, editable, keep_history=not no_save))
        finally:
            _remember(talk)
            talk.model.close()


@contextlib.contextmanager
def _gone(journal: Journal | None) -> Iterator[None]:
    """Say how a conversation goes on whose model is not here any more."""
    try:
        yield
    except NotFound as error:
        if journal is None:
            raise
        other = f"go on with another model: llamacli chat --resume {journal.chat.id} -m MODEL"
        raise NotFound(error.message, other) from error


def _overflow(here: Context, flag: str) -> str:
    """The flag, else what is configured. Raises UsageError."""
    from llamacli.cli.configuration import CHAT_OVERFLOW, configured
    from llamacli.cli.screen.room import OVERFLOWS

    chosen = flag or str(setting.value if (setting := configured(here).get(CHAT_OVERFLOW)) else "stop")
    if chosen not in OVERFLOWS:
        raise UsageError(f"--overflow {chosen}: {', '.join(OVERFLOWS)}")
    return chosen


def _remember(talk: Talk) -> None:
    """Keep what the engine has read of a saved conversation, so that -C goes on at once."""
    engine = talk.model.engine
    if engine.prefixes is not None and talk.journal.path is not None:
        engine.prefixes.chat = talk.chat.id
        engine.keep_chat()


def _saved(chats: Chats, continued: bool, resume: str) -> Journal | None:
    """The conversation to go on with, or None to begin one. Raises NotFound."""
    if resume:
        return chats.find(resume)
    return chats.last() if continued else None


def _system_text(here: Context, text: str, file: Path | None) -> str:
    from llamacli.cli.screen.attach import text_of

    return text_of(located(here.cwd, file)).strip() if file else text


def _prepare(talk: Talk, no_save: bool, system: str, files: list[str], images: list[str]) -> None:
    """Everything before the first message."""
    from llamacli.cli.screen.attach import block, blocks_of
    from llamacli.runtime.defaults import described

    if no_save:
        talk.journal.path = None
    if system and system != talk.chat.system:
        talk.set_system(system)
    if talk.person and not talk.console.quiet:
        talk.say(talk.headline())
        talk.say('Type a message. """ for many lines, /help, Ctrl-D to leave.', dim=True)
    if talk.console.verbose:
        talk.say(f"sampling: {described(talk.sampling)}", dim=True)
    if talk.model.base:
        talk.console.warn("this model brings no chat template: it writes a dialogue on instead of answering")
    if talk.chat.damaged:
        talk.console.warn(f"{talk.chat.damaged} damaged lines of the saved conversation are left out")
    if talk.path and talk.person:
        _show_last(talk)
    if any(node.pictures for node in talk.path):
        talk.seen()  # what is gone is told now
    for pattern in files:
        for name, text in blocks_of(talk.context.cwd, pattern):
            talk.attach(name, block(name, text))
    for name in images:
        talk.attach_picture(name)


def _show_last(talk: Talk) -> None:
    """Where a resumed conversation stood: the last question and the end of its answer, laid out as it was."""
    from llamacli.cli.screen.markdown import Markdown
    from llamacli.cli.screen.sanitize import sanitize

    path = talk.path
    for node in path[-2:] if path[-1].role == "assistant" else path[-1:]:
        text = sanitize(node.text)
        if node.role == "assistant" and talk.look.styled:
            layout = Markdown(talk.look.width)
            lines = (layout.feed(text) + layout.flush()).split("\n")
            talk.write("\n".join(lines[-_SHOWN_OF_ANSWER:]).rstrip("\n") + "\n")
            continue
        lines = talk.fitted(text).splitlines()
        lines = [f"[picture {picture.name}]" for picture in node.pictures] + lines
        mark = talk.look.pick("› ", "> ") if node.role == "user" else ""
        shown = lines[:_SHOWN_OF_QUESTION] if node.role == "user" else lines[-_SHOWN_OF_ANSWER:]
        talk.say(mark + "\n".join(shown), dim=True)
    if path[-1].role == "user":
        talk.say("(no answer was saved: /regen asks again, /undo takes it back)", dim=True)


def _reader(talk: Talk, editable: bool, *, keep_history: bool) -> Reader:
    """An editable prompt where the terminal can do it, else line by line."""
    from llamacli.cli.screen.reader import LineReader

    here = talk.context
    if not editable:
        return LineReader(here.stdin, here.console.err, talk.look.pick("› ", "> ") if talk.person else "")
    from llamacli.cli.screen.prompt import PromptReader
    from llamacli.cli.screen.slash.table import complete

    history = here.data_dir / "chat_history" if keep_history else None
    return PromptReader(here, talk.look, lambda before: complete(talk, before), history)

"""`llamacli sessions`: the saved conversations, and how to be rid of one."""

from __future__ import annotations

from pathlib import Path

import typer

from llamacli.cli.context import Context
from llamacli.cli.prompt_cache import cache_root
from llamacli.errors import CannotWrite, UsageError
from llamacli.library.chats import Chat, Chats

ACTIONS = ("ls", "show", "rm")


def sessions_command(
    context: typer.Context,
    action: str = typer.Argument("ls", metavar="ls|show|rm", help="List them, print one, or remove some."),
    wanted: list[str] = typer.Argument(None, metavar="[ID|TITLE]...", help="Which, as --resume takes them."),
    yes: bool = typer.Option(False, "-y", "--yes", help="Remove without asking."),
) -> None:
    """The conversations saved on this computer, the one used last first.

    \b
    llamacli sessions                        what is saved
    llamacli sessions show 3f2a91c0          print one; --json with all that is known
    llamacli sessions rm "tax letter"        remove one for good
    """
    here: Context = context.obj
    chats = Chats(here.data_dir / "chats")
    if action not in ACTIONS:
        raise UsageError(f"sessions {action}: {', '.join(ACTIONS)}")
    if action == "ls":
        if wanted:
            raise UsageError("sessions ls takes no names", f"llamacli sessions show {wanted[0]}")
        _list(here, list(chats.all()))
        return
    if not wanted:
        raise UsageError(f"sessions {action}: which?", "llamacli sessions lists them")
    found = [chats.find(name).chat for name in wanted]
    if action == "show":
        for chat in found:
            _show(here, chat)
    else:
        _remove(here, chats, found, yes)


def _list(here: Context, found: list[Chat]) -> None:
    rows = [(chat.id, chat.day, len(chat.path()), Path(chat.model).stem, chat.label()) for chat in found]
    data = [
        {"id": chat.id, "created": chat.created, "messages": len(chat.path()), "model": chat.model,
         "title": chat.title, "label": chat.label()}
        for chat in found
    ]  # fmt: skip
    here.console.table(("ID", "BEGUN", "MESSAGES", "MODEL", "TITLE"), rows, data)
    here.console.status("go on with one: llamacli chat --resume ID" if found else "no conversation is saved yet")


def _show(here: Context, chat: Chat) -> None:
    from llamacli.cli.transcript import as_markdown, as_object

    here.console.result(as_markdown(chat).rstrip("\n"), as_object(chat))


def _remove(here: Context, chats: Chats, found: list[Chat], yes: bool) -> None:
    from llamacli.runtime.prefix_files import forget_chat

    console = here.console
    for chat in found:
        console.status(f"{chat.id}  {chat.day}  {len(chat.nodes)} messages  {chat.label()}")
    if not yes:
        if console.no_input or not console.err_is_terminal:
            raise UsageError("removing needs a yes, and nobody can be asked here", "add -y")
        typer.confirm(f"remove {len(found)} for good?", abort=True, err=True)
    for chat in found:
        try:
            chats.remove(chat)
        except OSError as error:
            raise CannotWrite(f"cannot remove {chat.id}: {error.strerror}") from error
        forget_chat(cache_root(here), chat.id)

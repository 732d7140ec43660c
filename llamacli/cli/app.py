"""The program: every command by name, the global flags, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from llamacli import __version__
from llamacli.cli.console import standard_console
from llamacli.cli.context import Context
from llamacli.cli.options import add_global_options
from llamacli.cli.streams import reader_is_gone
from llamacli.errors import CannotWrite, LlamacliError, UsageError

COMMANDS: tuple[tuple[str, str], ...] = (
    ("download", "Fetch a model from the Hub, whole and verified."),
    ("quantize", "Turn a checkpoint into one GGUF file."),
    ("chat", "Talk to a model."),
    ("run", "One prompt, one answer; for shells and pipes."),
    ("map", "One prompt for every row of a file or a pipe."),
    ("embed", "Vectors of texts, from an embedding model."),
    ("tokens", "How many tokens a text has, and which."),
    ("sessions", "The conversations that chat has saved."),
    ("bench", "Measure speed as llama-bench does, and more."),
    ("list", "The models on this computer."),
    ("show", "What a model file contains."),
    ("rm", "Remove a model."),
    ("alias", "Short names of your own for models."),
    ("default", "The model that commands use when none is named."),
    ("config", "Settings that need no flag, and where each value comes from."),
    ("cache", "The prompts that are remembered on disk."),
    ("prune", "Remove what unfinished downloads have left."),
    ("df", "What models take on this disk, and what is here twice."),
    ("dedupe", "Let equal model files share one copy."),
    ("verify", "Is a model file whole and safe?"),
    ("merge", "Join a split GGUF into one file."),
    ("evaluate", "How good a model is, and how far from its source."),
    ("imatrix", "Which weights matter: an importance matrix from a text."),
    ("fit", "Does a model fit this machine, and with how long a context?"),
    ("completion", "Complete commands and names of models in your shell."),
    ("doctor", "What this machine has and what the engine was built for."),
    ("help", "Exit codes, environment and other topics."),
)
"""One line per command; `llamacli.cli.commands.<name>` holds its function `<name>_command`."""

ALIASES = {"pull": "download", "ls": "list", "create": "quantize", "remove": "rm"}
"""Names that hands trained on other tools will type."""


class Commands(TyperGroup):
    """The commands, each imported only when it is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of a user's first day."""
        return [name for name, _ in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command called `cmd_name`, or None."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in dict(COMMANDS):
            return None
        module = importlib.import_module(f"llamacli.cli.commands.{name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        settings = getattr(module, "CONTEXT_SETTINGS", {})
        single.command(
            name, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, **settings}
        )(getattr(module, f"{name}_command"))
        command = typer.main.get_command(single)
        for add_options in (*getattr(module, "EXTRA_OPTIONS", ()), add_global_options):
            add_options(command)
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a reader that went away ends it quietly (Click would make it exit code 1)."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if reader_is_gone(error):
                raise typer.Exit(141) from None
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names; near misses are suggested."""
        if args and not args[0].startswith("-") and args[0] not in (*dict(COMMANDS), *ALIASES):
            near = difflib.get_close_matches(args[0], (*dict(COMMANDS), *ALIASES), n=2, cutoff=0.6)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise UsageError(f"there is no command {args[0]!r}", f"{meant}all: llamacli --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The table above; nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS))


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"llamacli {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Run language models on this computer. Nothing leaves it except downloads you ask for.

    \b
    llamacli quantize ./my-finetune -q Q4_K_M        a checkpoint becomes one GGUF file
    llamacli chat ./my-finetune-Q4_K_M.gguf          talk to it
    git diff | llamacli run -m MODEL "explain"       use it in a pipe
    """
    if context.invoked_subcommand is None:
        from llamacli.cli.commands.welcome import welcome

        welcome(context.obj, context.get_help())


def invoke(arguments: Sequence[str], context: Context) -> int:
    """Run one command line in `context` and return its exit code. Never raises, never prints a traceback."""
    console = context.console
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments), prog_name="llamacli", standalone_mode=False, obj=context)
        console.out.flush()
        return code if isinstance(code, int) else 0
    except LlamacliError as error:
        console.error(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        return 141 if reader_is_gone(error) else _unexpected(error, context)


def _unexpected(error: Exception, context: Context) -> int:
    """Usage errors come from Typer with their own words; anything else is a bug of ours, told in one line."""
    console = context.console
    if hasattr(error, "format_message"):
        usage = getattr(error, "ctx", None)
        hint = f"see: {usage.command_path} --help" if usage is not None else ""
        console.error(LlamacliError(error.format_message(), hint))
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, MemoryError):
        console.error(LlamacliError("out of memory"))
        return 6
    if isinstance(error, OSError) and error.errno in _FULL:
        console.error(_full(error))
        return CannotWrite.exit_code
    if console.verbose >= 2:
        console.err.write("".join(traceback.format_exception(error)))
    where = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
    place = f" ({os.path.basename(where.filename)}:{where.lineno})" if where else ""  # noqa: PTH119
    console.error(
        LlamacliError(
            f"internal error: {type(error).__name__}: {error}{place}",
            "this is a bug in llamacli; the same command with -vv shows where",
        )
    )
    return 10


_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def _full(error: OSError) -> CannotWrite:
    """A disk that takes no more, in one line; without a name it is where standard output leads."""
    return CannotWrite(f"cannot write {error.filename or 'standard output'}: {(error.strerror or '').lower()}")


def main() -> None:
    """The program's entry: real streams, signals, exit code."""

    def terminated(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(129 if signum == getattr(signal, "SIGHUP", None) else 143)

    signal.signal(signal.SIGTERM, terminated)
    if sys.platform == "win32":  # Ctrl-Break, and a console window that is closed
        signal.signal(signal.SIGBREAK, terminated)
    elif signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a terminal that is closed; nohup ignores it
        signal.signal(signal.SIGHUP, terminated)
    if "_LLAMACLI_COMPLETE" in os.environ:  # a shell asks; see commands/completion.py
        from typer._completion_classes import completion_init

        completion_init()
    context = Context(console=standard_console())
    if sys.stdout is None:
        context.console.error(CannotWrite("standard output is closed", "send it somewhere: > FILE"))
        sys.exit(CannotWrite.exit_code)
    code = invoke(sys.argv[1:], context)
    if (error := _last_flush(sys.stdout)) is not None:
        if not code and isinstance(error, OSError) and not reader_is_gone(error):
            context.console.error(_full(error))
            code = CannotWrite.exit_code
        code = code or 141
    _last_flush(sys.stderr)
    sys.exit(code)


def _last_flush(stream: TextIO | None) -> Exception | None:
    """Why nothing more can be written; then the stream is pointed at nothing, so that exiting stays quiet."""
    if stream is None:
        return None
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())
        return error
    return None

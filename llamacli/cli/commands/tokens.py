"""`llamacli tokens`: how many tokens a text has for a model, and which."""

from __future__ import annotations

import contextlib

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.console import clean
from llamacli.cli.context import Context
from llamacli.cli.models import obtain
from llamacli.cli.text_rows import checked, source


def tokens_command(
    context: typer.Context,
    model: str = typer.Argument(
        None, metavar="[MODEL]", help="Whose vocabulary counts.", autocompletion=complete_model
    ),
    words: list[str] = typer.Argument(None, metavar="[TEXT]...", help="Instead of the input."),
    named: str = typer.Option(
        "", "-m", "--model", metavar="MODEL", help="The model; all words are the text.", autocompletion=complete_model
    ),
    file: str = typer.Option("", "-f", "--file", metavar="FILE", help="The text, instead of standard input."),
    ids: bool = typer.Option(False, "--ids", help="The token ids, on one line."),
    show: bool = typer.Option(False, "--show", help="Every token: id and text."),
    special: bool = typer.Option(False, "--special", help="Read control tokens in the text."),
    bare: bool = typer.Option(False, "--no-bos", help="Without what the model wants before and behind a text."),
) -> None:
    """Count the tokens of a text; only the vocabulary is loaded.

    \b
    llamacli tokens MODEL -f report.txt
    echo "Hello" | llamacli tokens MODEL --show
    llamacli tokens MODEL --ids "Hello there"
    """
    from llamacli.runtime.vocab_only import open_vocab

    here: Context = context.obj
    text = " ".join([*([model] if named and model else []), *(words or [])])
    path = obtain(here, named or model)
    with contextlib.ExitStack() as stack:
        if not words and not (named and model):
            text = source(here, file, stack).read()
        text = checked(text, "the text")
        vocab = stack.enter_context(open_vocab(path))
        found = vocab.tokens(text, special=special, add_special=not bare)
        pieces = [vocab.piece(token) for token in found] if show or here.console.json_output else []
    if here.console.json_output:
        here.console.result("", {"tokens": len(found), "ids": found, "pieces": pieces})
    elif show:
        for token, piece in zip(found, pieces, strict=True):
            here.console.write(f"{token:7d}  {clean(repr(piece))}\n")
    elif ids:
        here.console.write(" ".join(map(str, found)) + "\n")
    else:
        here.console.write(f"{len(found)}\n")

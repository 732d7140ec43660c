"""`llamacli download`: from a name to verified files in the Hub cache, and their path on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context
from llamacli.cli.downloading import Downloads
from llamacli.cli.fitting import parse_mode
from llamacli.errors import UsageError
from llamacli.library.choose import parse_rate
from llamacli.library.transfer import Settings


def download_command(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…", help="user/repo[:QUANT|:FILE][@REV], or an alias.", autocompletion=complete_model
        ),
    ],
    file: Annotated[
        list[str] | None, typer.Option("--file", metavar="NAME", help="This file (or pattern); repeatable.")
    ] = None,
    rev: Annotated[str, typer.Option("--rev", metavar="REV", help="Branch, tag or commit.")] = "",
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="A folder instead of the Hub cache.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Show what the repository offers, and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be fetched, and stop.")] = False,
    source: Annotated[
        str, typer.Option("--source", metavar="safetensors", help="The original weights, not a GGUF.")
    ] = "",
    mmproj: Annotated[
        str, typer.Option("--mmproj", metavar="auto|no", help="The projector for images, if there is one [auto].")
    ] = "auto",
    draft: Annotated[bool, typer.Option("--draft", help="Also the small model that drafts for it, if any.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hash again what is here already.")] = False,
    limit_rate: Annotated[
        str, typer.Option("--limit-rate", metavar="RATE", help="Bytes per second, such as 10M.")
    ] = "",
    fit: Annotated[
        str, typer.Option("--fit", metavar="auto|gpu|ram|off", help="What an unnamed quantization must fit.")
    ] = "auto",
    ctx_size: Annotated[
        int, typer.Option("-c", "--ctx", min=0, metavar="N", help="Tokens of context it must fit with [8192].")
    ] = 0,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Also a model that does not fit this machine.")] = False,
) -> None:
    """Fetch a model from the Hub, whole and verified; print its path.

    \b
    llamacli download bartowski/Llama-3.2-3B-Instruct-GGUF             the best that fits this machine
    llamacli download bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M      this quantization
    llamacli download meta-llama/Llama-3.2-1B --source safetensors     weights for llamacli quantize

    An interrupted download goes on where it stopped, in any later run.
    """
    if source not in ("", "safetensors", "gguf"):
        raise UsageError(f"not a source: {source!r}", "--source safetensors or --source gguf")
    if mmproj not in ("auto", "no"):
        raise UsageError(f"not a choice: --mmproj {mmproj}", "--mmproj auto or --mmproj no")
    here: Context = context.obj
    rate = parse_rate(limit_rate) if limit_rate else 0
    downloads = Downloads(here, to, Settings(limit_rate=rate), verify=verify, mode=parse_mode(fit), context=ctx_size)
    for text in models:
        name = downloads.name(text, rev)
        if name.kind != "hub" or here.offline:
            arrived = downloads.local(text, name)
            here.console.result(arrived.path, arrived.facts)
            continue
        repo = downloads.repo(name)
        if show:
            downloads.show(repo)
            continue
        choice = downloads.choose(
            repo, name, file or [], safetensors=source == "safetensors", mmproj=mmproj == "auto", draft=draft
        )
        if choice.checkpoint and not source:
            here.console.status(f"{repo.name} has no GGUF; taking the safetensors, for llamacli quantize")
        if dry_run:
            downloads.announce(repo, choice)
            continue
        downloads.accept(choice, yes)
        arrived = downloads.fetch(repo, name.revision, choice)
        here.console.result("\n".join(arrived.facts["files"]) if file else arrived.path, arrived.facts)

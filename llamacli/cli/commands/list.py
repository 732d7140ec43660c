"""`llamacli list`: the models on this computer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from llamacli.cli.console import clean
from llamacli.cli.context import Context
from llamacli.cli.models import places
from llamacli.cli.sizes import human_age, human_size
from llamacli.library.catalog import catalog
from llamacli.library.inventory import LocalModel, local_models
from llamacli.runtime.memory import memory

if TYPE_CHECKING:
    from llamacli.formats.gguf_reader import GGUF

COLUMNS = ("NAME", "QUANT", "SIZE", "CTX", "FITS", "WHERE", "USED")
USUAL_CONTEXT = 8192
MARGIN = 0.9
"""Part of the free memory that a model may take, as in `llamacli fit`."""


def list_command(
    context: typer.Context,
    everywhere: Annotated[
        bool, typer.Option("--all", help="Also models of Ollama, LM Studio and other tools.")
    ] = False,
    known: Annotated[bool, typer.Option("--catalog", help="Models known by a short name, here or not.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Tab-separated, sizes in bytes, no heading.")] = False,
) -> None:
    """List the models on this computer; -q prints names only.

    \b
    llamacli list
    llamacli list --all
    llamacli list --catalog
    llamacli list -q | fzf | xargs -o llamacli chat
    """
    here: Context = context.obj
    if known:
        _show_catalog(here)
        return
    models = local_models(places(here), everywhere=everywhere, made=here.data_dir / "models", measure=_beside)
    free = memory().available if models else 0
    if here.console.json_output:
        here.console.table(COLUMNS, [], [_facts(m, free) for m in models])
    elif here.console.quiet:
        here.console.write("".join(clean(m.name) + "\n" for m in models))
    elif plain:
        here.console.write("".join("\t".join(map(_field, _plain(m, free))) + "\n" for m in models))
    elif models:
        here.console.table(COLUMNS, [_row(m, here.now(), free) for m in models])
    else:
        also = "" if everywhere else "; llamacli list --all also looks at other tools"
        here.console.status(f"no models yet{also}\ntry: llamacli download bartowski/Llama-3.2-3B-Instruct-GGUF")


def _show_catalog(here: Context) -> None:
    """The names that `download` knows; not one of them is fetched by being listed."""
    entries = catalog(here.config_dir).values()
    rows = [(e.name, e.parameters, _tokens(e.context), e.licence, e.good_for) for e in entries]
    here.console.table(("NAME", "WEIGHTS", "CTX", "LICENCE", "GOOD FOR"), rows, [asdict(e) for e in entries])


def _row(model: LocalModel, now: float, free: int) -> tuple[str, ...]:
    context = "damaged" if model.error else _tokens(model.context)
    used = human_age(now - model.used)
    return model.name, model.quant, human_size(model.size), context, _fits(model, free), model.where, used


def _beside(gguf: GGUF) -> int:
    """Bytes of all but the weights with the usual context, from the header alone."""
    from llamacli.runtime.fit import estimate

    trained = gguf.get("{arch}.context_length", 0)
    need = estimate(gguf, min(USUAL_CONTEXT, trained or USUAL_CONTEXT))
    return need.beside


def _fits(model: LocalModel, free: int) -> str:
    """Whether it goes into the memory that is free now; nothing where that cannot be told."""
    if not model.beside or not free:
        return ""
    return "yes" if model.size + model.beside <= free * MARGIN else "no"


def _tokens(count: int) -> str:
    return f"{count:,}".replace(",", " ") if count else ""


def _plain(model: LocalModel, free: int) -> tuple[object, ...]:
    return model.name, model.quant, model.size, model.context or "", _fits(model, free), model.where, int(model.used)


def _field(value: object) -> str:
    return clean(str(value)).replace("\t", " ").replace("\n", " ")


def _facts(model: LocalModel, free: int) -> dict[str, object]:
    return {
        "name": model.name, "quant": model.quant, "bytes": model.size, "context": model.context or None,
        "where": model.where, "used": int(model.used), "path": str(model.path), "architecture": model.architecture,
        "error": model.error or None, "fits": {"yes": True, "no": False}.get(_fits(model, free)),
    }  # fmt: skip

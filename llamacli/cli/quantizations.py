"""All quantizations of a model on the Hub, those that exist and those that `quantize` could make, and which fit here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.cli.context import Context
from llamacli.cli.fitting import Fit, Mode, fit_of
from llamacli.cli.models import default_model, model_path
from llamacli.cli.remote import hub_name
from llamacli.cli.sizes import human_size
from llamacli.errors import DoesNotFit, NotFound, Unsupported
from llamacli.formats.sparse import write_sparse
from llamacli.library.variants import variants

if TYPE_CHECKING:
    from llamacli.cli.downloading import Downloads
    from llamacli.library.hub import RemoteRepo
    from llamacli.quantize.model import Model
    from llamacli.quantize.plan import Plan, PlanOptions

BEST_FIRST = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K_S", "Q2_K",
)  # fmt: skip
"""Recipes that need no importance matrix, in the order of the quality that they keep."""


def repository(here: Context, text: str | None) -> tuple[Downloads, RemoteRepo] | None:
    """The repository that `text` names without saying which quantization; None for all else, and for what is here."""
    if here.offline:
        return None
    try:
        model_path(here, text)
        return None
    except (NotFound, Unsupported):
        name = hub_name(here, text or default_model(here))
    if name is None or name.selector:
        return None
    from llamacli.cli.downloading import Downloads

    downloads = Downloads(here)
    return downloads, downloads.repo(name)


def table(here: Context, downloads: Downloads, repo: RemoteRepo, context: int) -> list[str]:
    """Show all quantizations; the names of those that fit, best first."""
    offered = variants(f.name for f in repo.files)
    if offered:
        sizes = repo.sizes
        downloads.context = context
        fit = downloads.fit(repo, offered)
        if fit is None:
            raise Unsupported(
                f"the header of no file of {repo.name} can be read", f"see: llamacli download {repo.name} --list"
            )
        found = [(v.label, sum(sizes[n] for n in v.files)) for v in offered]
    else:
        from llamacli.checkpoint.checkpoint import Checkpoint
        from llamacli.library.hub_source import HubSource
        from llamacli.quantize.model import model_of_checkpoint
        from llamacli.quantize.plan import PlanOptions

        model = model_of_checkpoint(Checkpoint.open(HubSource(downloads.hub, repo)))
        plans = plans_of(model, BEST_FIRST, PlanOptions())
        fit = fit_of_plan(plans[0], context, "auto")
        found = [(plan.recipe.name, plan.size_bytes) for plan in plans]
    rows = [(name, human_size(size), human_size(size + fit.beside), fit.words(size)) for name, size in found]
    data = [
        {
            "quant": name,
            "bytes": size,
            "total_bytes": size + fit.beside,
            "context": fit.context,
            "fits": fit.place(size) or False,
        }
        for name, size in found
    ]
    here.console.status(f"{fit.room.text}; with {fit.context} tokens of context:")
    here.console.table(("QUANT", "SIZE", "NEEDS", "FITS"), rows, data)
    return [name for name, size in found if fit.place(size)]


def plans_of(model: Model, names: Sequence[str], options: PlanOptions) -> list[Plan]:
    """The plans of these recipes."""
    from llamacli.quantize.plan import make_plan
    from llamacli.quantize.recipes import recipe_named

    return [make_plan(model, recipe_named(name), options) for name in names]


def best_plan(model: Model, options: PlanOptions, context: int, mode: Mode) -> tuple[Plan, Fit]:
    """The best plan that fits this machine with room to spare. Raises DoesNotFit with the numbers."""
    plans = plans_of(model, BEST_FIRST, options)
    fit = fit_of_plan(plans[0], context, mode)
    for plan in plans:
        if fit.place(plan.size_bytes):
            return plan, fit
    smallest = min(plan.size_bytes for plan in plans)
    raise DoesNotFit(
        f"no quantization fits: the smallest needs {human_size(smallest + fit.beside)} with {fit.context} tokens of "
        f"context, and there is {fit.there}",
        "name a type with -q to make it all the same",
    )


def fit_of_plan(plan: Plan, context: int, mode: Mode) -> Fit:
    """What the engine says of a file that is only planned."""
    with sparse(plan) as path:
        return fit_of(path, context, mode)


@contextmanager
def sparse(plan: Plan) -> Iterator[Path]:
    """The planned file with its header and nothing else."""
    with tempfile.TemporaryDirectory(prefix="llamacli-header-") as folder:
        paths = plan.paths(Path(folder) / "model.gguf")
        for path, layout in zip(paths, plan.layouts, strict=True):
            write_sparse(path, layout.header, layout.size_bytes)
        yield paths[0]

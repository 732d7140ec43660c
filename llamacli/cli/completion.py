"""What the shell offers: names of models here, aliases and the catalog; types to quantize to."""

from __future__ import annotations

import io
import os

from llamacli.cli.console import Console
from llamacli.cli.context import Context


def complete_model(incomplete: str) -> list[str]:
    """Names that begin with `incomplete`, without regard to case. Reads no network and never fails."""
    try:
        return names(_here(), incomplete)
    except Exception:  # a shell in the middle of a line is no place for a message
        return []


def complete_type(incomplete: str) -> list[str]:
    """Types to quantize to; of a list with commas the last."""
    from llamacli.quantize.recipes import RECIPES

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in RECIPES if name.startswith(last.upper())]


def names(here: Context, incomplete: str) -> list[str]:
    """The names, those on this computer first."""
    from llamacli.cli.models import places
    from llamacli.library.catalog import catalog
    from llamacli.library.inventory import local_models

    local = [m.name for m in local_models(places(here), everywhere=True, made=here.data_dir / "models")]
    found = dict.fromkeys([*local, *catalog(here.config_dir)])
    return [name for name in found if name.lower().startswith(incomplete.lower())]


def _here() -> Context:
    return Context(console=Console(io.StringIO(), io.StringIO(), os.environ))

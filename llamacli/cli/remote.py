"""Models on the Hub as commands use them without downloading: a checkpoint to quantize from, a header to plan with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.cli.context import Context, located
from llamacli.cli.models import default_model, model_path, places
from llamacli.errors import NotFound, Unsupported, UsageError
from llamacli.library.catalog import catalog
from llamacli.library.find import expand
from llamacli.library.names import ModelName
from llamacli.library.store import HubCache

if TYPE_CHECKING:
    from llamacli.checkpoint.source import Source
    from llamacli.formats.gguf_reader import GGUF
    from llamacli.library.hub import Hub


def open_hub(here: Context) -> Hub:
    """The Hub, for this run."""
    from llamacli.library.http import Client
    from llamacli.library.hub import Hub

    where = places(here)
    return Hub(Client(where), where.endpoint)


def hub_name(here: Context, text: str) -> ModelName | None:
    """`text` as a name on the Hub, aliases followed; None if it is something else."""
    try:
        name = expand(catalog(here.config_dir), ModelName.parse(text))
    except (NotFound, UsageError):
        return None
    return name if name.kind == "hub" else None


@contextmanager
def gguf_or_header(here: Context, text: str | None) -> Iterator[tuple[Path, GGUF]]:
    """The model that `text` names: its file and header if it is here, else its header from the Hub in a sparse file.

    A repository without a quantization in its name means its best that fits. Raises as `model_path` and the Hub do.
    """
    from llamacli.formats.gguf_reader import read_gguf

    try:
        path = model_path(here, text)
    except NotFound:
        name = None if here.offline else hub_name(here, text or default_model(here))
        if name is None:
            raise
        from llamacli.cli.downloading import Downloads
        from llamacli.cli.fitting import remote_gguf
        from llamacli.library.variants import variants

        downloads = Downloads(here)
        repo = downloads.repo(name)
        choice = downloads.choose(repo, name, mmproj=False)
        chosen = next((v for v in variants(f.name for f in repo.files) if v.files[0] == choice.files[0].name), None)
        if choice.checkpoint or chosen is None:
            raise UsageError(
                f"{repo.name} has no GGUF", f"llamacli fit {repo.name} shows what its quantizations would need"
            ) from None
        with remote_gguf(downloads.hub, repo, chosen) as found:
            yield found
        return
    yield path, read_gguf(path)


@contextmanager
def header_of(here: Context, text: str | None) -> Iterator[GGUF]:
    """The header of the model that `text` names; of a checkpoint, here or on the Hub, what it would be in 16 bits."""
    from llamacli.checkpoint.source import Folder

    wanted = text or default_model(here)
    folder = located(here.cwd, wanted)
    source = Folder(folder) if wanted and folder.is_dir() else _only_weights(here, wanted)
    if source is None:
        with gguf_or_header(here, text) as (_, gguf):
            yield gguf
        return
    from llamacli.checkpoint.checkpoint import Checkpoint
    from llamacli.cli.quantizations import plans_of, sparse
    from llamacli.formats.gguf_reader import read_gguf
    from llamacli.quantize.model import model_of_checkpoint
    from llamacli.quantize.plan import PlanOptions

    model = model_of_checkpoint(Checkpoint.open(source))
    (plan,) = plans_of(model, ["F16" if model.dtype == "F16" else "BF16"], PlanOptions())
    with sparse(plan) as path:
        yield replace(read_gguf(path), paths=(Path(source.label),))


def _only_weights(here: Context, text: str) -> Source | None:
    """The checkpoint that `text` names, if it is one and there is no GGUF under that name."""
    try:
        model_path(here, text)
        return None
    except NotFound:
        name = hub_name(here, text)
        if name is None or name.selector or here.offline:
            return None
    except Unsupported:
        return checkpoint_source(here, text) if hub_name(here, text) else None
    from llamacli.library.variants import variants

    repo = open_hub(here).repo(name.name, name.revision)
    if variants(file.name for file in repo.files):
        return None
    return checkpoint_source(here, text)


def checkpoint_source(here: Context, text: str) -> Source | None:
    """The checkpoint that `text` names: its snapshot in the Hub cache if all of it is here, else on the Hub.

    None if `text` is no name of the Hub. Raises what the Hub's refusals mean, UsageError for a quantization's name.
    """
    from llamacli.checkpoint.source import Folder

    name = hub_name(here, text)
    if name is None:
        return None
    if name.selector:
        raise UsageError(f"{text} names one file of a repository", f"llamacli quantize {name.name} -q {name.selector}")
    cache = HubCache(places(here).hub_cache)
    if here.offline:
        for snapshot in cache.snapshots(name.name, name.revision):
            if any(file.endswith(".safetensors") for file in snapshot.files()):
                return Folder(snapshot.path)
        raise NotFound(f"{name} is not on this computer, and the network is switched off")
    from llamacli.library.choose import checkpoint
    from llamacli.library.hub_source import HubSource

    hub = open_hub(here)
    repo = hub.repo(name.name, name.revision)
    if repo.moved_to:
        here.console.status(f"{repo.name} is called {repo.moved_to} now")
    wanted = checkpoint(repo).files
    if all(_is_whole(cache, repo.name, repo.commit, file.name, file.size) for file in wanted):
        return Folder(cache.pointer(repo.name, repo.commit, "config.json").parent)
    return HubSource(hub, repo)


def _is_whole(cache: HubCache, repo: str, commit: str, file: str, size: int) -> bool:
    path = cache.pointer(repo, commit, file)
    return path.is_file() and path.stat().st_size == size

"""The models on this computer, as a list."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamacli.library.aliases import DEFAULT
from llamacli.library.catalog import own_entries
from llamacli.library.foreign import ForeignModel, foreign_models
from llamacli.library.index import Index, Measure
from llamacli.library.names import ModelName
from llamacli.library.places import Places
from llamacli.library.store import HubCache, Snapshot
from llamacli.library.variants import Variant, quant_of, variants


@dataclass(frozen=True)
class LocalModel:
    """One model that is here."""

    name: str
    """What a user types to run it."""
    quant: str
    size: int
    """Bytes of all its files."""
    context: int
    where: str
    """hf, file, made, ollama, lms, llama.cpp, gpt4all or jan."""
    used: float
    """When it was last read or written, in seconds since 1970."""
    location: str
    """The first file, or the folder."""
    architecture: str = ""
    error: str = ""
    beside: int = 0
    """Bytes of cache and buffers that it needs beside its weights, as `measure` estimates them; 0 if unknown."""
    parts: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The first file, or the folder of a checkpoint."""
        return Path(self.location)

    @property
    def files(self) -> tuple[Path, ...]:
        """All parts."""
        return tuple(map(Path, self.parts))


def local_models(
    places: Places, *, everywhere: bool = False, made: Path | None = None, measure: Measure | None = None
) -> list[LocalModel]:
    """Models of the Hub cache and the user's own files; with `everywhere` also those of other tools. Newest use first.

    `made` is the folder of models that were quantized straight from the Hub. `measure` is asked for headers that are not
    in the index yet.
    """
    index = Index(places.cache_dir / "headers.json", measure)
    found = [*_hub_models(places, index), *_own_files(places, index)]
    found += _made_models(made, index) if made is not None else []
    if everywhere:
        known = {os.path.realpath(m.path) for m in found}
        others = [m for m in foreign_models(places) if os.path.realpath(m.path) not in known]
        found += [model for m in others for model in _foreign_model(m, index)]
    index.save()
    return sorted(found, key=lambda m: (-m.used, m.name))


def _hub_models(places: Places, index: Index) -> Iterator[LocalModel]:
    cache = HubCache(places.hub_cache)
    for repo in cache.repos():
        seen: set[tuple[int, int | str]] = set()
        for snapshot in cache.snapshots(repo):
            yield from _snapshot_models(snapshot, seen, index)


def _snapshot_models(snapshot: Snapshot, seen: set[tuple[int, int | str]], index: Index) -> Iterator[LocalModel]:
    """The models of one commit that no newer commit has; older ones are named with their commit."""
    entries = snapshot.entries()
    offered = variants(entries)
    first_commit = not seen
    for variant in offered:
        statuses = [entries[name] for name in variant.files]
        real = _identity(statuses[0], variant.files[0])
        if variant.complete and real not in seen:
            same = [v for v in offered if v.quant == variant.quant]
            selector = variant.quant if variant.quant and len(same) == 1 else variant.files[0]
            revision = "" if first_commit else snapshot.commit[:12]
            name = str(ModelName("hub", snapshot.repo, selector, revision))
            paths = [f"{snapshot.folder}{os.sep}{name}" for name in variant.files]
            yield _model(name, variant.quant, paths, "hf", index, statuses)
        seen.add(real)
    weights = [name for name in entries if name.endswith(".safetensors")]
    if weights and not offered:
        real = _identity(entries[weights[0]], weights[0])
        if real not in seen:
            revision = "" if first_commit else snapshot.commit[:12]
            name = str(ModelName("hub", snapshot.repo, "", revision))
            used, size = max(map(_used, entries.values())), sum(status.st_size for status in entries.values())
            yield LocalModel(name, "safetensors", size, 0, "hf", used, snapshot.folder)
        seen.add(real)


def _identity(status: os.stat_result, name: str) -> tuple[int, int | str]:
    """Equal for two names of one file; some network shares have no numbers for files."""
    return status.st_dev, status.st_ino or name


def _made_models(folder: Path, index: Index) -> Iterator[LocalModel]:
    """Files in folders called owner--repo[@revision]; the repository's name leads to them."""
    for path in sorted(folder.glob("*--*/*.gguf")):
        repo, _, revision = path.parent.name.partition("@")
        quant = quant_of(path.name)
        name = ModelName("hub", repo.replace("--", "/", 1), quant, revision.replace("--", "/"))
        if not path.name.startswith("."):
            yield _model(str(name), quant, [path], "made", index)


def _own_files(places: Places, index: Index) -> Iterator[LocalModel]:
    """GGUF files that have a name in the user's models.toml or among the aliases."""
    for entry in own_entries(places.config_dir).values():
        if entry.name == DEFAULT:
            continue
        name = ModelName.parse(entry.model)
        path = places.home / entry.model[2:] if entry.model.startswith("~") else Path(entry.model)
        if name.kind == "path" and path.is_absolute() and path.is_file():
            yield _model(entry.name, quant_of(path.name), _with_parts(path), "file", index)


def _foreign_model(model: ForeignModel, index: Index) -> Iterator[LocalModel]:
    try:
        yield _model(model.label, quant_of(model.path.name), _with_parts(model.path), model.store, index)
    except OSError:  # gone, or not ours to read
        return


def _with_parts(path: Path) -> list[Path]:
    """All parts of a split model whose first part is `path`."""
    same: list[Variant] = [v for v in variants(p.name for p in path.parent.glob("*.gguf")) if path.name in v.files]
    return [path.parent / name for name in same[0].files] if same else [path]


def _model(
    name: str,
    quant: str,
    paths: Sequence[str | Path],
    where: str,
    index: Index,
    known: list[os.stat_result] | None = None,
) -> LocalModel:
    statuses = known or [os.stat(p) for p in paths]  # noqa: PTH116
    facts = index.facts(paths[0], statuses[0])
    return LocalModel(
        name=name,
        quant=quant or facts.quant,
        size=sum(s.st_size for s in statuses),
        context=facts.context,
        where=where,
        used=max(_used(s) for s in statuses),
        location=str(paths[0]),
        architecture=facts.architecture,
        error=facts.error,
        beside=facts.beside,
        parts=tuple(map(str, paths)),
    )


def _used(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)

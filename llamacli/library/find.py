"""From a model's name to its file on this computer, without the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from llamacli.errors import CorruptFile, NotFound, Unsupported, UsageError
from llamacli.library.catalog import Entry, catalog, near
from llamacli.library.foreign import ForeignModel, lmstudio_models, ollama_models
from llamacli.library.names import ModelName
from llamacli.library.places import Places
from llamacli.library.store import HubCache
from llamacli.library.variants import Variant, best, matching, one, variants


def find_model(places: Places, cwd: Path, text: str, budget: int | None = None) -> Path:
    """The GGUF that `text` names; of a split model the first part.

    `budget` is the memory in bytes that a model may take, used where a name leaves the quantization open. Raises
    NotFound with the command that fetches it, UsageError for what is no name or ambiguous.
    """
    local = _local(places.home, cwd, text)
    if local.is_file():
        return local
    if local.is_dir():
        return _in_folder(local, budget)
    name = ModelName.parse(text)
    if name.kind == "path" and local.exists():
        raise UsageError(
            f"{text} is not a regular file", "a model is read from many places at once: name a file on a disk"
        )
    if name.kind == "path":
        raise NotFound(f"no such file: {text}", _near_files(local))
    if name.kind in ("ollama", "lms"):
        return _foreign(places, name)
    if name.kind == "alias":
        return _alias(places, cwd, name.name, budget)
    return _hub(places, name, budget)


def expand(entries: Mapping[str, Entry], name: ModelName) -> ModelName:
    """An alias as what it stands for; every other name as it is. Raises NotFound with near misses."""
    seen = set()
    while name.kind == "alias":
        if name.name not in entries:
            lower = name.name.lower()
            if lower != name.name and lower in entries:
                name = ModelName.parse(lower)
                continue
            guesses = near(name.name, entries)
            hint = f"did you mean {', '.join(guesses)}?" if guesses else "on the Hub a model is user/repo[:QUANT]"
            raise NotFound(f"no model is called {name.name}", hint)
        if name.name in seen:
            raise UsageError(f"the alias {name.name} leads back to itself", "correct it in your models.toml")
        seen.add(name.name)
        name = ModelName.parse(entries[name.name].model)
    return name


def _local(home: Path, cwd: Path, text: str) -> Path:
    if text == "~" or text.startswith(("~/", "~\\")):
        return home / text[2:]
    try:
        path = cwd / text
        path.exists()
    except (OSError, ValueError):  # a name too long, or with NUL
        return cwd / "no such file"
    return path


def _in_folder(folder: Path, budget: int | None) -> Path:
    sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    offered = variants(sizes)
    if not offered:
        if any(n.endswith(".safetensors") for n in sizes):
            raise Unsupported(f"{folder} is a checkpoint, not a GGUF file", f"first: llamacli quantize {folder}")
        raise NotFound(f"no GGUF file in {folder}")
    if len(offered) > 1:
        names = "\n".join(str(folder / v.files[0]) for v in offered[:12])
        raise UsageError(f"{folder} holds {len(offered)} models", f"say which:\n{names}")
    return _whole(folder, offered[0])


def _whole(folder: Path, variant: Variant) -> Path:
    if not variant.complete:
        raise CorruptFile(
            f"{folder / variant.files[0]}: {variant.parts - len(variant.files)} of {variant.parts} parts are missing",
            "fetch the missing parts",
        )
    return folder / variant.files[0]


def _near_files(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return f"no such folder: {path.parent}"
    guesses = near(path.name, names)
    return f"did you mean {', '.join(guesses)}?" if guesses else ""


def _alias(places: Places, cwd: Path, word: str, budget: int | None) -> Path:
    entries = catalog(places.config_dir)
    if word not in entries:
        return _by_short_name(places, cwd, entries, word, budget)
    target = expand(entries, ModelName("alias", word))
    try:
        return find_model(places, cwd, str(target), budget)
    except NotFound as error:
        raise NotFound(f"{word} is not on this computer", f"llamacli download {word}") from error


def _by_short_name(places: Places, cwd: Path, entries: Mapping[str, Entry], word: str, budget: int | None) -> Path:
    """A repository's name without its owner, if exactly one here has it; or an alias in other letters."""
    cache = HubCache(places.hub_cache)
    repos = [r for r in cache.repos() if r.rpartition("/")[2].lower() == word.lower()]
    if len(repos) == 1:
        return _hub(places, ModelName("hub", repos[0]), budget)
    if word.lower() in entries:
        return _alias(places, cwd, word.lower(), budget)
    guesses = near(word, [*entries, *cache.repos()])
    hint = f"did you mean {', '.join(guesses)}?" if guesses else "see: llamacli list, or name a user/repo on the Hub"
    raise NotFound(f"no model is called {word}", hint)


def _foreign(places: Places, name: ModelName) -> Path:
    stores: dict[str, tuple[str, Callable[[Places], list[ForeignModel]]]] = {
        "ollama": ("Ollama", ollama_models),
        "lms": ("LM Studio", lmstudio_models),
    }
    tool, models = stores[name.kind]
    here = {m.name.lower(): m for m in models(places)}
    wanted = name.name.lower()
    for text in (wanted, f"{wanted}:latest"):
        if text in here:
            return here[text].path
    same = [m for m in here.values() if m.name.lower().startswith(wanted + ("/" if name.kind == "lms" else ":"))]
    if len(same) == 1:
        return same[0].path
    spelled = {m.name.removesuffix(":latest"): m.name for m in here.values()}
    spelled |= {short.rpartition("/")[2].partition(":")[0]: short for short in spelled}
    guesses = [m.name for m in same[:6]] or list(dict.fromkeys(spelled[n] for n in near(name.name, spelled)))
    names = ", ".join(f"{name.kind}:{guess}" for guess in guesses)
    hint = f"did you mean {names}?" if names else f"{tool} has {len(here)} models here; see: llamacli list --all"
    raise NotFound(f"{tool} has no model {name.name} on this computer", hint)


def _hub(places: Places, name: ModelName, budget: int | None) -> Path:
    """The variant in the Hub cache; the newest snapshot that has it wins, the branch's own first."""
    cache = HubCache(places.hub_cache)
    name = ModelName("hub", _spelled(cache, name.name), name.selector, name.revision)
    download = f"llamacli download {name}"
    snapshots = cache.snapshots(name.name, name.revision)
    have_safetensors, others = False, []
    for snapshot in snapshots:
        sizes = snapshot.files()
        offered = variants(sizes)
        have_safetensors = have_safetensors or any(f.endswith(".safetensors") for f in sizes)
        whole = [v for v in offered if v.complete]
        others += [v.label for v in offered]
        if not whole:
            continue
        if not name.selector:
            return snapshot.path / best(whole, sizes, budget)[0].files[0]
        try:
            matching(name.selector, whole, name.name)
        except NotFound:
            continue
        return snapshot.path / one(name.selector, whole, name.name).files[0]
    if have_safetensors and not name.selector:
        raise Unsupported(f"{name.name} is here as safetensors, not as GGUF", f"first: llamacli quantize {name.name}")
    if others:
        here = ", ".join(dict.fromkeys(others))
        raise NotFound(f"{name} is not on this computer, or not whole", f"{download}\nhere of it: {here}")
    guesses = near(name.name, (repo for repo in cache.repos() if cache.snapshots(repo) and repo != name.name))
    also = f"\ndid you mean {', '.join(guesses)}, which is here?" if guesses else ""
    raise NotFound(f"{name} is not on this computer", download + also)


def _spelled(cache: HubCache, repo: str) -> str:
    """`repo` in the spelling the cache has; the Hub ignores case when it looks a repository up."""
    if cache.repo_folder(repo).is_dir():
        return repo
    return next((r for r in cache.repos() if r.lower() == repo.lower()), repo)

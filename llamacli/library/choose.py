"""Which files of a remote repository a user means: a quantization, named files, or a whole checkpoint."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from llamacli.errors import NotFound, Unsupported, UsageError
from llamacli.library.catalog import near
from llamacli.library.hub import RemoteFile, RemoteRepo
from llamacli.library.variants import Variant, best, drafts, is_model, one, projectors, variants

CHECKPOINT_TEXT = (".json", ".model", ".jinja", ".txt", ".md")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Choice:
    """What is to be fetched of a repository, in order; the first file is the one to run."""

    files: tuple[RemoteFile, ...]
    label: str
    """The quantization, the file, or "safetensors"."""
    why: str = ""
    """Why this one, where the user left it open."""
    checkpoint: bool = False
    """Whether it is a folder of safetensors rather than a model to run."""
    fits: bool = True
    """Whether it fits this machine's memory, as far as is known."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


def choose(
    repo: RemoteRepo,
    selector: str,
    budget: int | None,
    *,
    safetensors: bool = False,
    mmproj: bool = False,
    draft: bool = False,
) -> Choice:
    """The files that `selector` means in `repo`; with none, the best quantization for `budget` bytes of memory.

    Raises NotFound with near misses, UsageError where several match, Unsupported where only pickled weights are offered.
    """
    names = [f.name for f in repo.files]
    offered = variants(names)
    if safetensors or (not offered and not selector):
        return checkpoint(repo)
    if selector and not selector.lower().endswith(".gguf") and selector in names:
        return Choice((repo.file(selector),), selector)
    if selector:
        variant, why = _selected(repo, selector, offered), ""
    else:
        variant, why = best(offered, repo.sizes, budget)
    if not variant.complete:
        raise NotFound(f"{repo.name} has {len(variant.files)} of the {variant.parts} parts of {variant.label}")
    files = [repo.file(name) for name in variant.files]
    fits = budget is None or sum(f.size for f in files) <= budget
    if not _named_companion(variant):
        files += [repo.file(name) for name in projectors(names)[:1] if mmproj]
        files += [repo.file(name) for name in drafts(names)[:1] if draft]
    return Choice(tuple(files), variant.label, why, fits=fits)


def _named_companion(variant: Variant) -> bool:
    """Whether the user wants a projector or a draft itself."""
    return not is_model(variant.files[0])


def _selected(repo: RemoteRepo, selector: str, offered: Sequence[Variant]) -> Variant:
    """A variant, or any GGUF of the repository that is named in full (a projector, a matrix)."""
    if selector in repo.sizes and not any(selector in v.files for v in offered):
        return Variant("", (selector,), 1)
    return one(selector, offered, repo.name)


def named(repo: RemoteRepo, patterns: Sequence[str]) -> Choice:
    """The files that `patterns` (names, or with * and ?) mean. Raises NotFound for one that means nothing."""
    chosen: dict[str, RemoteFile] = {}
    for pattern in patterns:
        found = [f for f in repo.files if f.name == pattern or fnmatch.fnmatchcase(f.name, pattern)]
        if not found:
            guesses = near(pattern, [f.name for f in repo.files])
            hint = f"did you mean {', '.join(guesses)}?" if guesses else f"llamacli download {repo.name} --list"
            raise NotFound(f"{repo.name} has no file {pattern}", hint)
        chosen |= {f.name: f for f in found}
    return Choice(tuple(chosen.values()), ", ".join(patterns))


def checkpoint(repo: RemoteRepo) -> Choice:
    """The safetensors, configuration and tokenizer of `repo`: what `quantize` reads.

    Folders below the top, pickles and second copies of the same weights (consolidated*.safetensors beside
    model*.safetensors) stay where they are. Raises Unsupported if there are no safetensors.
    """
    top = [f for f in repo.files if "/" not in f.name]
    weights = [f for f in top if f.name.endswith(".safetensors")]
    if any(f.name.startswith("model") for f in weights):
        weights = [f for f in weights if not f.name.startswith("consolidated")]
    if not weights:
        pickled = any(f.name.endswith(PICKLES) for f in repo.files)
        raise Unsupported(
            f"{repo.name} has no GGUF and no safetensors" + (", only pickled weights" if pickled else ""),
            "pickled weights can run code and are never read; look for a safetensors version of the model"
            if pickled
            else f"llamacli download {repo.name} --list shows what it has",
        )
    texts = [
        f
        for f in top
        if f.name.endswith(CHECKPOINT_TEXT) or f.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))
    ]
    return Choice(tuple(sorted({*weights, *texts}, key=lambda f: (f.size, f.name))), "safetensors", checkpoint=True)


def parse_rate(text: str) -> int:
    """Bytes per second from 500K, 10M, 1.5G (powers of 1024, as curl reads them). Raises UsageError."""
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = text.strip().upper().removesuffix("/S").removesuffix("B"), ""
    if number and number[-1] in "KMG":
        number, unit = number[:-1], number[-1]
    try:
        rate = int(float(number) * units[unit])
    except (ValueError, OverflowError):
        rate = 0
    if rate <= 0:
        raise UsageError(f"not a rate: {text!r}", "for example --limit-rate 10M (bytes per second)")
    return rate

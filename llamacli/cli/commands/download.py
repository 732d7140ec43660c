"""`llamacli download`: from a name to verified files in the Hub cache, and their path on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from llamacli.cli.context import Context
from llamacli.cli.models import places
from llamacli.cli.sizes import human_size
from llamacli.errors import CorruptFile, DoesNotFit, NetworkError, UsageError
from llamacli.library.catalog import catalog
from llamacli.library.choose import Choice, choose, named, parse_rate
from llamacli.library.digest import file_matches
from llamacli.library.fetch import Fetched, check_space, fetch_to_cache, fetch_to_folder
from llamacli.library.find import expand, find_model
from llamacli.library.http import Client
from llamacli.library.hub import Hub, RemoteRepo, check_twins
from llamacli.library.memory import memory_budget, total_memory
from llamacli.library.names import ModelName
from llamacli.library.part import bytes_here
from llamacli.library.store import HubCache
from llamacli.library.transfer import Settings
from llamacli.library.variants import variants


def download_command(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="user/repo[:QUANT|:FILE][@REV], or an alias.")],
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
    mmproj: Annotated[str, typer.Option("--mmproj", metavar="auto|no", help="Also the projector for images.")] = "no",
    verify: Annotated[bool, typer.Option("--verify", help="Hash again what is here already.")] = False,
    limit_rate: Annotated[
        str, typer.Option("--limit-rate", metavar="RATE", help="Bytes per second, such as 10M.")
    ] = "",
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
    job = _Job(here, to, Settings(limit_rate=parse_rate(limit_rate) if limit_rate else 0), verify)
    for text in models:
        name = job.name(text, rev)
        if name.kind != "hub" or here.offline:
            job.local(text, name)
            continue
        repo = job.hub.repo(name.name, name.revision)
        if repo.moved_to:
            here.console.status(f"{repo.name} is called {repo.moved_to} now")
        if show:
            job.show(repo)
            continue
        choice = job.choose(repo, name, file or [], source == "safetensors", mmproj == "auto")
        if dry_run:
            job.announce(repo, choice)
        else:
            job.accept(choice, yes)
            job.fetch(repo, name.revision, choice)


class _Job:
    """What all models of one command line share."""

    def __init__(self, here: Context, to: Path | None, settings: Settings, verify: bool) -> None:
        self.here, self.console, self.settings, self.verify = here, here.console, settings, verify
        self.places = places(here)
        self.to = here.cwd / to.expanduser() if to is not None else None
        self.cache = HubCache(self.places.hub_cache)
        self.hub = Hub(Client(self.places), self.places.endpoint)
        self.budget = memory_budget()

    def name(self, text: str, rev: str) -> ModelName:
        """`text` without aliases, with --rev."""
        name = expand(catalog(self.places.config_dir), ModelName.parse(text))
        if rev and name.kind == "hub":
            return ModelName.parse(f"hf:{name.name}@{rev}" + (f":{name.selector}" if name.selector else ""))
        return name

    def local(self, text: str, name: ModelName) -> None:
        """What is no repository, or cannot be reached: print it if it is here."""
        if name.kind == "path":
            raise UsageError(f"{text} is a path, not a model on the Hub", "a model on the Hub is user/repo[:QUANT]")
        path = find_model(self.places, self.here.cwd, str(name), self.budget)
        if self.to is not None:
            raise NetworkError(
                "the network is switched off (--offline or HF_HUB_OFFLINE)", f"the model is here: {path}"
            )
        self.console.result(path, {"path": str(path)})

    def choose(
        self, repo: RemoteRepo, name: ModelName, files: Sequence[str], safetensors: bool, mmproj: bool
    ) -> Choice:
        """The files to fetch, announced where we chose."""
        if files:
            choice = named(repo, files)
        else:
            choice = choose(repo, name.selector, self.budget, safetensors=safetensors, mmproj=mmproj)
        check_twins(repo.name, choice.files)
        if choice.checkpoint and not safetensors:
            self.console.status(f"{repo.name} has no GGUF; fetching the safetensors, for llamacli quantize")
        elif choice.why:
            self.console.status(f"taking {choice.label} ({human_size(choice.size)}): {choice.why}")
            others = [v.label for v in variants(f.name for f in repo.files) if v.label != choice.label]
            if others:
                self.console.status(f"others: {', '.join(others[:12])}; for example {repo.name}:{others[0]}")
        return choice

    def accept(self, choice: Choice, yes: bool) -> None:
        """Ask before fetching what we chose although it does not fit."""
        if yes or choice.fits or not choice.why:
            return
        message = f"{human_size(choice.size)} do not fit this machine's memory ({human_size(total_memory() or 0)})"
        if self.console.no_input or not self.console.err_is_terminal:
            raise DoesNotFit(message, "name a quantization, or download it all the same with -y")
        typer.confirm(f"{message}; download it all the same?", abort=True, err=True)

    def show(self, repo: RemoteRepo) -> None:
        """The table of --list."""
        rows, data = [], []
        for variant in variants(f.name for f in repo.files):
            size = sum(repo.sizes[n] for n in variant.files)
            fits = "" if self.budget is None else ("yes" if size <= self.budget else "no")
            here = "yes" if self._is_here(repo, variant.files) else ""
            first = variant.files[0] + (f" (+{variant.parts - 1})" if variant.parts > 1 else "")
            rows.append((variant.quant or "?", human_size(size), fits, here, first))
            data.append(
                {"quant": variant.quant, "bytes": size, "fits": fits, "here": bool(here), "files": variant.files}
            )
        weights = [f for f in repo.files if f.name.endswith(".safetensors")]
        if weights:
            size = sum(f.size for f in weights)
            rows.append(("safetensors", human_size(size), "", "", f"{len(weights)} files"))
            data.append({"quant": "safetensors", "bytes": size, "files": [f.name for f in weights]})
        self.console.table(("QUANT", "SIZE", "FITS", "HERE", "FILE"), rows, data)

    def announce(self, repo: RemoteRepo, choice: Choice) -> None:
        """The table of --dry-run."""
        rows, data = [], []
        for file in choice.files:
            here = self._is_here(repo, [file.name])
            begun = bytes_here(self.cache.blob(repo.name, file.digest + ".llamacli-part"))
            state = "here" if here else (f"{human_size(begun)} here" if begun else "to fetch")
            rows.append((file.name, human_size(file.size), state))
            data.append(
                {"file": file.name, "bytes": file.size, "here": file.size if here else begun, "sha256": file.digest}
            )
        self.console.table(("FILE", "SIZE", "STATE"), rows, {"repo": repo.name, "rev": repo.commit, "files": data})

    def fetch(self, repo: RemoteRepo, revision: str, choice: Choice) -> None:
        """All files of `choice`; prints one path."""
        self._check_space(repo, choice)
        title = choice.files[0].name.rpartition("/")[2] if len(choice.files) == 1 else repo.name.rpartition("/")[2]
        fetched = []
        with self.console.progress(title, choice.size) as progress:
            for number, file in enumerate(choice.files, 1):
                if len(choice.files) > 1:
                    progress.describe(f"{number}/{len(choice.files)}")
                if self.to is None:
                    fetched.append(fetch_to_cache(self.hub, self.cache, repo, revision, file, progress, self.settings))
                else:
                    locks = self.places.cache_dir / "locks"
                    fetched.append(
                        fetch_to_folder(self.hub, self.cache, repo, file, self.to, locks, progress, self.settings)
                    )
        if self.verify:
            self._verify(fetched)
        self._report(repo, choice, fetched)

    def _report(self, repo: RemoteRepo, choice: Choice, fetched: Sequence[Fetched]) -> None:
        seconds, resumed = sum(f.seconds for f in fetched), sum(f.resumed_from for f in fetched)
        folder = self.to or self.cache.repo_folder(repo.name) / "snapshots" / repo.commit
        path = folder if choice.checkpoint else fetched[0].path
        if seconds:
            note = f", resumed at {human_size(resumed)}" if 0 < resumed < choice.size else ""
            self.console.status(f"hash ok · {human_size(choice.size)} · {seconds:.0f} s{note}")
        data = {
            "path": str(path), "repo": repo.name, "rev": repo.commit, "file": fetched[0].file.name,
            "sha256": fetched[0].file.digest if len(fetched[0].file.digest) == 64 else None,
            "bytes": choice.size, "seconds": round(seconds, 3), "resumed_from": resumed,
            "files": [str(f.path) for f in fetched],
        }  # fmt: skip
        self.console.result(path, data)

    def _verify(self, fetched: Sequence[Fetched]) -> None:
        """Hash once more what was not fetched just now."""
        old = [f for f in fetched if f.seconds == 0]
        with self.console.progress("verify", sum(f.file.size for f in old)) as progress:
            for f in old:
                if not file_matches(f.path, f.file.digest, progress):
                    raise CorruptFile(
                        f"{f.path} is damaged: its hash is not the one the Hub promises",
                        f"llamacli rm {f.repo}, then download it again",
                    )

    def _check_space(self, repo: RemoteRepo, choice: Choice) -> None:
        missing = [f for f in choice.files if not self._is_here(repo, [f.name])]
        part = self.cache.blob(repo.name, "x").parent
        begun = sum(bytes_here(part / f"{f.digest}.llamacli-part") for f in missing) if self.to is None else 0
        check_space(self.to or self.cache.root, sum(f.size for f in missing) - begun)

    def _is_here(self, repo: RemoteRepo, names: Sequence[str]) -> bool:
        sizes = repo.sizes
        paths = [(self.cache.pointer(repo.name, repo.commit, n), sizes[n]) for n in names]
        return all(p.is_file() and p.stat().st_size == size for p, size in paths)

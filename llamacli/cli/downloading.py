"""Downloads as commands do them: choose, say what was chosen, ask where it must be asked, show progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.context import Context, located
from llamacli.cli.models import places
from llamacli.cli.sizes import human_size
from llamacli.errors import CorruptFile, DoesNotFit, NetworkError, UsageError
from llamacli.library.catalog import catalog
from llamacli.library.choose import Choice, choose, named
from llamacli.library.digest import file_matches
from llamacli.library.fetch import PART, Fetched, check_space, fetch_to_cache, fetch_to_folder
from llamacli.library.find import expand, find_model
from llamacli.library.http import Client
from llamacli.library.hub import Hub, RemoteFile, RemoteRepo, check_twins
from llamacli.library.memory import memory_budget, total_memory
from llamacli.library.names import ModelName
from llamacli.library.part import bytes_here
from llamacli.library.patience import Patience
from llamacli.library.store import HubCache
from llamacli.library.transfer import Settings
from llamacli.library.variants import Variant, variants
from llamacli.progress import Progress

if TYPE_CHECKING:
    from llamacli.cli.fitting import Fit, Mode


@dataclass(frozen=True)
class Arrived:
    """What one model's download brought."""

    path: Path
    """The file to run, or the folder of a checkpoint."""
    facts: dict[str, Any]
    """For --json."""


class Downloads:
    """What all downloads of one command line share."""

    def __init__(
        self,
        here: Context,
        to: Path | None = None,
        settings: Settings | None = None,
        *,
        verify: bool = False,
        mode: Mode = "auto",
        context: int = 0,
    ) -> None:
        self.here, self.console, self.verify = here, here.console, verify
        self.mode, self.context = mode, context
        self.settings = settings or Settings()
        self.places = places(here)
        self.to = located(here.cwd, to) if to is not None else None
        self.cache = HubCache(self.places.hub_cache)
        self.hub = Hub(Client(self.places), self.places.endpoint, Patience(told=self.console.status))
        self.budget = memory_budget() if mode != "off" else None
        """Bytes that a model may have where nothing better is known of it than its size."""

    def name(self, text: str, rev: str) -> ModelName:
        """`text` without aliases, with --rev."""
        name = expand(catalog(self.places.config_dir), ModelName.parse(text))
        if rev and name.kind == "hub":
            return ModelName.parse(f"hf:{name.name}@{rev}" + (f":{name.selector}" if name.selector else ""))
        return name

    def local(self, text: str, name: ModelName) -> Arrived:
        """What is no repository, or cannot be reached: taken if it is here."""
        if name.kind == "path":
            raise UsageError(f"{text} is a path, not a model on the Hub", "a model on the Hub is user/repo[:QUANT]")
        path = find_model(self.places, self.here.cwd, str(name), self.budget)
        if self.to is not None:
            raise NetworkError(
                "the network is switched off (--offline or HF_HUB_OFFLINE)", f"the model is here: {path}"
            )
        return Arrived(path, {"path": str(path)})

    def choose(
        self,
        repo: RemoteRepo,
        name: ModelName,
        files: Sequence[str] = (),
        *,
        safetensors: bool = False,
        mmproj: bool = True,
        draft: bool = False,
    ) -> Choice:
        """The files to fetch, announced where we chose."""
        if files:
            choice = named(repo, files)
        else:
            offered = [] if name.selector or safetensors else variants(f.name for f in repo.files)
            fit = self.fit(repo, offered) if len(offered) > 1 else None
            budget = fit.budget if fit else self.budget
            choice = choose(repo, name.selector, budget, safetensors=safetensors, mmproj=mmproj, draft=draft)
            if fit:
                self._explain(repo, offered, fit, choice)
        check_twins(repo.name, choice.files)
        if choice.why and not choice.checkpoint:
            self.console.status(f"taking {choice.label} ({human_size(choice.size)}): {choice.why}")
            others = [v.label for v in variants(f.name for f in repo.files) if v.label != choice.label]
            if others:
                self.console.status(f"others: {', '.join(others[:12])}; for example {repo.name}:{others[0]}")
        return choice

    def fit(self, repo: RemoteRepo, offered: Sequence[Variant]) -> Fit | None:
        """What a model of `repo` needs here beside its weights, from one header; None where that cannot be read."""
        from llamacli.cli.fitting import fit_of_repo  # and with it the engine

        return fit_of_repo(self.hub, repo, offered, self.context, self.mode)

    def _explain(self, repo: RemoteRepo, offered: Sequence[Variant], fit: Fit, choice: Choice) -> None:
        """The table of what was to be chosen from."""
        lines = [f"{fit.room.text}; with {fit.context} tokens of context:"]
        for variant in offered[:24]:
            size = sum(repo.sizes[n] for n in variant.files)
            mark = "→" if variant.files[0] == choice.files[0].name else " "
            lines.append(f" {mark} {variant.label:<14} {human_size(size):>8}  {fit.words(size)}")
        self.console.status("\n".join(lines))

    def repo(self, name: ModelName) -> RemoteRepo:
        """What the Hub says of it; a new name is told."""
        repo = self.hub.repo(name.name, name.revision)
        if repo.moved_to:
            self.console.status(f"{repo.name} is called {repo.moved_to} now")
        return repo

    def accept(self, choice: Choice, yes: bool) -> None:
        """Ask before fetching what we chose although it does not fit."""
        if yes or choice.fits or not choice.why:
            return
        message = f"{human_size(choice.size)} do not fit this machine's memory ({human_size(total_memory() or 0)})"
        if self.console.no_input or not self.console.err_is_terminal:
            raise DoesNotFit(message, "name a quantization, or download it all the same with -y")
        typer.confirm(f"{message}; download it all the same?", abort=True, err=True)

    def ask_and_fetch(self, name: ModelName, *, yes: bool) -> Path:
        """The model to run, after a yes. Raises UsageError for a checkpoint, Abort for a no."""
        repo = self.repo(name)
        choice = self.choose(repo, name)
        if choice.checkpoint:
            return self._ask_and_quantize(repo, name, yes)
        self.accept(choice, yes)
        if not yes:
            typer.confirm(f"download {choice.label}, {human_size(choice.size)}?", default=True, abort=True, err=True)
        return self.fetch(repo, name.revision, choice).path

    def _ask_and_quantize(self, repo: RemoteRepo, name: ModelName, yes: bool) -> Path:
        """A GGUF made from the safetensors of `repo`, kept in our own folder; the one that an earlier run has made."""
        from llamacli.cli.quantizing import quantize_from_hub

        return quantize_from_hub(self.here, str(replace(name, name=repo.name)), yes=yes)

    def show(self, repo: RemoteRepo) -> None:
        """The table of --list."""
        rows, data = [], []
        offered = variants(f.name for f in repo.files)
        fit = self.fit(repo, offered)
        for variant in offered:
            size = sum(repo.sizes[n] for n in variant.files)
            fits = "" if self.budget is None else ("yes" if size <= self.budget else "no")
            fits = fit.words(size) if fit else fits
            here = "yes" if self._is_here(repo, variant.files) else ""
            first = variant.files[0] + (f" (+{variant.parts - 1})" if variant.parts > 1 else "")
            rows.append((variant.quant or "?", human_size(size), fits, here, first))
            data.append(
                {"quant": variant.quant, "bytes": size, "fits": fits, "here": bool(here), "files": variant.files}
            )
        weights = [f for f in repo.files if f.name.endswith(".safetensors")]
        if weights:
            size = sum(f.size for f in weights)
            rows.append(
                ("safetensors", human_size(size), "", "", f"{len(weights)} file{'s' if len(weights) > 1 else ''}")
            )
            data.append({"quant": "safetensors", "bytes": size, "files": [f.name for f in weights]})
        self.console.table(("QUANT", "SIZE", "FITS", "HERE", "FILE"), rows, data)

    def announce(self, repo: RemoteRepo, choice: Choice) -> None:
        """The table of --dry-run."""
        rows, data = [], []
        for file in choice.files:
            here = self._is_here(repo, [file.name])
            begun = bytes_here(self.cache.blob(repo.name, file.digest + PART))
            state = "here" if here else (f"{human_size(begun)} here" if begun else "to fetch")
            rows.append((file.name, human_size(file.size), state))
            data.append(
                {"file": file.name, "bytes": file.size, "here": file.size if here else begun, "sha256": file.digest}
            )
        self.console.table(("FILE", "SIZE", "STATE"), rows, {"repo": repo.name, "rev": repo.commit, "files": data})

    def fetch(self, repo: RemoteRepo, revision: str, choice: Choice) -> Arrived:
        """All files of `choice`, whole and verified."""
        self._check_space(repo, choice)
        title = choice.files[0].name.rpartition("/")[2] if len(choice.files) == 1 else repo.name.rpartition("/")[2]
        fetched = []
        try:
            with self.console.progress(title, choice.size) as progress:
                for number, file in enumerate(choice.files, 1):
                    if len(choice.files) > 1:
                        progress.describe(f"{number}/{len(choice.files)}")
                    fetched.append(self._fetch_one(repo, revision, file, progress))
        except KeyboardInterrupt:
            self.console.status("stopped; what has come stays, and the same command goes on from there")
            raise
        if self.verify:
            self._verify(fetched)
        return self._arrived(repo, choice, fetched)

    def _fetch_one(self, repo: RemoteRepo, revision: str, file: RemoteFile, progress: Progress) -> Fetched:
        if self.to is None:
            return fetch_to_cache(self.hub, self.cache, repo, revision, file, progress, self.settings)
        locks = self.places.cache_dir / "locks"
        return fetch_to_folder(self.hub, self.cache, repo, file, self.to, locks, progress, self.settings)

    def _arrived(self, repo: RemoteRepo, choice: Choice, fetched: Sequence[Fetched]) -> Arrived:
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
        return Arrived(path, data)

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
        begun = sum(bytes_here(part / (f.digest + PART)) for f in missing) if self.to is None else 0
        check_space(self.to or self.cache.root, sum(f.size for f in missing) - begun)

    def _is_here(self, repo: RemoteRepo, names: Sequence[str]) -> bool:
        sizes = repo.sizes
        paths = [(self.cache.pointer(repo.name, repo.commit, n), sizes[n]) for n in names]
        return all(p.is_file() and p.stat().st_size == size for p, size in paths)

"""Models that other tools already have on this computer, found in their own stores and never written to.

Ollama      <models>/manifests/<host>/<namespace>/<model>/<tag>    JSON; its layer of media type
            application/vnd.ollama.image.model names the GGUF as <models>/blobs/sha256-<hex>
LM Studio   <home>/models/<publisher>/<model>/*.gguf
llama.cpp   *.gguf in its old cache (newer releases use the Hub cache)
GPT4All     *.gguf in one folder
Jan         **/*.gguf under <data>/llamacpp/models and <data>/models
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamacli.library.places import Places
from llamacli.library.variants import is_model, variants
from llamacli.user_cache import home_folder

MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class ForeignModel:
    """A model in another tool's store."""

    store: str
    """ollama, lms, llama.cpp, gpt4all or jan."""
    name: str
    """What that tool calls it."""
    path: Path
    """The file to run; of a split model the first part."""

    @property
    def label(self) -> str:
        """What a user types to run it here."""
        return f"{self.store}:{self.name}" if self.store in ("ollama", "lms") else str(self.path)


def foreign_models(places: Places) -> list[ForeignModel]:
    """Everything that the other tools have, in the order of the table above."""
    found = [*ollama_models(places), *lmstudio_models(places)]
    for store, folders in (
        ("llama.cpp", _llama_cpp_folders(places)),
        ("gpt4all", _gpt4all_folders(places)),
        ("jan", _jan_folders(places)),
    ):
        for folder in folders:
            found += [ForeignModel(store, p.stem, p) for p in _gguf_files(folder, depth=5)]
    unique = {os.path.realpath(m.path): m for m in reversed(found)}
    return [m for m in found if unique[os.path.realpath(m.path)] is m]


def ollama_models(places: Places) -> list[ForeignModel]:
    """Ollama's models by the names `ollama list` shows."""
    found = []
    for root in _ollama_folders(places):
        manifests = root / "manifests"
        for path in _files(manifests, depth=6):
            if blob := _ollama_blob(root, path):
                host, *middle, model, tag = path.relative_to(manifests).parts
                name = "/".join([host, *middle, model]).removeprefix("registry.ollama.ai/").removeprefix("library/")
                found.append(ForeignModel("ollama", f"{name}:{tag}", blob))
    return sorted(found, key=lambda m: m.name)


def lmstudio_models(places: Places) -> list[ForeignModel]:
    """LM Studio's models as publisher/model, with the file's name where a folder holds several."""
    found = []
    for root in _lmstudio_folders(places):
        for folder in [p for owner in _folders(root) for p in _folders(owner)]:
            files = {p.name: p for p in _gguf_files(folder, depth=1)}
            offered = variants(files)
            base = f"{folder.parent.name}/{folder.name}"
            for variant in offered:
                name = base if len(offered) == 1 else f"{base}/{variant.files[0]}"
                found.append(ForeignModel("lms", name, files[variant.files[0]]))
    return found


def _ollama_blob(root: Path, manifest: Path) -> Path | None:
    """The GGUF that a manifest names, if it is here whole enough to have its size."""
    try:
        if manifest.stat().st_size > 1 << 20:
            return None
        layers = json.loads(manifest.read_bytes())["layers"]
        for layer in layers:
            digest = _DIGEST.fullmatch(str(layer["digest"]))
            if layer["mediaType"] == MODEL_LAYER and digest:
                blob = root / "blobs" / f"sha256-{digest[1]}"
                return blob if blob.stat().st_size == layer.get("size", blob.stat().st_size) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _ollama_folders(places: Places) -> list[Path]:
    if own := places.env.get("OLLAMA_MODELS"):
        return [Path(own)]
    folders = [places.home / ".ollama" / "models"]
    if sys.platform.startswith("linux") and places.home == home_folder():
        folders += [Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/.ollama/models")]
    return folders


def _lmstudio_folders(places: Places) -> list[Path]:
    home = places.home / ".lmstudio"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        home = Path((places.home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip() or home)
    folders = [home / "models", places.home / ".cache" / "lm-studio" / "models"]
    try:
        own = json.loads((home / "settings.json").read_bytes()).get("downloadsFolder")
    except (OSError, ValueError, AttributeError):
        own = None
    return [Path(own), *folders] if isinstance(own, str) and own else folders


def _llama_cpp_folders(places: Places) -> list[Path]:
    if own := places.env.get("LLAMA_CACHE"):
        return [Path(own)]
    if sys.platform == "darwin":
        return [places.home / "Library" / "Caches" / "llama.cpp"]
    if base := places.env.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"):
        return [Path(base) / "llama.cpp"]
    return [places.home / ".cache" / "llama.cpp"]


def _gpt4all_folders(places: Places) -> list[Path]:
    if sys.platform == "darwin":
        return [places.home / "Library" / "Application Support" / "nomic.ai" / "GPT4All"]
    base = places.env.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME")
    return [(Path(base) if base else places.home / ".local" / "share") / "nomic.ai" / "GPT4All"]


def _jan_folders(places: Places) -> list[Path]:
    if sys.platform == "darwin":
        data = [places.home / "Library" / "Application Support" / "Jan" / "data"]
    elif os.name == "nt":
        data = [Path(places.env["APPDATA"]) / "Jan" / "data"] if "APPDATA" in places.env else []
    else:
        config = Path(places.env.get("XDG_CONFIG_HOME") or places.home / ".config")
        data = [places.home / ".local" / "share" / "Jan" / "data", config / "Jan" / "data"]
    return [folder / name for folder in [*data, places.home / "jan"] for name in ("llamacpp/models", "models")]


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(Path(e.path) for e in os.scandir(root) if e.is_dir())
    except OSError:
        return []


def _files(root: Path, depth: int) -> Iterator[Path]:
    """Plain files under `root`, at most `depth` levels down, in order; what cannot be read is left out."""
    try:
        entries = sorted(os.scandir(root), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from _files(Path(entry.path), depth - 1)
        elif entry.is_file():
            yield Path(entry.path)


def _gguf_files(root: Path, depth: int) -> list[Path]:
    """The models under `root`; of a split model only the first part."""
    names = {p.relative_to(root).as_posix(): p for p in _files(root, depth) if is_model(p.name)}
    return [names[v.files[0]] for v in variants(names)]

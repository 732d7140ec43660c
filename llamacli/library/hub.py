"""What the Hub says of a repository: its files with sizes and digests, its commit, and why it says no.

Two public addresses are used, the ones huggingface_hub uses:

    GET /api/models/<repo>/revision/<revision>?blobs=true     commit, files, sizes, SHA-256 of large files
    GET /<repo>/resolve/<commit>/<file>                       the bytes, or a redirect to where they are
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from llamacli.errors import CorruptFile, LlamacliError, NetworkError, NotFound
from llamacli.library.digest import is_digest
from llamacli.library.http import PORTAL_HINT, PROXY_HINT, BadStatus, Client, Session, Unreachable, host_of
from llamacli.library.names import safe_file, valid_repo_part
from llamacli.library.patience import Patience


@dataclass(frozen=True)
class RemoteFile:
    """One file of a commit."""

    name: str
    size: int
    digest: str
    """SHA-256 for a large file, git's blob SHA-1 for a small one; also its name in the cache."""


@dataclass(frozen=True)
class RemoteRepo:
    """One commit of a repository."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]
    gated: bool = False
    licence: str = ""
    moved_to: str = ""
    """The name the Hub uses now, where it is not the one asked for."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file by name."""
        return {f.name: f.size for f in self.files}

    def file(self, name: str) -> RemoteFile:
        """The file called `name`. Raises NotFound."""
        for file in self.files:
            if file.name == name:
                return file
        raise NotFound(f"{self.name} has no file {name}")


class Hub:
    """The Hub at the configured address."""

    def __init__(self, client: Client, endpoint: str, patience: Patience | None = None) -> None:
        self.client, self.endpoint = client, endpoint
        self.patience = patience or Patience()

    def repo(self, name: str, revision: str = "") -> RemoteRepo:
        """The commit that `revision` means in `name`, and its files.

        Raises NotFound with near misses, NetworkError where the Hub says no or cannot be reached.
        """
        url = f"{self.endpoint}/api/models/{name}/revision/{quote(revision or 'main', safe='')}?blobs=true"
        try:
            answer = self._json(url)
        except BadStatus as error:
            raise self.explain(error, name, revision) from None
        try:
            return _repo(name, answer)
        except (KeyError, TypeError, ValueError):
            raise NetworkError(f"{host_of(url)} answered with something that is not the Hub's", PORTAL_HINT) from None

    def file_url(self, repo: RemoteRepo, file: RemoteFile) -> str:
        """Where the bytes of `file` are asked for."""
        return f"{self.endpoint}/{repo.name}/resolve/{repo.commit}/{quote(file.name)}"

    def search(self, words: str, limit: int = 3) -> list[str]:
        """Repositories whose name resembles `words`; nothing if the Hub does not answer at once."""
        url = f"{self.endpoint}/api/models?search={quote(words, safe='')}&limit={limit}"
        session = Session(self.client)
        try:
            answer = session.get_json(url)
        except (BadStatus, Unreachable, NetworkError):
            return []
        finally:
            session.close()
        found = [str(m.get("id", "")) for m in answer if isinstance(m, Mapping)] if isinstance(answer, list) else []
        return [name for name in found if all(valid_repo_part(p) for p in name.split("/", 1)) and "/" in name]

    def explain(self, error: BadStatus, repo: str, revision: str = "", file: str = "") -> LlamacliError:
        """The Hub's refusal in words that say what to do."""
        if error.status in (401, 403) and "invalid credentials" in error.headers.get("x-error-message", "").lower():
            return NetworkError(
                f"{error.host} does not accept your token",
                "it may have expired: make a new one, then export HF_TOKEN=hf_…",
            )
        if error.code == "GatedRepo" or error.status == 403:
            return self.gated(repo)
        if error.code == "RevisionNotFound":
            return NotFound(f"{repo} has no revision {revision}", f"see {self.endpoint}/{repo}/refs")
        if error.status in (401, 404) and not file:
            return self._no_repo(repo)
        if error.status == 404:
            return NotFound(f"{repo} has no file {file}", f"llamacli download {repo} --list")
        if error.status == 401:
            return self.gated(repo)
        if error.status == 407:
            return NetworkError("the proxy wants a user name and a password", PROXY_HINT)
        return NetworkError(f"{repo}: {error}", "the server says no more; try again later, or another HF_ENDPOINT")

    def gated(self, repo: str) -> NetworkError:
        """The two steps to a gated repository."""
        second = "wait until its owner has let you in" if self.client.has_token else "export HF_TOKEN=hf_…"
        tool = shutil.which("hf", path=self.client.env.get("PATH", ""))
        other = "      (or: hf auth login)" if tool and not self.client.has_token else ""
        return NetworkError(
            f"{repo} is gated and you have no access yet",
            f"1  open {self.endpoint}/{repo} and accept the licence\n2  {second}{other}\n"
            "then run the same command again; nothing was downloaded",
        )

    def _no_repo(self, repo: str) -> NotFound:
        owner, _, name = repo.rpartition("/")
        words = re.split(r"[-_.]", name)[0] + " " + owner
        near = self._others(name, repo) or self._others(words, repo)
        hint = f"did you mean {', '.join(near)}?\n" if near else ""
        own = "your token gives no access to it" if self.client.has_token else "export HF_TOKEN=hf_… first"
        return NotFound(f"the Hub has no repository {repo}", f"{hint}if it is private: {own}")

    def _others(self, words: str, repo: str) -> list[str]:
        """What the Hub finds for `words`, beside `repo` itself."""
        return [name for name in self.search(words) if name != repo]

    def _json(self, url: str) -> Any:
        session = Session(self.client)
        try:
            return self.patience.call(lambda: session.get_json(url))
        finally:
            session.close()


def _repo(name: str, answer: Mapping[str, Any]) -> RemoteRepo:
    """The Hub's JSON as a value; files whose names could not be written safely are left out."""
    commit, now = str(answer["sha"]), str(answer.get("id", name))
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise ValueError("not a commit")
    files = [_file(entry) for entry in answer["siblings"] if safe_file(str(entry["rfilename"]))]
    card = answer.get("cardData")
    licence = str(card.get("license", "")) if isinstance(card, Mapping) else ""
    same = now.lower() == name.lower()
    return RemoteRepo(
        name=now if same else name,
        commit=commit,
        files=tuple(sorted(files, key=lambda f: f.name)),
        gated=bool(answer.get("gated")),
        licence=licence,
        moved_to="" if same else now,
    )


def _file(entry: Mapping[str, Any]) -> RemoteFile:
    lfs = entry.get("lfs")
    digest = lfs["sha256"] if isinstance(lfs, Mapping) else entry["blobId"]
    size = lfs.get("size", entry.get("size")) if isinstance(lfs, Mapping) else entry["size"]
    if not is_digest(digest) or type(size) is not int or size < 0:
        raise ValueError("not a digest or not a size")
    return RemoteFile(str(entry["rfilename"]), size, digest)


def check_twins(repo: str, files: tuple[RemoteFile, ...]) -> None:
    """Refuse names that would be one file on a disk that ignores case. Raises CorruptFile."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(file.name.casefold(), file.name)
        if other != file.name:
            raise CorruptFile(f"{repo} has {other} and {file.name}, which are one file on many disks")

"""A checkpoint on the Hub as a source of tensors: configuration and tokenizer in memory, shards as a stream."""

from __future__ import annotations

from pathlib import Path

from llamacli.errors import CorruptFile, NotFound
from llamacli.library.checkpoint_stream import CheckpointStream, Shard
from llamacli.library.http import Session
from llamacli.library.hub import Hub, RemoteFile, RemoteRepo
from llamacli.library.remote_bytes import RemoteBytes

MAX_TEXT_BYTES = 256 << 20
"""No configuration or tokenizer file is larger."""


class HubSource:
    """One commit of a repository, for `checkpoint.source.Source`. Nothing of it is written to this computer."""

    def __init__(self, hub: Hub, repo: RemoteRepo) -> None:
        self.hub, self.repo = hub, repo
        self.label, self.name = repo.name, repo.name.rpartition("/")[2]
        self._files = {file.name: file for file in repo.files}
        self._texts: dict[str, bytes] = {}
        self._stream = CheckpointStream(hub, repo)

    def files(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(sorted(name for name in self._files if "/" not in name))

    def within(self, folder: str) -> tuple[str, ...]:
        """See `Source`."""
        names = (name.partition("/") for name in self._files)
        return tuple(sorted(file for outer, _, file in names if outer == folder and file and "/" not in file))

    def read(self, name: str) -> bytes:
        """See `Source`; its digest is compared."""
        if name not in self._texts:
            file = self._file(name)
            if file.size > MAX_TEXT_BYTES:
                raise CorruptFile(f"{self.label}/{name} is larger than any file of its kind ({file.size:,} bytes)")
            session = Session(self.hub.client)
            try:
                self._texts[name] = RemoteBytes(self.hub, self.repo, file).whole(session)
            finally:
                session.close()
        return self._texts[name]

    def open(self, name: str) -> Shard:
        """See `Source`. Its header is read by ranges; its weights only once the stream begins."""
        return self._stream.open(self._file(name))

    def paths(self) -> tuple[Path, ...]:
        """See `Source`: there are none."""
        return ()

    def stream(self) -> CheckpointStream:
        """See `Source`."""
        return self._stream

    def _file(self, name: str) -> RemoteFile:
        if name not in self._files:
            raise NotFound(f"{self.label} has no file {name}")
        return self._files[name]

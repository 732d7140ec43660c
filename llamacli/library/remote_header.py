"""The header of a GGUF on the Hub as a sparse file here: in its full size, with nothing in it but the header.

The engine lays such a file out as it would the real one, so what a model needs is known before it is downloaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from llamacli.formats.gguf_reader import read_header
from llamacli.formats.sparse import write_sparse
from llamacli.library.http import Session
from llamacli.library.hub import Hub, RemoteFile, RemoteRepo
from llamacli.library.remote_bytes import RemoteBytes

FIRST = 1 << 20
"""Bytes of the first request; headers with a vocabulary have 1 to 16 MB."""


@contextmanager
def sparse_headers(hub: Hub, repo: RemoteRepo, files: Sequence[RemoteFile]) -> Iterator[Path]:
    """The path of the first of `files`, the parts of one model, while the context lasts; then it is gone.

    Raises CorruptFile for what is no GGUF, NetworkError.
    """
    session = Session(hub.client)
    try:
        with tempfile.TemporaryDirectory(prefix="llamacli-header-") as folder:
            paths = [Path(folder) / file.name.rpartition("/")[2] for file in files]
            for path, file in zip(paths, files, strict=True):
                front = _Front(RemoteBytes(hub, repo, file), session)
                read_header(Path(f"{repo.name}/{file.name}"), cast("BinaryIO", front), file.size, arrays="skip")
                write_sparse(path, front.data, file.size)
            yield paths[0]
    finally:
        session.close()


class _Front:
    """The front of a remote file, fetched as far as somebody reads."""

    def __init__(self, source: RemoteBytes, session: Session) -> None:
        self.source, self.session = source, session
        self.data = bytearray()
        self.position = 0

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the file's end."""
        stop = min(self.source.file.size, self.position + count)
        if stop > len(self.data):
            upto = min(self.source.file.size, max(stop, FIRST))
            self.data += self.source.read(self.session, len(self.data), upto)
        found = bytes(self.data[self.position : stop])
        self.position = stop
        return found

"""The importance matrix: how much an error in each column of each tensor matters to a model's answers.

For every matrix that activations pass through it holds the sum of their squares, column by column, and over how many
tokens they were summed. A stack of experts has a sum and a count for each, because each sees tokens of its own.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import CorruptFile, UsageError
from llamacli.formats.gguf_values import Value, string, u32
from llamacli.quantize.roles import TOKEN_EMBEDDINGS, Shape

DEFAULT_CHUNK_SIZE = 512
"""Tokens in a chunk where nobody says otherwise: llama-imatrix's own default."""


@dataclass(frozen=True, eq=False)
class Entry:
    """What is known of one tensor.

    `sums`: float32, sums of squared activations, all matrices of the tensor one after another. `counts`: int64, how
    many tokens went into them; one number for each matrix, or one for all of them.
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]

    def mean_squares(self, start: int, stop: int) -> NDArray[np.float32]:
        """The mean squares of the columns [start, stop) of `sums`: float32, ones where no token was seen."""
        per_count = self.sums.size // self.counts.size
        count = self.counts[start // per_count]
        if count <= 0:
            return np.ones(stop - start, np.float32)
        means: NDArray[np.float32] = self.sums[start:stop] / np.float32(count)
        return means


@dataclass(frozen=True, eq=False)
class ImportanceMatrix:
    """An importance matrix as it was gathered, by the GGUF names of its tensors.

    `counts` are tokens and `chunk_size` is how many make a chunk; a matrix from an old file counts chunks and has a
    `chunk_size` of 0. `origin` is the file's name, as a quantized model will cite it.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk_size: int = 0
    origin: str = ""

    def only(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> ImportanceMatrix:
        """The entries whose names contain one of `include`, or none of `exclude`; never both kinds at once."""
        if include and exclude:
            raise UsageError("--include-weights and --exclude-weights contradict each other", "use one of them")
        for part in (*include, *exclude):
            if not any(part in name for name in self.entries):
                raise UsageError(f"the importance matrix has no entry with {part!r} in its name", _names_hint(self))
        kept = {
            name: entry
            for name, entry in self.entries.items()
            if (not include or any(part in name for part in include)) and not any(part in name for part in exclude)
        }
        return replace(self, entries=kept)

    def renamed(self, names: Mapping[str, str | None]) -> ImportanceMatrix:
        """The same under other names, as `prune_layers` gives them; an entry whose tensor is gone goes too."""
        moved = {names.get(name, name): entry for name, entry in self.entries.items()}
        return replace(self, entries={name: entry for name, entry in moved.items() if name is not None})

    def fit(self, tensors: Iterable[Shape]) -> Importance:
        """The weights for these tensors.

        Raises UsageError where an entry has another size than its tensor: the matrix was made for another model. (For
        token embeddings it is ignored, as llama-quantize does.) Raises it too where no entry names any tensor.
        """
        columns: dict[str, int] = {}
        for tensor in tensors:
            entry = self.entries.get(tensor.name)
            if entry is None:
                continue
            matrices = tensor.shape[2] if len(tensor.shape) > 2 else 1
            weights = tensor.columns * matrices
            if entry.sums.size == weights and entry.counts.size in (1, matrices):
                columns[tensor.name] = tensor.columns
            elif tensor.name not in TOKEN_EMBEDDINGS:
                raise UsageError(
                    f"the importance matrix has {entry.sums.size:,} values for {tensor.name}, which needs {weights:,}",
                    "it was made for another model; make one for this model with llamacli imatrix",
                )
        if self.entries and not columns:
            raise UsageError("the importance matrix names no tensor of this model", _names_hint(self))
        return Importance(self, columns)


@dataclass(frozen=True, eq=False)
class Importance:
    """An importance matrix that fits a model: what the kernels ask for."""

    matrix: ImportanceMatrix
    columns: Mapping[str, int] = field(default_factory=dict)

    @property
    def known(self) -> Container[str]:
        """The names of the tensors that something is known about."""
        return self.columns.keys()

    def weights_for(self, name: str, expert: int = 0) -> NDArray[np.float32] | None:
        """One weight for each column of a tensor's matrix number `expert`: float32; None if nothing is known."""
        columns = self.columns.get(name)
        if columns is None:
            return None
        return self.matrix.entries[name].mean_squares(expert * columns, (expert + 1) * columns)

    def metadata(self) -> dict[str, Value]:
        """The keys by which llama-quantize says which matrix it used."""
        matrix = self.matrix
        metadata = {"quantize.imatrix.file": string(matrix.origin)} if matrix.origin else {}
        if matrix.datasets:
            metadata["quantize.imatrix.dataset"] = string(matrix.datasets[0])
        metadata["quantize.imatrix.entries_count"] = u32(len(matrix.entries))
        if matrix.chunks > 0:
            metadata["quantize.imatrix.chunks_count"] = u32(matrix.chunks)
        return metadata


def combine(matrices: Sequence[ImportanceMatrix]) -> ImportanceMatrix:
    """One matrix of all that went into these, as if their texts had been read one after another.

    Old files count chunks: their chunks are taken to be as long as the others', or llama-imatrix's default. Raises
    UsageError where two have entries of different sizes for one tensor.
    """
    chunk_size = next((matrix.chunk_size for matrix in matrices if matrix.chunk_size), DEFAULT_CHUNK_SIZE)
    total: dict[str, Entry] = {}
    for matrix in matrices:
        in_chunks = 1 if matrix.chunk_size else chunk_size
        for name, entry in matrix.entries.items():
            in_tokens = Entry(entry.sums * np.float32(in_chunks), entry.counts * in_chunks)
            total[name] = _added(name, total[name], in_tokens) if name in total else in_tokens
    most = max((int(entry.counts.max()) for entry in total.values()), default=0)
    datasets = tuple(dataset for matrix in matrices for dataset in matrix.datasets)
    return ImportanceMatrix(total, datasets, most // chunk_size, chunk_size)


def _added(name: str, first: Entry, second: Entry) -> Entry:
    counts = sorted({first.counts.size, second.counts.size})
    if first.sums.size != second.sums.size or (len(counts) > 1 and counts[0] != 1):
        raise UsageError(
            f"the importance matrices have {first.sums.size:,} and {second.sums.size:,} values for {name}",
            "only matrices of the same model can be combined",
        )
    return Entry(first.sums + second.sums, first.counts + second.counts)


def checked_entry(name: str, sums: NDArray[np.float32], counts: NDArray[np.int64], where: str) -> Entry:
    """An entry of a file named `where`; raises CorruptFile for values that no activations can give."""
    if not counts.size or not sums.size or sums.size % counts.size:
        raise CorruptFile(f"{where}: {sums.size:,} values and {counts.size:,} counts for {name}", _MAKE_AGAIN)
    if not np.isfinite(sums).all() or sums.min() < 0 or counts.min() < 0:
        raise CorruptFile(f"{where}: negative or infinite values for {name}", _MAKE_AGAIN)
    return Entry(sums, counts)


_MAKE_AGAIN = "the file is damaged; make the importance matrix again"


def _names_hint(matrix: ImportanceMatrix) -> str:
    some = ", ".join(sorted(matrix.entries)[:3])
    return f"its entries are named like {some}" if some else "it has no entries"

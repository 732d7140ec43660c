"""Carry plans out: every tensor is read once, in row blocks, quantized on all cores and written at its planned offset.

Each worker reads a block, quantizes it for every output and writes it; reading, computing and writing of different blocks
overlap because all three release the interpreter's lock. Memory is one block per worker, whatever the model's size.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import CannotWrite, CorruptFile
from llamacli.formats.atomic import AtomicFile, atomic_file, check_target, free_space_check, resumable_file
from llamacli.formats.extents import extents
from llamacli.formats.file_access import Extent, LocalFile, Stream
from llamacli.formats.gguf_reader import read_part
from llamacli.formats.rows import Arena, row_count, together
from llamacli.formats.tensor_types import MXFP4
from llamacli.progress import Progress, Silent
from llamacli.quantize.importance import Importance
from llamacli.quantize.kernels import Kernel, first_nonfinite
from llamacli.quantize.model import Model
from llamacli.quantize.plan import Plan, PlannedTensor
from llamacli.quantize.resuming import Journal, allocated, fingerprint, sweep, unfinished

if TYPE_CHECKING:
    from llamacli.quantize.thorough import Thorough

BLOCK_WEIGHTS = 1 << 20
"""Weights that a worker handles at a time: 2 MiB of bf16, small enough for its caches and large enough for the disk."""


@dataclass(frozen=True)
class Output:
    """A plan and the file it goes to."""

    plan: Plan
    target: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file, or the parts."""
        return self.plan.paths(self.target)


@dataclass(frozen=True)
class _Slot:
    """Where one tensor's rows go in one output."""

    tensor: PlannedTensor
    file: AtomicFile
    offset: int
    importance: Importance | None
    thorough: Thorough | None = None


@dataclass(frozen=True)
class _Block:
    """Rows [start, stop) of one tensor, for all outputs; `expert` counts matrices in a stack, `number` blocks."""

    slots: tuple[_Slot, ...]
    start: int
    stop: int
    expert: int
    number: int = 0

    @property
    def source_bytes(self) -> int:
        """Bytes that are read for it."""
        tensor = self.slots[0].tensor
        return (self.stop - self.start) * tensor.source_bytes // max(1, row_count(tensor.shape))


def check_outputs(model: Model, outputs: Sequence[Output], *, force: bool) -> None:
    """Refuse before anything is read: an output that exists, is an input, or is too large for the disk."""
    for output in outputs:
        for path in output.paths:
            check_target(path, force=force, inputs=model.inputs)
    folders = {output.target.parent for output in outputs}
    for folder in folders:
        here = [output for output in outputs if output.target.parent == folder]
        begun = sum(allocated(path) for output in here for path in output.paths) if model.stream else 0
        free_space_check(folder, max(0, sum(output.plan.size_bytes for output in here) - begun))


def quantize(
    model: Model,
    outputs: Sequence[Output],
    kernel: Kernel,
    *,
    threads: int = 0,
    progress: Progress | None = None,
    force: bool = False,
) -> list[Path]:
    """Write all outputs in one reading of the model and return their paths.

    Progress counts bytes of the source. Raises CannotWrite, CorruptFile (a NaN or infinite weight, named); whatever
    happens, no file appears under a final name before all of it is written and checked. A model that streams past is
    gone on with where an earlier run of the same plan stopped, and its files' hashes are compared first.
    """
    check_outputs(model, outputs, force=force)
    threads, progress = threads or os.cpu_count() or 1, progress or Silent()
    if model.stream is not None:
        _quantize_stream(model, model.stream, outputs, kernel, threads, progress, force=force)
    else:
        with contextlib.ExitStack() as stack:
            slots = _slots(
                model, outputs, lambda p, _: stack.enter_context(atomic_file(p, force=force, inputs=model.inputs))
            )
            _work(_blocks(slots), kernel, threads, progress)
            _check_unchanged(model)
    return [path for output in outputs for path in output.paths]


def _check_unchanged(model: Model) -> None:
    """Raises CorruptFile for a file of this computer that was written to while we read it."""
    read = (file for rows in model.tensors.values() for file, _, _ in extents(rows, 0, row_count(rows.shape)))
    for file in {id(file): file for file in read if isinstance(file, LocalFile)}.values():
        file.check_unchanged()


def _slots(
    model: Model, outputs: Sequence[Output], opened: Callable[[Path, int], AtomicFile]
) -> list[tuple[_Slot, ...]]:
    """Every tensor with its places in all outputs, whose files `opened` gives; their headers are written."""
    slots: dict[str, list[_Slot]] = {name: [] for name in model.tensors}
    search = _thorough(outputs)
    for output in reversed(outputs):  # files are finished in reverse: the first output, and its first part, last
        for path, part, layout in reversed(
            list(zip(output.paths, output.plan.parts, output.plan.layouts, strict=True))
        ):
            file = opened(path, layout.size_bytes)
            file.file.truncate(layout.size_bytes)
            _write(file, 0, layout.header)
            file.verify = _verifier(part)
            for tensor in part:
                improves = search is not None and search.improves(tensor.name, tensor.type)
                offset, importance = layout.offsets[tensor.name], output.plan.importance
                slots[tensor.source].append(_Slot(tensor, file, offset, importance, search if improves else None))
    return [tuple(found) for found in slots.values() if found]


def _thorough(outputs: Sequence[Output]) -> Thorough | None:
    """The thorough search, where it is asked for: for all outputs of a run, which have the same activations."""
    covariance = outputs[0].plan.covariance if outputs else None
    if covariance is None:
        return None
    from llamacli.quantize.thorough import Thorough

    return Thorough(covariance)


def _quantize_stream(
    model: Model,
    stream: Stream,
    outputs: Sequence[Output],
    kernel: Kernel,
    threads: int,
    progress: Progress,
    *,
    force: bool,
) -> None:
    """As for files here, but in the order in which the bytes pass, with a journal, and only what is not done yet."""
    mark = fingerprint(stream, [output.plan for output in outputs], kernel.name)
    paths = [path for output in outputs for path in output.paths]
    for path in paths:
        sweep(path, mark)
    parts = {path: unfinished(path, mark) for path in paths}
    journal = Journal.of(paths[0], mark, fresh=not all(part.is_file() for part in parts.values()))
    try:
        with contextlib.ExitStack() as stack:

            def opened(path: Path, size: int) -> AtomicFile:
                target = check_target(path, force=force, inputs=model.inputs)
                file = stack.enter_context(resumable_file(target, parts[path], size, force=force))
                journal.files.append(file)
                return file

            _carry_stream(
                _in_order(_blocks(_slots(model, outputs, opened))), stream, journal, kernel, threads, progress
            )
    except CorruptFile:
        for leftover in (*parts.values(), journal.path):
            leftover.unlink(missing_ok=True)
        raise
    journal.remove()


def _carry_stream(
    ordered: Sequence[tuple[_Block, list[Extent]]],
    stream: Stream,
    journal: Journal,
    kernel: Kernel,
    threads: int,
    progress: Progress,
) -> None:
    todo = [replace(block, number=number) for number, (block, _) in enumerate(ordered) if number not in journal.done]
    progress.advance(sum(block.source_bytes for block, _ in ordered) - sum(block.source_bytes for block in todo))
    stream.begin([needed for _, needed in ordered], journal.done, journal.stream)

    def carried(block: _Block) -> None:
        journal.add(block.number)
        stream.release(block.number)

    try:
        _work(iter(todo), kernel, threads, progress, carried, lambda: journal.save(stream), stream.stop)
        stream.finish()
    except CorruptFile:
        raise
    except BaseException:
        with contextlib.suppress(CannotWrite, OSError):
            journal.save(stream, now=True)
        raise
    finally:
        stream.stop()


def _in_order(blocks: Iterator[_Block]) -> list[tuple[_Block, list[Extent]]]:
    """Blocks and the bytes they need, in the order in which the files hold them; what was computed comes first."""
    files: dict[int, int] = {}
    found: list[tuple[int, int, _Block, list[Extent]]] = []
    for block in blocks:
        needed = extents(block.slots[0].tensor.rows, block.start, block.stop)
        first = needed[0] if needed else None
        rank = files.setdefault(id(first[0]), len(files)) if first else -1
        found.append((rank, first[1] if first else 0, block, needed))
    found.sort(key=lambda item: item[:2])
    return [(block, needed) for _, _, block, needed in found]


def _blocks(tensors: Sequence[tuple[_Slot, ...]]) -> Iterator[_Block]:
    """Row blocks in file order; a block never spans two matrices of a stack, nor half a group of reordered rows."""
    for slots in tensors:
        rows = slots[0].tensor.rows
        columns = rows.shape[-1]
        matrix = rows.shape[-2] if len(rows.shape) > 1 else 1
        group = together(rows)
        step = max(1, BLOCK_WEIGHTS // max(columns, 1) // group) * group
        for expert in range(row_count(rows.shape) // matrix if matrix else 0):
            for start in range(0, matrix, step):
                first = expert * matrix
                yield _Block(slots, first + start, first + min(start + step, matrix), expert)


def _work(
    blocks: Iterator[_Block],
    kernel: Kernel,
    threads: int,
    progress: Progress,
    carried: Callable[[_Block], None] = lambda block: None,
    now_and_then: Callable[[], None] = lambda: None,
    stop: Callable[[], None] = lambda: None,
) -> None:
    """All blocks through `threads` workers. The first error, or Ctrl-C, stops them all and is raised here.

    `carried` hears of every block that is written; `now_and_then` is called while we wait; `stop`, when it goes wrong,
    wakes workers that wait for bytes.
    """
    lock = threading.Lock()
    stopped = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        worker = _Worker(kernel)
        while not stopped.is_set():
            with lock:
                block = next(blocks, None)
            if block is None:
                return
            try:
                worker.carry(block)
                carried(block)
            except BaseException as error:
                errors.append(error)
                stopped.set()
                return
            tensor = block.slots[0].tensor
            with lock:
                progress.describe(tensor.name)
                progress.advance(block.source_bytes)

    workers = [threading.Thread(target=work, name=f"quantize-{n}", daemon=True) for n in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.2)
                now_and_then()
                if errors:
                    stop()
    except BaseException:
        stop()
        raise
    finally:
        stopped.set()
        for worker in workers:
            if worker.ident is not None:  # Ctrl-C may come before all have started
                worker.join()
    if errors:
        raise errors[0]


class _Worker:
    """What one thread needs for its blocks, used again and again."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.arena = Arena()

    def carry(self, block: _Block) -> None:
        """Read, check, quantize and write one block."""
        self.arena.reset()
        tensor = block.slots[0].tensor
        rows = np.ascontiguousarray(tensor.rows.read(block.start, block.stop, self.arena))
        if rows.dtype == np.uint8:
            self._copy(block, rows)
            return
        if (bad := first_nonfinite(rows)) is not None:
            index = block.start * tensor.shape[-1] + bad
            raise CorruptFile(
                f"tensor {tensor.name} has a value that is not finite, at index {index:,}",
                "the checkpoint is damaged or was trained to overflow; it cannot be quantized",
            )
        for slot in block.slots:
            wanted = slot.tensor
            out = self.arena.empty(((block.stop - block.start) * wanted.row_bytes,), np.uint8)
            weights = slot.importance.weights_for(wanted.name, block.expert) if slot.importance else None
            self.kernel.quantize(wanted.type, rows, out, weights)
            if slot.thorough is not None:
                slot.thorough.improve(wanted.name, wanted.type, rows, out)
            _write(slot.file, slot.offset + block.start * wanted.row_bytes, out.data)

    def _copy(self, block: _Block, rows: NDArray[np.uint8]) -> None:
        """Write blocks that the checkpoint has in the type of the file, after a look at their scales."""
        tensor = block.slots[0].tensor
        if tensor.type is MXFP4 and (rows.reshape(-1, MXFP4.block_bytes)[:, 0] == 255).any():
            raise CorruptFile(f"tensor {tensor.name} has a scale that is not a number", "the checkpoint is damaged")
        for slot in block.slots:
            _write(slot.file, slot.offset + block.start * tensor.row_bytes, rows.data.cast("B"))


_WRITING = threading.Lock()


def _write(target: AtomicFile, offset: int, data: bytes | memoryview) -> None:
    """All of `data` at `offset`, from any thread."""
    view = memoryview(data)
    if hasattr(os, "pwrite"):
        descriptor = target.file.fileno()
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
        return
    with _WRITING:
        target.file.seek(offset)
        target.file.write(view)


def _verifier(part: Sequence[PlannedTensor]) -> Callable[[Path], None]:
    """A check that reads a finished file back with the strict reader and compares its table with the plan."""

    def verify(path: Path) -> None:
        written = read_part(path, arrays="skip")
        found = [(tensor.name, tuple(reversed(tensor.shape)), tensor.type) for tensor in written.tensors]
        if found != [(tensor.name, tensor.shape, tensor.type) for tensor in part]:
            raise CorruptFile(f"{path} does not read back as it was planned", "the disk or its driver may be failing")

    return verify

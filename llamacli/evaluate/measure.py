"""Models side by side through the same windows of a text: losses, and divergences from a source.

As llama-perplexity does it, each window's first half is context only and the predictions in its second half count.
Source and models take turns on every stretch of logits, so none is ever stored, whatever the vocabulary's size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import EngineError, UsageError
from llamacli.evaluate.divergence import Ids, Logits, differences, losses
from llamacli.evaluate.figures import Quality, quality
from llamacli.evaluate.partial import Partial, Samples
from llamacli.evaluate.windows import CutText, groups
from llamacli.progress import Progress, Silent
from llamacli.runtime.interrupts import Held
from llamacli.runtime.llama import LlamaEngine
from llamacli.runtime.windows import Stretch, Windows


def measure(
    models: Mapping[str, LlamaEngine],
    text: CutText,
    source: LlamaEngine | None = None,
    *,
    progress: Progress | None = None,
    partial: Partial | None = None,
) -> dict[str, Quality]:
    """The quality of each model on `text`; with a `source`, also how far each is from it.

    Progress counts windows. `partial` goes on where an earlier measurement of the same stopped, and keeps what is
    measured. Raises UsageError for models with other vocabularies than the first's, EngineError where one fails or
    computes NaN.
    """
    engines = ([source] if source else []) + list(models.values())
    _check_vocabularies(engines)
    kept = partial or Partial()
    progress = progress or Silent()
    progress.advance(kept.windows)
    sequences = max(1, min(engines[0].settings.batch // text.size, len(text)))
    with contextlib.ExitStack() as stack:
        contexts = [stack.enter_context(Windows(engine, text.size, sequences=sequences)) for engine in engines]
        stack.callback(kept.save)
        for group in groups(len(text), sequences, kept.windows):
            found = _group(contexts, list(models), text, group, compared=source is not None)
            with Held():  # nothing is counted by halves
                kept.add(len(group), found)
            progress.advance(len(group))
    return {name: quality(kept.samples(name)) for name in models}


def _check_vocabularies(engines: Sequence[LlamaEngine]) -> None:
    for engine in engines[1:]:
        if engine.vocab.size != engines[0].vocab.size:
            raise UsageError(
                f"{engine.path.name} has {engine.vocab.size:,} tokens and {engines[0].path.name} "
                f"{engines[0].vocab.size:,}: they cannot be compared",
                "name the model that the others were quantized from with --against",
            )


def _group(
    contexts: Sequence[Windows], names: Sequence[str], text: CutText, group: range, *, compared: bool
) -> dict[str, Samples]:
    """What is measured on one group of windows, window by window, for each model."""
    windows = [text.window(number) for number in group]
    size, first = text.size, text.size // 2
    rows = [context.evaluate(windows, first) for context in contexts]
    parts: dict[str, list[dict[str, NDArray[np.float32]]]] = {name: [] for name in names}
    following = np.array(text.tokens[group.start * size : group.stop * size], np.int64).reshape(-1, size)
    for stretches in zip(*rows, strict=True):
        start, stop = stretches[0].start, min(stretches[0].stop, size - 1)  # nothing follows the last token
        if start >= stop:
            break
        ids = following[:, start + 1 : stop + 1]
        views = [_view(stretch, context, len(group)) for stretch, context in zip(stretches, contexts, strict=True)]
        for index, name in enumerate(names):
            base = views[0] if compared else None
            found = _compared(base, views[index + compared], ids)
            _check_numbers(found, contexts[0], contexts[index + compared])
            parts[name].append(found)
    return {name: {kind: _joined(parts[name], kind) for kind in parts[name][0]} for name in names}


def _view(stretch: Stretch, context: Windows, windows: int) -> Logits:
    """The engine's logits in place: (windows, positions, vocabulary)."""
    shape = (windows, stretch.stop - stretch.start, context.engine.vocab.size)
    view: Logits = np.ctypeslib.as_array(stretch.logits, shape)
    return view


def _compared(base: Logits | None, other: Logits, ids: Ids) -> dict[str, NDArray[np.float32]]:
    """Arrays (windows, positions) of what is measured."""
    shape, flat = ids.shape, ids.reshape(-1)
    own = _flat(other, ids.shape[1])
    source = None if base is None else _flat(base, ids.shape[1])
    found = {"loss": losses(own, flat)} if source is None else vars(differences(source, own, flat))
    return {name: values.astype(np.float32).reshape(shape) for name, values in found.items()}


def _check_numbers(found: Mapping[str, NDArray[np.float32]], source: Windows, model: Windows) -> None:
    """Raise EngineError if one of the two computes nothing meaningful."""
    for kind, context in (("base_loss", source), ("loss", model)):
        if kind in found and not np.isfinite(found[kind]).all():
            name = context.engine.path.name
            raise EngineError(
                f"{name} computes NaN instead of probabilities", f"its weights are damaged; see llamacli verify {name}"
            )


def _flat(logits: Logits, positions: int) -> Logits:
    return logits[:, :positions].reshape(-1, logits.shape[-1])


def _joined(parts: Sequence[Mapping[str, NDArray[np.float32]]], kind: str) -> NDArray[np.float32]:
    """All positions of a window one after another, window by window."""
    return np.concatenate([part[kind] for part in parts], axis=1).reshape(-1)


def fitting_groups(sizes: Mapping[str, int], source_bytes: int, available: int) -> Iterator[list[str]]:
    """Which models to hold in memory at once beside the source, in their order; each at least with itself."""
    group: list[str] = []
    used = source_bytes
    for name, size in sizes.items():
        if group and used + size > available:
            yield group
            group, used = [], source_bytes
        group.append(name)
        used += size
    if group:
        yield group

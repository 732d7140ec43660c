"""Drafts taken from the text itself: what followed the last few tokens before is likely to follow them again.

A draft costs nothing to make. It is evaluated together with the token that it follows, in one batch, and the sampler
chain then chooses at every place exactly as it would have without it: a token that was drafted is already evaluated,
the first that was not ends the draft. So the answer is the same for any sampling. Whether a batch is worth it depends
on the machine, and is measured there: two processor cores take as long for eight tokens together as one by one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamacli.formats.durable import write_whole
from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime import bindings
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.engine_context import ROWS
from llamacli.runtime.evaluator import Evaluator

SIZES = (2, 4, ROWS)
"""Tokens in a batch: the one that was chosen and a draft behind it."""

ALIKE = 3
"""So many last tokens must have stood together before."""

LOOK_BACK = 16_384
"""Tokens of a prompt in which they are looked for."""

GAIN = 1.1
"""How many times as fast a batch must be, by what is expected of it, to be evaluated."""

SHARE = 0.5
"""Of the guesses so far, how many must have been right for the machine to be measured at all."""

ENOUGH = 24
"""Guesses that say something about a text."""

_MEMORY = 0.9
"""What counts of all guesses before the last one."""

_TRIALS = 3
_VERSION = 1

TRUSTED = 86400.0
"""Seconds for which a measurement holds that speaks against drafts; one that speaks for them holds for good."""


class Lookup:
    """A text as it grows, and what its last tokens were followed by the last time that they stood together."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}
        self._found: int | None = None
        self.right = SHARE
        """How many guesses are right, of late more than long ago."""
        self.guesses = 0
        for token in tokens[-LOOK_BACK:]:
            self._put(token)

    def add(self, token: int) -> None:
        """The text goes on with `token`."""
        if self._found is not None:
            self.guesses += 1
            self.right = _MEMORY * self.right + (1 - _MEMORY) * (self._tokens[self._found] == token)
        self._put(token)

    def _put(self, token: int) -> None:
        self._tokens.append(token)
        last = tuple(self._tokens[-ALIKE:])
        self._found = self._places.get(last)
        self._places[last] = len(self._tokens)

    def guess(self, count: int) -> list[int]:
        """Up to `count` tokens that may come next."""
        return self._tokens[self._found : self._found + count] if self._found is not None else []


class Costs:
    """What a batch of some tokens takes, in units of what one token takes; kept in a file for each model and setting.

    Decisions are made from what the file says, not from the time that the last batch took, so that the same question
    is computed in the same way every time.
    """

    def __init__(self, path: Path | None, key: str = "") -> None:
        self._path, self._key = path, key
        self.of_batches, measured = _read(path).get(key, ({}, 0.0)) if path is not None else ({}, 0.0)
        if self.hopeless and not 0 <= time.time() - measured < TRUSTED:
            self.of_batches = {}  # the machine may have been busy then; it is measured once more

    @classmethod
    def of_model(cls, path: Path, gguf: GGUF, settings: EngineSettings, threads: tuple[int, int]) -> Costs:
        """The costs of a model on this machine as it is set up; none if they were never measured."""
        s = settings
        how = (
            s.gpu_layers,
            s.cpu_moe,
            s.devices,
            s.flash_attn,
            s.cache_type_k,
            s.cache_type_v,
            s.loras,
            threads,
            _VERSION,
        )
        file = "".join(f"{part.stat().st_size} {part.stat().st_mtime_ns}" for part in gguf.paths)
        text = repr((str(gguf.path.absolute()), file, bindings.build(), how))
        return cls(path, hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32])

    @property
    def known(self) -> bool:
        """Whether the machine has been measured."""
        return bool(self.of_batches)

    @property
    def hopeless(self) -> bool:
        """Whether no draft can pay, however good."""
        return self.known and all(size / cost < GAIN for size, cost in self.of_batches.items())

    def best_size(self, right: float) -> int:
        """The size of batch that promises most if `right` of all guesses are right; 1 where none is worth it."""
        best, most = 1, GAIN
        for size, cost in self.of_batches.items():
            expected = sum(right**place for place in range(size))
            if expected / cost > most:
                best, most = size, expected / cost
        return best

    def measure(self, evaluator: Evaluator, token: int) -> None:
        """Find them out, and keep them. Takes as long as a dozen tokens; the cache is as before afterwards."""
        if len(evaluator.cells) + SIZES[-1] > evaluator.size:
            return
        for size in (4, 2, 8):
            _timed(evaluator, [token] * size)  # the first of a size makes room for its logits
            # In turn, because whatever else the machine does comes and goes.
            pairs = [(_timed(evaluator, [token]), _timed(evaluator, [token] * size)) for _ in range(_TRIALS)]
            singles, batches = zip(*pairs, strict=True)
            self.of_batches[size] = min(batches) / min(singles)
            if self.of_batches[4] > 4 / GAIN:
                break
        self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        kept = {**_read(self._path), self._key: (self.of_batches, time.time())}
        content = {
            "version": _VERSION,
            "costs": {key: costs for key, (costs, _) in kept.items()},
            "measured": {key: when for key, (_, when) in kept.items()},
        }
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(content))


def _timed(evaluator: Evaluator, tokens: list[int]) -> float:
    length = len(evaluator.cells)
    started = time.perf_counter()
    evaluator.step_all(tokens)
    seconds = time.perf_counter() - started
    evaluator.cut(length)
    return seconds


def _read(path: Path) -> dict[str, tuple[dict[int, float], float]]:
    """What is kept: costs, and when they were measured, in seconds since 1970."""
    try:
        content: Any = json.loads(path.read_bytes())
        found: Mapping[str, Mapping[str, float]] = content["costs"] if content["version"] == _VERSION else {}
        times = content.get("measured", {})
        return {
            key: (
                {int(size): float(cost) for size, cost in costs.items() if float(cost) > 0 and int(size) in SIZES},
                float(times.get(key, 0)),
            )
            for key, costs in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class Drafts:
    """How one engine drafts: `always`, or where `costs` say that it pays."""

    def __init__(self, costs: Costs, *, always: bool = False) -> None:
        self.costs, self.always = costs, always
        self.accepted = self.drafted = 0
        """Tokens since the engine was opened."""
        self._lookup: Lookup | None = None

    def steps(self, evaluator: Evaluator, tokens: Sequence[int]) -> DraftedSteps | None:
        """For an answer to `tokens`; None where drafts cannot pay or the model could not take one back."""
        self._lookup = None
        if not evaluator.drops_tail or (self.costs.hopeless and not self.always):
            return None
        self._lookup = Lookup(tokens)
        return DraftedSteps(self, self._lookup, evaluator)

    def size(self, lookup: Lookup) -> int:
        """How many tokens to evaluate together now."""
        if self.always:
            return SIZES[-1]
        return self.costs.best_size(lookup.right) if self.costs.known else 1

    def learn(self, evaluator: Evaluator) -> None:
        """Measure this machine, once, if the last answer could have been drafted."""
        lookup = self._lookup
        if self.costs.known or self.always or lookup is None or not evaluator.cells:
            return
        if lookup.guesses >= ENOUGH and lookup.right >= SHARE:
            self.costs.measure(evaluator, evaluator.cells[-1])


class DraftedSteps:
    """Evaluates the tokens of an answer, and drafts of them."""

    def __init__(self, drafts: Drafts, lookup: Lookup, evaluator: Evaluator) -> None:
        self._drafts, self._lookup, self._evaluator = drafts, lookup, evaluator
        self._ahead: list[int] = []
        """What is evaluated but not chosen yet."""
        self._row = 0

    def advance(self, token: int) -> int:
        """Evaluate `token`, unless it is already; the row of the batch whose logits are for what follows it."""
        self._lookup.add(token)
        if self._ahead and self._ahead[0] == token:
            self._ahead.pop(0)
            self._drafts.accepted += 1
            self._row += 1
            return self._row
        self.drop()
        compute, self._row = self._evaluator, 0
        count = min(self._drafts.size(self._lookup), compute.size - len(compute.cells)) - 1
        draft = self._lookup.guess(count) if count > 0 else []
        if not draft or not compute.can_cut(len(compute.cells) + 1):
            return compute.step(token)
        compute.step_all([token, *draft])
        self._ahead = draft
        self._drafts.drafted += len(draft)
        return 0

    @property
    def full(self) -> bool:
        """Whether the context has no room for another token; what was only drafted takes none."""
        return not self._ahead and len(self._evaluator.cells) >= self._evaluator.size

    def drop(self) -> None:
        """Take what was drafted and not chosen out of the cache."""
        if self._ahead:
            self._evaluator.cut(len(self._evaluator.cells) - len(self._ahead))
            self._ahead = []

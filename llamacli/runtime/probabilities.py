"""How likely the chosen tokens were, from the logits; only for those who ask, because it costs a pass over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamacli.runtime.engine_context import ROWS

if TYPE_CHECKING:
    from llamacli.runtime.evaluator import Evaluator


@dataclass(frozen=True)
class TokenLikelihood:
    """Natural logarithms: of the chosen token's probability, and of the likeliest tokens' (id, logarithm), best first.

    They are the model's own, before temperature and every other sampler.
    """

    log_probability: float
    best: tuple[tuple[int, float], ...] = ()


class Likelihoods:
    """Looks tokens up in the logits of the last evaluation; `best` alternatives are listed for each."""

    def __init__(self, library: Any, vocabulary_size: int, best: int) -> None:
        import numpy  # it takes a tenth of a second to import, and few ask

        self._numpy, self._lib = numpy, library
        self._size, self._best = vocabulary_size, min(best, vocabulary_size)

    def of(self, context: Any, token: int, row: int = -1) -> TokenLikelihood:
        """How likely `token` was, given a row of the logits that stand in `context` (float32, one for each token)."""
        np = self._numpy
        logits = np.ctypeslib.as_array(self._lib.llama_get_logits_ith(context, row), (self._size,))
        highest = float(logits.max())
        total = highest + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))
        best: tuple[tuple[int, float], ...] = ()
        if self._best:
            top = np.argpartition(logits, -self._best)[-self._best :]
            order = top[np.argsort(-logits[top], kind="stable")]
            best = tuple((int(index), float(logits[index]) - total) for index in order)
        return TokenLikelihood(float(logits[token]) - total, best)


def shares_of(library: Any, compute: Evaluator, vocabulary_size: int, told: Sequence[int]) -> list[float]:
    """The probability of each token of an answer that stands at the end of the cache; nothing where it does not."""
    for evaluated in (len(told), len(told) - 1):  # perhaps nothing followed the last token
        start = len(compute.cells) - evaluated - 1
        if told and start >= 0 and compute.cells[start + 1 :] == told[:evaluated]:
            break
    else:
        return []
    steps = [compute.cells[start], *told[:-1]]
    if not compute.cut(start):
        return []
    likelihoods, out = Likelihoods(library, vocabulary_size, 0), []
    for place in range(0, len(steps), ROWS):
        compute.step_all(steps[place : place + ROWS])
        for row, token in enumerate(told[place : place + ROWS]):
            out.append(math.exp(likelihoods.of(compute.context, token, row).log_probability))
    return out

"""One answer: token after token is chosen, shown and evaluated. The loop that speed depends on."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llamacli.runtime.evaluator import Evaluator
from llamacli.runtime.messages import Piece, Sampling
from llamacli.runtime.sampler import Sampler
from llamacli.runtime.vocab import END, Vocab
from llamacli.runtime.writer import Writer

if TYPE_CHECKING:
    from llamacli.runtime.speculate import DraftedSteps


class Generation:
    """An answer to the prompt that `compute` has read; `longest` is the most tokens that its context may hold."""

    def __init__(
        self, library: Any, vocab: Vocab, compute: Evaluator, sampler: Sampler, writer: Writer, longest: int
    ) -> None:
        self._lib, self._vocab, self._compute = library, vocab, compute
        self._sampler, self._writer, self._longest = sampler, writer, longest

    def pieces(self, sampling: Sampling, drafted: DraftedSteps | None) -> Iterator[Piece]:
        """One for each token, with its likelihood if that was asked for. How it ended is the writer's to tell."""
        found = self._pieces(sampling.predict if sampling.predict >= 0 else sys.maxsize, drafted)
        return found if sampling.logprobs is None else self._likely(found, sampling.logprobs)

    def _likely(self, pieces: Iterator[Piece], best: int) -> Iterator[Piece]:
        """The pieces with the likelihood of their tokens, read before the next token is evaluated."""
        from llamacli.runtime.probabilities import Likelihoods

        likelihoods = Likelihoods(self._lib, self._vocab.size, best)
        for piece in pieces:
            assert piece.token is not None
            likelihood = likelihoods.of(self._compute.context, piece.token)
            yield replace(piece, probability=math.exp(likelihood.log_probability), likelihood=likelihood)

    def _pieces(self, limit: int, drafted: DraftedSteps | None) -> Iterator[Piece]:
        """Sample, show, evaluate."""
        compute, writer, grammar = self._compute, self._writer, self._sampler.grammar
        sample, chain, context = self._lib.llama_sampler_sample, self._sampler.chain, compute.context
        advance, steps, row, count = self._advance(drafted), drafted or compute, -1, 0
        try:
            while True:
                if compute.stopping:
                    writer.ended = "cancel"
                    return
                if count >= limit:
                    writer.ended = "length"
                    return
                token = sample(chain, context, row)
                if grammar is not None and not grammar.accept(token):
                    writer.ended = "grammar"
                    return
                text = writer.write(token)
                if text is END:
                    writer.ended = "stop"
                    return
                count += 1
                yield Piece(text, token=token)
                if writer.stopped:
                    writer.ended = "stop"
                    return
                if count < limit and not compute.stopping:
                    if steps.full:
                        if compute.size >= self._longest:
                            writer.ended = "length"
                            return
                        compute.grow(compute.size + 1, self._longest)
                        context = compute.context
                    row = advance(token)
        finally:
            if drafted is not None:
                drafted.drop()

    def _advance(self, drafted: DraftedSteps | None) -> Callable[[int], int]:
        """What evaluates a token and tells the row of its logits."""
        compute = self._compute
        step: Callable[[int], int] = compute.step_placed if compute.pictures else compute.step
        advance = drafted.advance if drafted else step
        return compute.pace.of(advance) if compute.pace.resting else advance

"""Many prompts with one loaded model: several sequences of one context, decoded in one batch.

Every sequence has cells of its own, so that a row is computed as it would be alone. A sequence keeps what its last
prompt shares with the next one, and an empty one copies it from another: what all prompts begin with is read once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llamacli.errors import ContextOverflow, LlamacliError
from llamacli.runtime import bindings
from llamacli.runtime.engine_context import whole_cells
from llamacli.runtime.evaluator import Evaluator, Stopped, common_length
from llamacli.runtime.jobs import Job, Larger, Outcome, Slot, cells_for
from llamacli.runtime.llama import LlamaEngine
from llamacli.runtime.messages import Finish
from llamacli.runtime.prompt_cuts import last_alone, until_cut
from llamacli.runtime.sampler import Sampler
from llamacli.runtime.sequences import sequences_that_fit
from llamacli.runtime.vocab import END
from llamacli.runtime.writer import Writer

WORTH_COPYING = 16
"""Shared tokens from which on they are copied from another sequence instead of being read again."""

FEW, LARGE = 4, 32_000
"""Answers, and tokens of a vocabulary, from which on several threads choose the next tokens."""


class Parallel:
    """Up to `slots` jobs at a time. With `exact` every prompt is read in the very steps that it has alone."""

    def __init__(
        self, engine: LlamaEngine, slots: int, *, visible: Container[int] = frozenset(), exact: bool = False
    ) -> None:
        self._engine, self._visible, self._exact = engine, visible, exact
        self._lib = bindings.load()
        self._wanted = slots
        self._slots: list[Slot] = []
        self._evaluator: Evaluator | None = None
        self._batch: Any = None
        self._waiting: list[Job] = []
        self._checked = False
        self._samplers: ThreadPoolExecutor | None = None
        self.stopping = False

    # -- the loop ----------------------------------------------------------------------------------------------

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """The outcome of every job, in the order in which they are done. Jobs are taken when there is room for them.

        A job's own fault is in its outcome; raises EngineError when the engine fails, and ends early after `stop`.
        """
        source = iter(jobs)
        try:
            while not self.stopping:
                outcomes, more = self._admit(source)
                yield from outcomes
                yield from self._read_rests()
                active = [slot for slot in self._slots if slot.job is not None]
                if active:
                    yield from self._step(active)
                elif not (more or outcomes or self._waiting):
                    return
        except Stopped:
            return

    def _admit(self, source: Iterator[Job]) -> tuple[list[Outcome], bool]:
        """Give jobs to idle slots; outcomes of those that ended at once, and whether there may be more jobs."""
        outcomes: list[Outcome] = []
        while not self.stopping:
            job = self._waiting.pop() if self._waiting else next(source, None)
            if job is None:
                return outcomes, False
            slot = self._place(job)
            if slot is None:
                return outcomes, True
            outcomes += self._begin(slot, job)
        return outcomes, False

    def _place(self, job: Job) -> Slot | None:
        """An idle slot with room for the job; None, and the job waits, if there is none now."""
        need = min(cells_for(job), self._engine.context_size)
        idle = [slot for slot in self._slots if slot.job is None]
        if self._evaluator is None or need > self._evaluator.size:
            if len(idle) < len(self._slots):
                self._waiting.append(job)
                return None
            self._open(need)
            idle = self._slots
        if not idle:
            self._waiting.append(job)
            return None
        return max(idle, key=lambda slot: common_length(slot.cells, job.tokens))

    def _open(self, need: int) -> None:
        """A context with `need` cells for each of as many sequences as memory has room for."""
        self.close()
        cells = whole_cells(need)
        count = sequences_that_fit(self._engine, self._wanted, cells)
        self._evaluator = self._engine.contexts(count)
        self._evaluator.grow(cells, whole_cells(self._engine.context_size))
        self._slots = [Slot(sequence) for sequence in range(count)]
        size = max(self._lib.llama_n_batch(self._evaluator.context), count)
        self._batch = self._lib.llama_batch_init(size, 0, 1)

    # -- one job -----------------------------------------------------------------------------------------------

    def _begin(self, slot: Slot, job: Job) -> list[Outcome]:
        """Read the prompt and choose the first token."""
        engine = self._engine
        if len(job.tokens) >= engine.context_size:
            error = ContextOverflow(
                f"the input is {len(job.tokens):,} tokens; the context holds {engine.context_size:,}",
                engine.room_hint(),
            )
            return [Outcome(job.number, error=error)]
        try:
            sampler = Sampler(self._lib, engine.vocab, job.sampling, self._compute.size)
        except LlamacliError as error:
            return [Outcome(job.number, error=error)]
        slot.job, slot.sampler, slot.texts, slot.told = job, sampler, [], []
        slot.writer = Writer(engine.vocab, job.sampling.stop, self._visible)
        self._keep(slot, job.tokens)
        slot.cached = len(slot.cells)
        sampler.see(list(job.tokens))
        rest = list(job.tokens[len(slot.cells) :])
        if slot.cells and not self._exact and len(rest) <= self._compute.step_size:
            slot.unread = rest  # what others share stands in the cache: the rests are read together
            return []
        self._read(slot, rest)
        if not self._checked:
            self._compute.check_logits(engine.vocab.size)
            self._checked = True
        return list(self._choose([(slot, -1)]))

    def _keep(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Cut the slot's cells back to what they share with `tokens`, or take over another's that share more."""
        memory_ = self._lib.llama_get_memory(self._compute.context)
        own, donor = self._shared(slot, tokens), slot
        if self._compute.drops_tail:
            for other in self._slots:
                if (shared := self._shared(other, tokens)) >= own + WORTH_COPYING:
                    own, donor = shared, other
        if donor is not slot:
            self._lib.llama_memory_seq_rm(memory_, slot.sequence, -1, -1)
            self._lib.llama_memory_seq_cp(memory_, donor.sequence, slot.sequence, -1, -1)
            slot.cells = list(donor.cells)
        if own < len(slot.cells) and not self._lib.llama_memory_seq_rm(memory_, slot.sequence, own, -1):
            self._lib.llama_memory_seq_rm(memory_, slot.sequence, -1, -1)
            own = 0
        del slot.cells[own:]

    def _shared(self, slot: Slot, tokens: Sequence[int]) -> int:
        shared = min(common_length(slot.cells, tokens), len(tokens) - 1)
        return shared // self._compute.step_size * self._compute.step_size if self._exact else shared

    def _read(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Evaluate a stretch of prompt, in steps that end at the same places as when it is alone."""
        step, done, batch = self._compute.step_size, 0, self._lib.llama_n_batch(self._compute.context)
        while done < len(tokens):
            at = len(slot.cells)
            count = min(until_cut(at, step, batch), len(tokens) - done)
            if self._exact and done + count == len(tokens) and count > 1 and last_alone(at + count):
                count -= 1
            for index, token in enumerate(tokens[done : done + count]):
                self._put(index, token, at + index, slot.sequence, last=done + index + 1 == len(tokens))
            self._decode(count)
            slot.cells += tokens[done : done + count]
            done += count

    def _read_rests(self) -> Iterator[Outcome]:
        """What is unread of prompts that begin alike, as many in a batch as it holds."""
        waiting = [slot for slot in self._slots if slot.unread]
        most = self._lib.llama_n_batch(self._compute.context) if waiting else 0
        while waiting:
            together: list[Slot] = []
            while waiting and sum(len(slot.unread) for slot in (*together, waiting[0])) <= most:
                together.append(waiting.pop(0))
            index, rows = 0, []
            for slot in together:
                for place, token in enumerate(slot.unread, len(slot.cells)):
                    last = place + 1 == len(slot.cells) + len(slot.unread)
                    self._put(index, token, place, slot.sequence, last=last)
                    index += 1
                rows.append((slot, index - 1))
            self._decode(index)
            for slot in together:
                slot.cells, slot.unread = slot.cells + slot.unread, []
            yield from self._choose(rows)

    def _step(self, active: list[Slot]) -> Iterator[Outcome]:
        """One more token for every job."""
        for index, slot in enumerate(active):
            self._put(index, slot.told[-1], len(slot.cells), slot.sequence, last=True)
        self._decode(len(active))
        for slot in active:
            slot.cells.append(slot.told[-1])
        yield from self._choose([(slot, index) for index, slot in enumerate(active)])

    def _choose(self, rows: list[tuple[Slot, int]]) -> Iterator[Outcome]:
        """Sample for each job from the logits of its row of the last batch; outcomes of answers that are over."""
        asked = [(slot, row) for slot, row in rows if slot.job and slot.job.sampling.predict != 0]
        for slot in [slot for slot, _ in rows if slot.job and slot.job.sampling.predict == 0]:
            yield from self._end(slot, "length")
        for (slot, _), token in zip(asked, self._sampled(asked), strict=True):
            yield from self._take(slot, token)

    def _sampled(self, rows: list[tuple[Slot, int]]) -> list[int]:
        """A token for each; several at a time where there are many, for a large vocabulary takes half a millisecond."""
        context = self._compute.context

        def sample(pair: tuple[Slot, int]) -> int:
            slot, row = pair
            assert slot.sampler is not None
            return int(self._lib.llama_sampler_sample(slot.sampler.chain, context, row))

        if len(rows) < FEW or self._engine.vocab.size < LARGE:
            return [sample(pair) for pair in rows]
        self._lib.llama_get_logits_ith(context, rows[0][1])  # puts the rows in order, before several look at them
        if self._samplers is None:
            self._samplers = ThreadPoolExecutor(max(self._engine.threads))
        return list(self._samplers.map(sample, rows))

    def _take(self, slot: Slot, token: int) -> list[Outcome]:
        """Write a token down; the outcome if the answer is over."""
        job, sampler, writer = slot.job, slot.sampler, slot.writer
        assert job is not None and sampler is not None and writer is not None
        limit = job.sampling.predict
        if sampler.grammar is not None and not sampler.grammar.accept(token):
            return self._end(slot, "grammar")
        text = writer.write(token)
        if text is END:
            return self._end(slot, "stop")
        slot.told.append(token)
        slot.texts.append(text)
        if writer.stopped:
            return self._end(slot, "stop")
        if len(slot.told) == limit:
            return self._end(slot, "length")
        if len(slot.cells) >= self._compute.size:
            return self._full(slot, job)
        return []

    def _full(self, slot: Slot, job: Job) -> list[Outcome]:
        """No cell is left: begin anew where there are more, unless there are none anywhere."""
        if self._compute.size >= self._engine.context_size:
            return self._end(slot, "length")
        self._release(slot)
        self._waiting.append(Larger(job.number, job.tokens, job.sampling, 2 * self._compute.size))
        return []

    def _end(self, slot: Slot, finish: Finish) -> list[Outcome]:
        assert slot.job is not None and slot.writer is not None
        text = "".join(slot.texts) + slot.writer.finish()
        outcome = Outcome(slot.job.number, text, finish, tuple(slot.told), slot.cached)
        self._release(slot)
        return [outcome]

    def _release(self, slot: Slot) -> None:
        if slot.sampler is not None:
            slot.sampler.free()
        slot.job = slot.sampler = slot.writer = None
        slot.unread = []

    # -- the engine --------------------------------------------------------------------------------------------

    @property
    def _compute(self) -> Evaluator:
        assert self._evaluator is not None
        return self._evaluator

    def _put(self, index: int, token: int, position: int, sequence: int, *, last: bool) -> None:
        batch = self._batch
        batch.token[index], batch.pos[index] = token, position
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = sequence
        batch.logits[index] = last

    def _decode(self, count: int) -> None:
        self._batch.n_tokens = count
        self._compute.decode(self._batch)

    def stop(self) -> None:
        """End `run` soon. May be called from a signal handler or another thread."""
        self.stopping = True
        if self._evaluator is not None:
            self._evaluator.stopping = True

    def close(self) -> None:
        """Free everything. Calling it twice does no harm."""
        if self._samplers is not None:
            self._samplers.shutdown()
            self._samplers = None
        for slot in self._slots:
            self._release(slot)
        if self._batch is not None:
            self._lib.llama_batch_free(self._batch)
        if self._evaluator is not None:
            self._evaluator.close()
        self._slots, self._batch, self._evaluator = [], None, None

    def __enter__(self) -> Parallel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

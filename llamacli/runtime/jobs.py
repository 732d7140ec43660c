"""What is done at a time: jobs, what comes of them, and the sequences that they are done in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llamacli.errors import LlamacliError
from llamacli.runtime.messages import Finish, Sampling
from llamacli.runtime.sampler import Sampler
from llamacli.runtime.writer import Writer

OPEN_ANSWER = 512
"""Tokens for which room is made at first where an answer has no limit."""


@dataclass(frozen=True)
class Job:
    """One prompt; `number` comes back with its outcome."""

    number: int
    tokens: Sequence[int]
    sampling: Sampling


@dataclass(frozen=True)
class Outcome:
    """What came of a job: its text, or an error. `cached` prompt tokens were not read for this job."""

    number: int
    text: str = ""
    finish: Finish = "cancel"
    tokens: tuple[int, ...] = ()
    cached: int = 0
    error: LlamacliError | None = None


@dataclass
class Slot:
    """A sequence of the context and the job that it is at."""

    sequence: int
    cells: list[int] = field(default_factory=list)
    job: Job | None = None
    sampler: Sampler | None = None
    writer: Writer | None = None
    texts: list[str] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    cached: int = 0
    unread: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Larger(Job):
    """A job that needs `room` cells: it has filled half of them."""

    room: int = 0


def cells_for(job: Job) -> int:
    """Cells that a job is expected to need."""
    answer = job.sampling.predict if job.sampling.predict >= 0 else OPEN_ANSWER
    return max(len(job.tokens) + answer, job.room if isinstance(job, Larger) else 0)

"""Everything that can go wrong, said once in words that help, with the exit code that scripts rely on.

A part of the program that notices a fault raises one of these where the fact is known; only `cli` shows it.
"""

from __future__ import annotations


class LlamacliError(Exception):
    """A fault that the user can understand.

    `message` is one line: what is wrong and where. `hint` says what to do next. `exit_code` is documented in
    `llamacli help exit-codes` and never changes its meaning.
    """

    exit_code = 10

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PredicateFalse(LlamacliError):
    """The question was answered with no: nothing matched, or a check found problems."""

    exit_code = 1


class UsageError(LlamacliError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class NotFound(LlamacliError):
    """A model, repository, file or quantization that does not exist."""

    exit_code = 3


class Truncated(LlamacliError):
    """The answer reached its token limit before its natural end; the text was still printed."""

    exit_code = 4


class ContextOverflow(LlamacliError):
    """The input does not fit the context."""

    exit_code = 5


class DoesNotFit(LlamacliError):
    """Not enough memory on this machine."""

    exit_code = 6


class NetworkError(LlamacliError):
    """The network, the Hub, a token or a licence stands in the way."""

    exit_code = 7


class SchemaError(LlamacliError):
    """The output does not satisfy its schema or grammar."""

    exit_code = 8


class CorruptFile(LlamacliError):
    """A file is damaged, incomplete or not what it says it is."""

    exit_code = 9


class EngineError(LlamacliError):
    """The inference engine failed."""

    exit_code = 10


class Unsupported(LlamacliError):
    """An architecture, tensor, tokenizer or source format that we do not know."""

    exit_code = 11


class CannotWrite(LlamacliError):
    """The output exists, is the input, is not writable, or the disk is full."""

    exit_code = 12


class TimedOut(LlamacliError):
    """The time limit was reached."""

    exit_code = 124


class Interrupted(LlamacliError):
    """Ctrl-C."""

    exit_code = 130


EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "finished normally"),
    (1, "predicate is false, no rows matched, a benchmark regressed, or doctor found problems"),
    (2, "usage error"),
    (3, "model not found (name, repository, file or quantization)"),
    (4, "stopped at the token limit before a natural end; the text was still printed"),
    (5, "the input does not fit the context"),
    (6, "out of memory, or the model does not fit this machine"),
    (7, "network, authentication or gated model"),
    (8, "the output does not satisfy its schema or grammar"),
    (9, "a file is corrupt, incomplete or not what it says"),
    (10, "engine or backend error"),
    (11, "unsupported architecture, tensor, tokenizer or source format"),
    (12, "cannot write: the output exists, is the input, is not writable, or the disk is full"),
    (124, "--timeout was reached"),
    (129, "the terminal was closed"),
    (130, "Ctrl-C (what was printed stays)"),
    (141, "the reader of the pipe went away"),
    (143, "terminated by SIGTERM"),
)

"""Input that does not fit the context, as `run --overflow` treats it. Nothing is left out without a word on stderr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamacli.errors import ContextOverflow
from llamacli.runtime import overflow

if TYPE_CHECKING:
    from llamacli.cli.console import Console

_ROOM_FOR_ANSWER = 1024
"""Tokens kept free for an answer without a limit, if the context has so many to spare."""
_WHERE: dict[str, overflow.Where] = {"head": "head", "tail": "tail", "middle": "middle"}
_ROUNDS = 4
"""How often answers to parts are put together and read in parts again."""


@dataclass(frozen=True)
class LongInput:
    """`document` is what may be cut; `compose` makes the whole question of it, `count` gives the prompt's tokens."""

    document: str
    compose: Callable[[str], str]
    count: Callable[[str], int]
    context_size: int
    predict: int

    @property
    def room(self) -> int:
        """Tokens that the prompt may have."""
        answer = self.predict if self.predict >= 0 else min(_ROOM_FOR_ANSWER, self.context_size // 4)
        return max(1, self.context_size - max(answer, 1))

    @property
    def fits(self) -> bool:
        """Whether nothing has to be done."""
        return self._tokens(self.document) <= self.context_size - max(self.predict, 1)

    def _tokens(self, document: str) -> int:
        return self.count(self.compose(document))

    def cut(self, where: str, console: Console) -> str:
        """The question with a part of the input. Raises ContextOverflow."""
        found = overflow.cut(self.document, _WHERE[where], self._tokens, self.room)
        kept = {"head": "its beginning is", "tail": "its end is", "middle": "its beginning and end are"}[where]
        console.warn(
            f"the input does not fit the context of {self.context_size:,} tokens: {kept} kept, "
            f"{found.kept:,} of {found.of:,} characters"
        )
        return self.compose(found.text)

    def map_reduce(self, ask: Callable[[str, int], str], console: Console) -> str:
        """A question about the answers to all parts; `ask` gives the answer to one, in so many tokens at most."""
        document = self.document
        for _ in range(_ROUNDS):
            pieces = overflow.parts(document, self._tokens, self.room)
            console.warn(f"the input does not fit the context: read in {len(pieces)} parts, then the answers together")
            limit = max(16, self.room // (len(pieces) + 1))
            answers = []
            for number, piece in enumerate(pieces, 1):
                console.status(f"part {number} of {len(pieces)}")
                answers.append(ask(self.compose(piece), limit if self.predict < 0 else min(limit, self.predict)))
            document = "\n" + "\n\n".join(f"--- part {i} ---\n{text.strip()}" for i, text in enumerate(answers, 1))
            if self._tokens(document) <= self.room:
                return self.compose(document)
        raise ContextOverflow(
            "the answers to the parts do not fit the context either", "a smaller -n, or --overflow head, tail or middle"
        )

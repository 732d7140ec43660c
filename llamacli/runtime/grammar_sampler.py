"""A grammar in the chain of samplers that cannot end the process.

The engine's grammar throws through C when it has to accept a token that it does not allow, which happens where no
token is allowed: the vocabulary cannot spell what the grammar asks for. Here the grammar only takes part in choosing;
whether the chosen token is allowed is asked before the grammar moves on.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

from llamacli.errors import SchemaError
from llamacli.runtime.bindings import failure_hint


class GrammarSampler:
    """The engine's grammar, guarded. `sampler` belongs to the chain that it is added to; `free` after the chain."""

    def __init__(self, library: Any, vocabulary: Any, text: str) -> None:
        self._lib = library
        self._grammar = library.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
        if not self._grammar:
            raise SchemaError("the engine refuses the grammar", failure_hint())
        self._best = library.llama_sampler_init_greedy()
        self._one = (library.llama_token_data * 1)()
        self._only = library.llama_token_data_array(self._one, 1, -1, False)
        self._interface = library.llama_sampler_i()
        self._apply = library.llama_sampler_i_apply(self._restrict)  # C keeps a pointer to it
        self._name = library.llama_sampler_i_name(lambda _: b"guarded grammar")
        self._interface.apply, self._interface.name = self._apply, self._name
        self.sampler = library.llama_sampler_init(ctypes.byref(self._interface), None)

    def _restrict(self, _: Any, candidates: Any) -> None:
        """Called from C: rule out what the grammar does not allow; leave one token if it allows none."""
        self._lib.llama_sampler_apply(self._grammar, candidates)
        self._lib.llama_sampler_apply(self._best, candidates)
        array = candidates.contents
        if math.isinf(array.data[array.selected].logit):
            array.data[0].logit = 0.0

    def accept(self, token: int) -> bool:
        """Move on by `token`; False, and nothing moves, where the grammar does not allow it."""
        self._one[0] = (token, 0.0, 0.0)
        self._only.selected, self._only.size = -1, 1
        self._lib.llama_sampler_apply(self._grammar, ctypes.byref(self._only))
        if math.isinf(self._one[0].logit):
            return False
        self._lib.llama_sampler_accept(self._grammar, token)
        return True

    def free(self) -> None:
        """Give the memory back."""
        for sampler in (self._grammar, self._best):
            if sampler:
                self._lib.llama_sampler_free(sampler)
        self._grammar = self._best = None

"""How the next token is chosen: the engine's samplers in llama.cpp's order, all of them in C."""

from __future__ import annotations

import ctypes
import math
import secrets
from typing import Any

from llamacli.errors import UsageError
from llamacli.runtime.grammar import check_grammar
from llamacli.runtime.grammar_sampler import GrammarSampler
from llamacli.runtime.messages import Sampling
from llamacli.runtime.vocab import Vocab

DRY_BREAKERS = (b"\n", b":", b'"', b"*")
MAX_SEED = 0xFFFFFFFE


def fresh_seed() -> int:
    """A seed that llama.cpp takes as it is (its highest value means: choose one)."""
    return secrets.randbelow(MAX_SEED)


class Sampler:
    """A chain of samplers in the engine. `free` gives its memory back."""

    def __init__(self, library: Any, vocab: Vocab, sampling: Sampling, context_size: int) -> None:
        check(sampling)
        self._lib, self._vocab, self._sampling = library, vocab, sampling
        self._context_size = context_size
        self.seed = sampling.seed if sampling.seed is not None else fresh_seed()
        self.grammar: GrammarSampler | None = None
        """Asked after every token whether it may stand, if there is one."""
        parameters = library.llama_sampler_chain_default_params()
        parameters.no_perf = True
        self.chain = library.llama_sampler_chain_init(parameters)
        try:
            self._fill()
        except BaseException:
            self.free()
            raise

    def _fill(self) -> None:
        self._bias()
        self._grammar()
        self._penalties()
        if self._sampling.temp <= 0:
            self._add(self._lib.llama_sampler_init_greedy())
        elif self._sampling.mirostat:
            self._mirostat()
        else:
            self._cut()
            self._add(self._lib.llama_sampler_init_temp(self._sampling.temp))
            self._add(self._lib.llama_sampler_init_dist(self.seed))

    def _add(self, sampler: Any) -> None:
        self._lib.llama_sampler_chain_add(self.chain, sampler)

    def _bias(self) -> None:
        pairs = list(self._sampling.logit_bias)
        if bad := [token for token, _ in pairs if not 0 <= token < self._vocab.size]:
            raise UsageError(f"logit bias for token {bad[0]}: the vocabulary has {self._vocab.size:,} tokens")
        if self._sampling.ignore_eos:
            pairs += [(token, -math.inf) for token in self._vocab.end_tokens()]
        if pairs:
            array = (self._lib.llama_logit_bias * len(pairs))(*pairs)
            self._add(self._lib.llama_sampler_init_logit_bias(self._vocab.size, len(pairs), array))

    def _grammar(self) -> None:
        if self._sampling.grammar:
            self.grammar = GrammarSampler(self._lib, self._vocab.pointer, self._sampling.grammar)
            self._add(self.grammar.sampler)

    def _penalties(self) -> None:
        s = self._sampling
        if s.repeat_penalty != 1.0 or s.presence_penalty or s.frequency_penalty:
            last = self._span(s.repeat_last_n)
            self._add(
                self._lib.llama_sampler_init_penalties(
                    self._vocab.size, last, s.repeat_penalty, s.frequency_penalty, s.presence_penalty
                )
            )
        if s.dry_multiplier:
            breakers = (ctypes.c_char_p * len(DRY_BREAKERS))(*DRY_BREAKERS)
            self._add(
                self._lib.llama_sampler_init_dry(
                    self._vocab.pointer,
                    s.dry_multiplier,
                    s.dry_base,
                    s.dry_allowed_length,
                    self._span(s.dry_penalty_last_n),
                    breakers,
                    len(DRY_BREAKERS),
                )
            )

    def _span(self, tokens: int) -> int:
        """How far a penalty looks back; -1 is the whole context."""
        return self._context_size if tokens < 0 else tokens

    def _cut(self) -> None:
        """The samplers that leave only likely tokens; top-k first, or top-p has to sort the whole vocabulary."""
        s, lib = self._sampling, self._lib
        if s.top_n_sigma > 0:
            self._add(lib.llama_sampler_init_top_n_sigma(s.top_n_sigma))
        if s.top_k > 0:
            self._add(lib.llama_sampler_init_top_k(s.top_k))
        if s.typical_p < 1:
            self._add(lib.llama_sampler_init_typical(s.typical_p, 1))
        if s.top_p < 1:
            self._add(lib.llama_sampler_init_top_p(s.top_p, 1))
        if s.min_p > 0:
            self._add(lib.llama_sampler_init_min_p(s.min_p, 1))
        if s.xtc_probability > 0:
            self._add(lib.llama_sampler_init_xtc(s.xtc_probability, s.xtc_threshold, 1, self.seed))

    def _mirostat(self) -> None:
        s = self._sampling
        self._add(self._lib.llama_sampler_init_temp(s.temp))
        if s.mirostat == 1:
            sampler = self._lib.llama_sampler_init_mirostat(
                self._vocab.size, self.seed, s.mirostat_tau, s.mirostat_eta, 100
            )
        else:
            sampler = self._lib.llama_sampler_init_mirostat_v2(self.seed, s.mirostat_tau, s.mirostat_eta)
        self._add(sampler)

    def see(self, tokens: list[int]) -> None:
        """Let the penalties know the end of the prompt."""
        s = self._sampling
        if not (s.repeat_penalty != 1.0 or s.presence_penalty or s.frequency_penalty or s.dry_multiplier):
            return
        last = max(self._span(s.repeat_last_n), self._span(s.dry_penalty_last_n) if s.dry_multiplier else 0)
        for token in tokens[-last:] if last else []:
            self._lib.llama_sampler_accept(self.chain, token)

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""
        if self.chain:
            self._lib.llama_sampler_free(self.chain)
            self.chain = None
        if self.grammar is not None:
            self.grammar.free()
            self.grammar = None


def check(sampling: Sampling) -> None:
    """Raise UsageError for values that make no sense or that the engine would not survive."""
    s = sampling
    numbers = {
        "--temp": s.temp, "--top-p": s.top_p, "--min-p": s.min_p, "--typical": s.typical_p,
        "--repeat-penalty": s.repeat_penalty, "--presence-penalty": s.presence_penalty,
        "--frequency-penalty": s.frequency_penalty, "--mirostat-ent": s.mirostat_tau, "--mirostat-lr": s.mirostat_eta,
        "--dry-multiplier": s.dry_multiplier, "--dry-base": s.dry_base,
        "--xtc-probability": s.xtc_probability, "--xtc-threshold": s.xtc_threshold,
    }  # fmt: skip
    for flag, value in numbers.items():
        if not math.isfinite(value):
            raise UsageError(f"{flag} {value}: not a number")
    if s.repeat_penalty <= 0:
        raise UsageError(f"--repeat-penalty {s.repeat_penalty}: must be above 0 (1 is none)")
    if s.seed is not None and not 0 <= s.seed <= MAX_SEED:
        raise UsageError(f"--seed {s.seed}: from 0 to {MAX_SEED}")
    if s.grammar:
        check_grammar(s.grammar)

"""Which of a few given answers is the likeliest: by exact probabilities, without sampling.

The probability of an answer is the product of the probabilities of its tokens and of the end after them, as the model
computes them without any temperature. What the answers share with one another is evaluated once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamacli.errors import UsageError
from llamacli.runtime.messages import Prompt, Span

LogitsAfter = Callable[[Sequence[int]], Sequence[float]]


@dataclass(frozen=True)
class Choice:
    """An answer; `log_probability` (natural) is the model's own, `probability` is among the choices, summing to 1."""

    text: str
    log_probability: float
    probability: float


def choices_of(text: str) -> tuple[str, ...]:
    r"""`yes,no` or one choice per line; `\,` is a comma. Raises UsageError for fewer than two, or for one twice."""
    fields = text.split("\n") if "\n" in text else text.replace("\\,", "\0").split(",")
    parts = [field.replace("\0", ",") for field in fields]
    out = tuple(part.strip() for part in parts if part.strip())
    if len(out) < 2 or len(set(out)) < len(out):
        raise UsageError(f"--choices {text!r}: at least two different answers", "for example: --choices yes,no")
    return out


def answer_tokens(tokens_of: Callable[[Prompt], list[int]], prompt: Prompt, text: str) -> list[int]:
    """The tokens of `text` as an answer to `prompt`: those that the whole has after the prompt's own."""
    start = tokens_of(prompt)
    whole = tokens_of((*prompt, Span(text, False)))
    return whole[len(start) :] if whole[: len(start)] == start else tokens_of((Span(text, False),))


def score(
    logits_after: LogitsAfter, prompt: Sequence[int], answers: Sequence[tuple[str, Sequence[int]]], ends: Sequence[int]
) -> list[Choice]:
    """The choices, likeliest first. `ends` are the tokens that end an answer; their probabilities are added up."""
    totals = _walk(logits_after, list(prompt), [list(tokens) for _, tokens in answers], ends)
    total = _log_sum(totals)
    found = [Choice(text, log, math.exp(log - total)) for (text, _), log in zip(answers, totals, strict=True)]
    return sorted(found, key=lambda choice: -choice.log_probability)


def _walk(logits_after: LogitsAfter, prompt: list[int], answers: list[list[int]], ends: Sequence[int]) -> list[float]:
    """The log probability of each answer, answers with the same beginning visited one after the other."""
    out = [0.0] * len(answers)
    order = sorted(range(len(answers)), key=lambda index: answers[index])
    known: dict[tuple[int, ...], tuple[Sequence[float], float]] = {}
    for index in order:
        tokens = answers[index]
        known = {path: value for path, value in known.items() if list(path) == tokens[: len(path)]}
        for place in range(len(tokens) + 1):
            path = tuple(tokens[:place])
            if path not in known:
                logits = logits_after([*prompt, *path])
                known[path] = logits, _log_sum(logits)
            logits, normal = known[path]
            if place < len(tokens):
                out[index] += logits[tokens[place]] - normal
            elif ends:
                out[index] += _log_sum([logits[token] for token in ends]) - normal
    return out


def _log_sum(values: Sequence[float]) -> float:
    """log(sum(exp(value))), without overflow."""
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values)) if most > -math.inf else most

"""Looking at where the conversation stands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llamacli.cli.screen.sanitize import sanitize
from llamacli.cli.screen.slash.command import Slash
from llamacli.cli.screen.status import meter_of, speed_of
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.cli.screen.answer import Answer
    from llamacli.cli.screen.talk import Talk

_HEAT = ((0.9, ""), (0.5, "32"), (0.2, "33"), (0.0, "31"))
"""Style of a token from this probability on: certain, green, yellow, red."""


_THEN = {
    "stop": "you are asked; without a terminal it ends",
    "drop": "the oldest turns are dropped",
    "compact": "a summary takes the place of the oldest turns",
}


def _stats(talk: Talk, argument: str) -> None:
    answer = talk.last
    if answer is None or answer.usage is None:
        raise UsageError("there is no answer yet")
    usage = answer.usage
    fresh = usage.prompt - usage.cached
    rate = f", {fresh / usage.prompt_seconds:,.0f} t/s" if usage.prompt_seconds > 0 and fresh else ""
    talk.say(f"prompt    {usage.prompt} tokens, {usage.cached} already read, {usage.prompt_seconds:.2f} s{rate}")
    talk.say(f"answer    {usage.completion} tokens, {usage.completion_seconds:.2f} s, {speed_of(answer) or 'no rate'}")
    talk.say(f"first     {answer.first:.2f} s to the first token")
    if answer.thoughts:
        talk.say(f"thoughts  {answer.thoughts} tokens, {answer.thinking:.1f} s")
    talk.say(f"ended     {answer.finish}")
    talk.say(f"context   {talk.used:,} of {talk.model.size:,} tokens")


def _ctx(talk: Talk, argument: str) -> None:
    used = talk.used or talk.model.count(talk.seen())  # nothing was asked yet since the conversation was resumed
    talk.say(f"{meter_of(used, talk.model.size, talk.look)}: {used:,} of {talk.model.size:,} tokens")
    if talk.unseen:
        talk.say(f"the model no longer sees the first {talk.unseen} messages")
    oldest = next((node for node in talk.path[talk.unseen :] if node.role == "user"), None)
    if oldest is not None:
        talk.say(f"when it is full, {_THEN[talk.overflow]}; the oldest: {' '.join(oldest.text.split())[:60]}")


def _heat(talk: Talk, argument: str) -> None:
    if talk.last is None:
        raise UsageError("there is no answer yet")
    tokens = talk.last.tokens or _found_again(talk, talk.last)
    if not tokens:
        talk.sampling = replace(talk.sampling, logprobs=talk.sampling.logprobs or 0)
        talk.say("the last answer has no probabilities; from now on they are counted: /regen, then /heat")
        return
    if talk.look.styled:
        colored = "".join(_colored(sanitize(text), probability) for text, probability in tokens)
        talk.write(colored + "\n")
    doubtful = sorted(tokens, key=lambda token: token[1])[:5]
    talk.say("least likely: " + ", ".join(f"{text.strip()!r} {100 * share:.0f} %" for text, share in doubtful))


def _found_again(talk: Talk, answer: Answer) -> list[tuple[str, float]]:
    """The probabilities of an answer that was told without them, if the model still has it in mind."""
    shares = talk.model.engine.shares_of_last()
    texts = talk.model.session.written[-len(shares) - 1 : -1]
    tokens = [(text, share) for text, share in zip(texts, shares, strict=False) if text]
    while tokens and len("".join(text for text, _ in tokens[1:])) >= len(answer.text):
        tokens.pop(0)  # thoughts before the answer
    answer.tokens = tokens
    return tokens


def _colored(text: str, probability: float) -> str:
    style = next(style for least, style in _HEAT if probability >= least)
    return f"\x1b[{style}m{text}\x1b[0m" if style else text


COMMANDS = (
    Slash("stats", "", "Tokens and times of the last answer.", _stats),
    Slash("ctx", "", "How full the context is, and what happens when it is.", _ctx, ("context",)),
    Slash("heat", "", "The last answer, coloured by how likely each token was.", _heat),
)

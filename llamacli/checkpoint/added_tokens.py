"""Added tokens that our runtime has to look for itself, because the engine finds them by other rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from llamacli.checkpoint.draft import AddedToken, Draft
from llamacli.checkpoint.vocabulary import TokenType


def with_flags(token: AddedToken, again: AddedToken) -> AddedToken:
    """`token` with the flags that tokenizer_config.json gives it: they count more than tokenizer.json's."""
    return replace(token, strip_left=again.strip_left, strip_right=again.strip_right)


def found_by_us(
    draft: Draft, added: Iterable[AddedToken], types: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the tokens to be looked for in text as it is written, and once it is normalized; mostly none."""
    plain = [token for token in added if types[token.id] == TokenType.USER_DEFINED]
    form = draft.mends.normalizer if draft.model == "gpt2" else ""
    needed = (
        (plain and (draft.model == "bert" or draft.mends.space_prefix))
        or any(token.strip_left or token.strip_right for token in plain)
        or (form and any(token.normalized and not token.text.isascii() for token in plain))
        or overlap([token.text for token in plain])
    )
    if not needed:
        return (), ()
    late = tuple(token.id for token in plain if form and token.normalized)
    return tuple(token.id for token in plain if token.id not in late), late


def overlap(texts: Sequence[str]) -> bool:
    """Whether one of `texts` can end in the middle of another; runs of one character do so without effect."""
    texts = [text for text in texts if len(set(text)) > 1]
    beginnings = {text[:end]: text for text in texts for end in range(1, len(text))}
    return any(beginnings.get(text[start:], text) != text for text in texts for start in range(1, len(text)))

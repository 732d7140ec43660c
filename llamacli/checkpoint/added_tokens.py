"""Added tokens that our runtime has to look for itself, because the engine finds them by other rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llamacli.checkpoint.draft import AddedToken, Draft
from llamacli.checkpoint.pretokenizers import shorten
from llamacli.checkpoint.vocabulary import TokenType


def with_flags(token: AddedToken, again: AddedToken) -> AddedToken:
    """`token` with the flags that tokenizer_config.json gives it: they count more than tokenizer.json's."""
    return replace(token, strip_left=again.strip_left, strip_right=again.strip_right, single_word=again.single_word)


@dataclass(frozen=True)
class Found:
    """Ids of the added tokens that our runtime looks for; mostly none."""

    written: tuple[int, ...] = ()
    """Those that are looked for in text as it is written."""
    normalized: tuple[int, ...] = ()
    """Those that are looked for once it is normalized."""
    behind_space: tuple[int, ...] = ()
    """Those that are looked for with a space in front, or at the beginning of a text, and swallow it."""
    single_words: tuple[int, ...] = ()
    """Which of them count only as words of their own."""
    inside_words: bool = False
    """Whether the engine would find some of them inside words."""
    warnings: tuple[str, ...] = ()


def found_by_us(draft: Draft, added: Iterable[AddedToken], types: Sequence[int]) -> Found:
    """The tokens to be looked for, control tokens among them only where it matters to those."""
    known = [token for token in added if types[token.id] in (TokenType.USER_DEFINED, TokenType.CONTROL)]
    plain = [token for token in known if types[token.id] == TokenType.USER_DEFINED]
    form = draft.mends.normalizer if draft.model == "gpt2" else ""
    # A normalizer that puts a space in front of every text does so with what it looks for, too.
    behind = [token.id for token in plain if token.normalized and _prepends(draft)]
    together = any(token.single_word for token in known) or overlap([token.text for token in known])
    needed = (
        together
        or behind
        or (plain and (draft.model in ("bert", "t5") or draft.mends.space_prefix))
        or any(token.strip_left or token.strip_right for token in plain)
        or (form and any(token.normalized and not token.text.isascii() for token in plain))
    )
    if not needed:
        return Found()
    control = [place for place, kind in enumerate(types) if kind == TokenType.CONTROL]
    late = [token.id for token in plain if form and token.normalized]
    single = [token for token in known if token.single_word]
    odd = [token for token in known if token.single_word or token.id in behind]
    name = shorten(repr(odd[0].text), 40) if odd else ""
    written = {token.id for token in plain}.difference(late, behind).union(control if together else ())
    return Found(
        tuple(sorted(written)),
        tuple(late),
        tuple(behind),
        tuple(token.id for token in single),
        bool(single or behind),
        (f"other programs find {len(odd)} added tokens such as {name} in places where the tokenizer does not",)
        if odd
        else (),
    )


def _prepends(draft: Draft) -> bool:
    always = draft.add_space_prefix is None and not draft.mends.space_prefix
    return draft.file == "tokenizer.json" and draft.model == "llama" and always


def overlap(texts: Sequence[str]) -> bool:
    """Whether one of `texts` can end in the middle of another; runs of one character do so without effect."""
    texts = [text for text in texts if len(set(text)) > 1]
    beginnings = {text[:end]: text for text in texts for end in range(1, len(text))}
    return any(beginnings.get(text[start:], text) != text for text in texts for start in range(1, len(text)))

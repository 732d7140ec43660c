"""tekken.json, Mistral's own format: byte strings by rank and a list of special tokens in front of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from llamacli.checkpoint.draft import AddedToken, Draft, Wrapping, check_room
from llamacli.checkpoint.pretokenizers import Cut, canonical, engine_name
from llamacli.checkpoint.vocabulary import Mends, TokenType
from llamacli.errors import CorruptFile

FILE = "tekken.json"
_AGAIN = "the tokenizer is damaged; fetch it again"

BEFORE_THEY_WERE_LISTED = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
"""Special tokens of the first files, which do not list them (mistral-common's defaults)."""


def read_tekken(document: Mapping[str, Any], rows: int) -> Draft:
    """tekken.json as a Draft. Raises CorruptFile and Unsupported."""
    config = document.get("config")
    if not isinstance(config, dict) or not isinstance(document.get("vocab"), list):
        raise CorruptFile(f"{FILE} has no config or no vocab", _AGAIN)
    size, specials = (_count(config, key) for key in ("default_vocab_size", "default_num_special_tokens"))
    check_room(size, rows, FILE)
    if specials >= size:
        raise CorruptFile(f"{FILE} has {specials:,} special tokens among {size:,}", _AGAIN)
    words = _words(document["vocab"], size - specials)
    names = _special_tokens(document.get("special_tokens"), specials)
    pattern = config.get("pattern")
    if not isinstance(pattern, str):
        raise CorruptFile(f"{FILE} has no pattern", _AGAIN)
    name = engine_name(
        Cut((canonical(pattern),)), ignore_merges=True, has_bos=True, cleans_spaces=False, model_type="mistral"
    )
    return Draft(
        file=FILE,
        model="gpt2",
        pre=name.pre,
        tokens=[*names, *(visible(word) for word in words)],
        types=[int(TokenType.CONTROL)] * specials + [int(TokenType.NORMAL)] * len(words),
        merges=merges_of_ranks(words),
        added=tuple(AddedToken(place, text) for place, text in enumerate(names)),
        roles={role: text for role, text in _ROLES if text in names},
        wrapping=Wrapping(("<s>",), ()),
        mends=Mends(cut=name.cut),
        warnings=(f"other programs cut some text differently: {name.differs}",) if name.differs else (),
    )


_ROLES = (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"), ("pad", "<pad>"))


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 0:
        raise CorruptFile(f"{FILE}: {key} is not a count", _AGAIN)
    return value


def _words(entries: list[Any], count: int) -> list[bytes]:
    if len(entries) < count:
        raise CorruptFile(f"{FILE} has {len(entries):,} of {count:,} tokens", _AGAIN)
    words = []
    for rank, entry in enumerate(entries[:count]):
        try:
            if entry["rank"] != rank:
                raise CorruptFile(f"{FILE}: token {rank} has rank {entry['rank']}", _AGAIN)
            words.append(base64.b64decode(entry["token_bytes"], validate=True))
        except (TypeError, KeyError, ValueError, binascii.Error) as error:
            raise CorruptFile(f"{FILE}: token {rank} is damaged", _AGAIN) from error
    if len(set(words)) != len(words):
        raise CorruptFile(f"{FILE}: two tokens are the same bytes", _AGAIN)
    return words


def _special_tokens(entries: Any, count: int) -> list[str]:
    if entries is None:
        listed = list(BEFORE_THEY_WERE_LISTED)
    elif isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("token_str"), str) and entry.get("rank") == place
        for place, entry in enumerate(entries)
    ):
        listed = [entry["token_str"] for entry in entries]
    else:
        raise CorruptFile(f"{FILE}: special_tokens is damaged", _AGAIN)
    if len(listed) > count:
        raise CorruptFile(f"{FILE} lists {len(listed)} special tokens and announces {count}", _AGAIN)
    return listed + [f"<SPECIAL_{place}>" for place in range(len(listed), count)]


def byte_alphabet() -> dict[int, str]:
    """GPT-2's alphabet: a visible character for each of the 256 bytes, printable Latin-1 standing for itself."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


_ALPHABET = byte_alphabet()


def visible(word: bytes) -> str:
    """`word` in GPT-2's byte alphabet."""
    return "".join(map(_ALPHABET.__getitem__, word))


def merges_of_ranks(words: list[bytes]) -> tuple[str, ...]:
    """The merges that a vocabulary of ranked byte strings stands for, in order.

    Such a vocabulary merges any two neighbours that together are a word, the lowest rank first: so every way to cut a
    word in two words is a merge, ordered by the word's rank, then by the ranks of its parts.
    """
    ranks = {word: rank for rank, word in enumerate(words)}
    merges: list[str] = []
    for word in words:
        cuts = []
        for cut in range(1, len(word)):
            left, right = ranks.get(word[:cut]), ranks.get(word[cut:])
            if left is not None and right is not None:
                cuts.append((left, right, cut))
        merges.extend(f"{visible(word[:cut])} {visible(word[cut:])}" for _, _, cut in sorted(cuts))
    return tuple(merges)

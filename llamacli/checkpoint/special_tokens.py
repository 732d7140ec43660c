"""Which token plays which part: BOS, EOS, padding, ..., and what ends a reply.

The names come from tokenizer_config.json, then special_tokens_map.json, as transformers reads them; config.json and
generation_config.json give ids where no name is given, and all ids that end a reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamacli.checkpoint.draft import AddedToken
from llamacli.checkpoint.pretokenizers import shorten
from llamacli.checkpoint.vocabulary import TokenType
from llamacli.errors import CorruptFile

ROLES = {
    "bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask",
}  # fmt: skip
"""transformers' names of roles to the engine's (whose spelling of "separator" is part of the format)."""

ENDS_BY_TEXT = frozenset((
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
))  # fmt: skip
"""Texts by which the engine itself takes a token for the end of a reply, whatever the file's keys say."""

VISIBLE = frozenset((
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
))  # fmt: skip
"""Gemma 4's marks of thoughts and tool calls: special tokens that a reader of the reply must see."""


@dataclass(frozen=True)
class Declared:
    """What the configuration files say about special tokens."""

    roles: Mapping[str, str] = field(default_factory=dict)
    """transformers' role to text."""
    extra: tuple[str, ...] = ()
    """Further tokens that are special without a role."""
    ids: Mapping[str, int] = field(default_factory=dict)
    """transformers' role to id, by config.json and generation_config.json."""
    ends: tuple[int, ...] = ()
    """All ids that end a reply, by generation_config.json, else config.json; in its order."""

    def names(self) -> Iterator[str]:
        """All texts, in the order in which transformers adds those that are missing."""
        for role in (*ROLES, "cls"):
            if role in self.roles:
                yield self.roles[role]
        yield from self.extra


def read_declared(
    tokenizer_config: Mapping[str, Any],
    special_tokens_map: Mapping[str, Any],
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
) -> Declared:
    """The declarations of all four files, the earlier ones first."""
    roles: dict[str, str] = {}
    extra: list[str] = []
    for source in (tokenizer_config, special_tokens_map):
        for role in (*ROLES, "cls"):
            if (text := text_of(source.get(f"{role}_token"))) is not None:
                roles.setdefault(role, text)
        for key in ("additional_special_tokens", "extra_special_tokens"):
            extra += _texts(source.get(key))
    roles.update(
        {role: roles[other] for role, other in (("bos", "cls"), ("eos", "sep")) if _stands_in(roles, role, other)}
    )
    inner = config.get("text_config")
    ids: dict[str, int] = {}
    for values in (config, inner if isinstance(inner, dict) else {}, generation):
        for role in ROLES:
            if found := _ids(values.get(f"{role}_token_id")):
                ids.setdefault(role, found[0])
    ends = _ids(generation.get("eos_token_id")) or _ids(config.get("eos_token_id"))
    if not ends and isinstance(inner, dict):
        ends = _ids(inner.get("eos_token_id"))
    return Declared(roles, tuple(dict.fromkeys(extra)), ids, ends)


def _stands_in(roles: Mapping[str, str], role: str, other: str) -> bool:
    return role not in roles and other in roles


def text_of(entry: Any) -> str | None:
    """A token given as its text, or as an object with `content`; None where there is none."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) and entry else None


def _texts(entries: Any) -> Iterator[str]:
    if isinstance(entries, dict):
        entries = list(entries.values())
    for entry in entries if isinstance(entries, list) else []:
        if (text := text_of(entry)) is not None:
            yield text


def _ids(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(item for item in values if type(item) is int and item >= 0))


def listed_elsewhere(tokenizer_config: Mapping[str, Any], added_tokens: Mapping[str, Any]) -> Iterator[AddedToken]:
    """Tokens that tokenizer_config.json and added_tokens.json add. Raises CorruptFile for damaged entries."""
    decoder = tokenizer_config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise CorruptFile("tokenizer_config.json: added_tokens_decoder is not an object")
    for key, entry in decoder.items():
        text = entry.get("content") if isinstance(entry, dict) else None
        if not (key.isascii() and key.isdigit() and len(key) < 10) or not isinstance(text, str):
            raise CorruptFile(f"tokenizer_config.json: added token {shorten(repr(key), 40)} is damaged")
        flags = (entry.get(flag) is True for flag in ("special", "lstrip", "rstrip", "normalized", "single_word"))
        yield AddedToken(int(key), text, *flags)
    for text, place in added_tokens.items():
        if type(place) is not int or place < 0:
            raise CorruptFile(f"added_tokens.json: {shorten(repr(text), 40)} has no id")
        yield AddedToken(place, text, special=False)


def looks_like_control(text: str) -> bool:
    """Whether a token that is not marked special is a mark of the format all the same.

    Many tokenizers leave their turn marks unmarked (DeepSeek's `<｜User｜>`, OLMo's `<|im_start|>`). As ordinary
    tokens they would be recognised in a user's text, who could then speak for the system.
    """
    return (
        (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
        or text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
    )


def type_of(token: AddedToken, named: Iterable[str]) -> int:
    """CONTROL for special tokens and those with a role; USER_DEFINED for others, found in any text."""
    if token.text in VISIBLE:
        return int(TokenType.USER_DEFINED)
    control = token.special or token.text in named or looks_like_control(token.text)
    return int(TokenType.CONTROL if control else TokenType.USER_DEFINED)


@dataclass
class Roles:
    """Ids by the engine's roles, and the ids that end a reply."""

    ids: dict[str, int]
    ends: tuple[int, ...]
    unexpressed: tuple[int, ...]
    """Ends that neither their text nor a key makes the engine recognise."""
    warnings: list[str]


def resolve(
    declared: Declared, own: Mapping[str, str], unknown: int | None, tokens: Sequence[str], types: Sequence[int]
) -> Roles:
    """Ids of the roles: by the declared text, else by the tokenizer's own, else by id.

    An id from config.json counts only if its token is no ordinary text: many fine-tunes keep the ids of another
    tokenizer there.
    """
    places = {text: place for place, text in enumerate(tokens)}
    found, warnings = {}, []
    for role, key in ROLES.items():
        text = declared.roles.get(role, own.get(role))
        place = places.get(text) if text is not None else None
        if text is not None and place is None:
            warnings.append(f"the {role} token {shorten(repr(text), 40)} is not in the vocabulary")
        if place is None and role in declared.ids:
            place = declared.ids[role] if _is_mark(declared.ids[role], types) else None
            if place is None and role in ("bos", "eos"):
                warnings.append(f"config.json's {role}_token_id {declared.ids[role]} is no special token; left out")
        if place is None and role == "unk":
            place = unknown
        if place is not None:
            found[key] = place
    ends = tuple(place for place in declared.ends if _is_mark(place, types))
    return Roles(found, ends, (), warnings)


def _is_mark(place: int, types: Sequence[int]) -> bool:
    return place < len(types) and types[place] in (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)


def ordinary_ends(tokens: Sequence[str], types: Sequence[int]) -> tuple[int, ...]:
    """Tokens of ordinary text that the engine takes for the end of a reply because of how they read."""
    normal = int(TokenType.NORMAL)
    return tuple(place for place, text in enumerate(tokens) if text in ENDS_BY_TEXT and types[place] == normal)


def express_ends(roles: Roles, tokens: Sequence[str]) -> None:
    """Make the engine stop where the model does: what it does not know by text goes to the keys `eot` and `eom`.

    The engine takes for an end: the tokens whose text it knows (ENDS_BY_TEXT), `eos`, `eot` and `eom`. So two ends
    beyond EOS can be expressed whatever their text; a third one cannot, nor can a file say that a token which the
    engine knows by its text does not end a reply.
    """
    eos = roles.ids.get("eos")
    ends = dict.fromkeys((*((eos,) if eos is not None else ()), *roles.ends))
    hidden = [place for place in ends if place != eos and tokens[place] not in ENDS_BY_TEXT]
    for key in ("eot", "eom"):
        if hidden:
            roles.ids[key] = hidden.pop(0)
    roles.ends = tuple(sorted(ends))
    roles.unexpressed = tuple(hidden)
    if hidden:
        names = ", ".join(shorten(repr(tokens[place]), 40) for place in hidden)
        roles.warnings.append(f"other programs will not stop at {names}: the file has no key for more ends of a reply")

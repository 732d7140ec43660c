"""The tokenizer of a checkpoint as a Vocabulary: which of its files counts, and what each contributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamacli.checkpoint.added_tokens import found_by_us, with_flags
from llamacli.checkpoint.chat_template import read_templates
from llamacli.checkpoint.checkpoint import read_json
from llamacli.checkpoint.draft import SPACE, AddedToken, Draft, check_room
from llamacli.checkpoint.legacy_tokenizers import read_bpe_files, read_wordpiece_file
from llamacli.checkpoint.pretokenizers import shorten
from llamacli.checkpoint.sentencepiece import read_sentencepiece
from llamacli.checkpoint.source import Source
from llamacli.checkpoint.special_tokens import (
    Declared,
    Roles,
    express_ends,
    listed_elsewhere,
    ordinary_ends,
    read_declared,
    resolve,
    type_of,
)
from llamacli.checkpoint.tekken import read_tekken
from llamacli.checkpoint.tokenizer_json import read_tokenizer_json
from llamacli.checkpoint.tokenizer_parts import Hints
from llamacli.checkpoint.vocabulary import Mends, TokenType, Vocabulary
from llamacli.errors import CorruptFile, Unsupported

__all__ = ["Mends", "TokenType", "Vocabulary", "read_vocabulary"]


def read_vocabulary(source: Source, config: Mapping[str, Any], rows: int) -> Vocabulary:
    """The vocabulary of `source` for an embedding of `rows` rows.

    `config` is config.json. Rows without a token become `[PADn]`, unused. Raises CorruptFile for damaged or
    contradictory files and for a vocabulary larger than the embedding, and Unsupported for a tokenizer that the
    engine does not know.
    """
    settings = _Settings.read(source, config)
    draft = read_draft(source, settings, rows)
    added = _added(draft, settings, rows)
    tokens, types, scores, warnings = _in_rows(draft, added, settings.declared, rows)
    roles = resolve(settings.declared, draft.roles, draft.unknown, tokens, types)
    wrapping = _wrap(draft, settings, roles, tokens)
    express_ends(roles, tokens)
    templates = read_templates(source, settings.tokenizer)
    strips = {token.id: token for token in added if token.id < rows}
    found = found_by_us(draft, [token for token in added if token.id < rows], types)
    return Vocabulary(
        model=draft.model,
        pre=draft.pre,
        tokens=tuple(tokens),
        types=tuple(types),
        scores=scores,
        merges=draft.merges,
        special=roles.ids,
        add_bos=wrapping.add_bos,
        add_eos=wrapping.add_eos,
        add_sep=wrapping.add_sep,
        add_space_prefix=draft.add_space_prefix,
        remove_extra_whitespaces=draft.remove_extra_whitespaces,
        lowercase=draft.lowercase,
        strip_accents=draft.strip_accents,
        precompiled_charsmap=draft.precompiled_charsmap,
        token_type_count=_segment_types(config) if draft.model == "bert" else None,
        chat_template=templates.default,
        chat_templates=dict(templates.named),
        end_of_turn=roles.ends,
        mends=replace(
            _inside_words(draft) if found.inside_words else draft.mends,
            prefix=wrapping.prefix,
            suffix=wrapping.suffix,
            strip_left=tuple(sorted(place for place, token in strips.items() if token.strip_left)),
            strip_right=tuple(sorted(place for place, token in strips.items() if token.strip_right)),
            end_of_turn=roles.unexpressed,
            ordinary=ordinary_ends(tokens, types),
            found=found.written,
            found_normalized=found.normalized,
            found_behind_space=found.behind_space,
            single_word=found.single_words,
            literal=_literal(draft.added),
        ),
        warnings=(*draft.warnings, *warnings, *found.warnings, *roles.warnings, *wrapping.warnings),
    )


def _inside_words(draft: Draft) -> Mends:
    """The mends of a vocabulary with tokens that the engine would find inside words."""
    if draft.model == "llama":
        return replace(draft.mends, cut="pairs")
    return replace(draft.mends, words=draft.cut)


@dataclass(frozen=True)
class _Settings:
    """The small files beside the tokenizer."""

    tokenizer: Mapping[str, Any]
    added: Mapping[str, Any]
    declared: Declared
    model_type: str

    @classmethod
    def read(cls, source: Source, config: Mapping[str, Any]) -> _Settings:
        files = source.files()

        def optional(name: str) -> Mapping[str, Any]:
            return read_json(source, name) if name in files else {}

        tokenizer = optional("tokenizer_config.json")
        declared = read_declared(
            tokenizer, optional("special_tokens_map.json"), config, optional("generation_config.json")
        )
        return cls(tokenizer, optional("added_tokens.json"), declared, str(config.get("model_type", "")))


def read_draft(source: Source, settings: _Settings, rows: int) -> Draft:
    """What the tokenizer's own file says.

    tokenizer.json comes first where there are several: transformers runs it, fine-tunes change it, and its merges give
    the very order that a tokenizer.model's scores only imply. A tokenizer.json with steps that the engine lacks gives
    way to a tokenizer.model beside it.
    """
    files = source.files()
    hints = Hints(
        settings.model_type,
        "bos" in settings.declared.roles or "bos" in settings.declared.ids,
        _flag(settings.tokenizer, "clean_up_tokenization_spaces"),
    )
    if "tokenizer.json" in files:
        try:
            return read_tokenizer_json(read_json(source, "tokenizer.json"), rows, hints)
        except Unsupported as error:
            if "tokenizer.model" not in files:
                raise
            draft = read_sentencepiece(source.read("tokenizer.model"), rows)
            return replace(draft, warnings=(*draft.warnings, f"tokenizer.model is used: {error.message}"))
    if "tekken.json" in files:
        return read_tekken(read_json(source, "tekken.json"), rows)
    if "tokenizer.model" in files:
        return read_sentencepiece(source.read("tokenizer.model"), rows)
    if "vocab.json" in files and "merges.txt" in files:
        return read_tokenizer_json(read_bpe_files(source, settings.tokenizer), rows, hints)
    if "vocab.txt" in files:
        return read_tokenizer_json(read_wordpiece_file(source, settings.tokenizer), rows, hints)
    if found := [name for name in files if name.endswith(".tiktoken") or name == "tiktoken.model"]:
        raise Unsupported(
            f"{source.label} has only a tiktoken vocabulary ({found[0]})",
            "it does not say how text is cut; load and save the tokenizer with transformers, which writes tokenizer.json",
        )
    raise Unsupported(
        f"{source.label} has no tokenizer",
        "a checkpoint needs tokenizer.json, tokenizer.model or tekken.json; copy it from the model it was tuned from",
    )


def _added(draft: Draft, settings: _Settings, rows: int) -> list[AddedToken]:
    """All added tokens, one for each text: the tokenizer's own first, then those that other files add.

    Beside a tokenizer.json nobody reads added_tokens.json. What is declared special and is nowhere comes last of all.
    """
    known = {token.text: token for token in reversed(draft.added)}
    for token in listed_elsewhere(settings.tokenizer, {} if draft.file == "tokenizer.json" else settings.added):
        former = known.get(token.text)
        known[token.text] = with_flags(former, token) if former else token
    if draft.file == "tokenizer.json":
        there = {*known, *draft.tokens}
        place = max(len(draft.tokens), *(token.id + 1 for token in known.values()), 0)
        for text in settings.declared.names():
            if text not in there and place < rows:
                known[text] = AddedToken(place, text)
                place += 1
    return sorted(known.values(), key=lambda token: token.id)


def _in_rows(
    draft: Draft, added: Sequence[AddedToken], declared: Declared, rows: int
) -> tuple[list[str], list[int], tuple[float, ...] | None, list[str]]:
    """Texts, types and scores for every row of the embedding, and what had to be left out."""
    texts: list[str | None] = [*draft.tokens, *[None] * (rows - len(draft.tokens))]
    types = [*draft.types, *[int(TokenType.UNUSED)] * (rows - len(draft.types))]
    if draft.unknown is not None and types[draft.unknown] == TokenType.NORMAL:
        types[draft.unknown] = int(TokenType.UNKNOWN)
    warnings: list[str] = []
    places = {text: place for place, text in enumerate(draft.tokens) if text is not None}
    around = (*(draft.wrapping.prefix or ()), *(draft.wrapping.suffix or ()))
    named = {*declared.roles.values(), *declared.extra, *draft.roles.values(), *around}
    for token in added:
        place = places.get(token.text, token.id)
        if place >= rows:
            _drop(token, declared, rows, draft.file, warnings)
        elif texts[place] not in (None, token.text):
            both = f"{shorten(repr(texts[place]), 40)} and the added token {shorten(repr(token.text), 40)}"
            if token in draft.added:
                raise CorruptFile(
                    f"{draft.file}: id {place} is both {both}", "the tokenizer is damaged; fetch it again"
                )
            warnings.append(f"{draft.file} and another file disagree about id {place}, {both}; the first is followed")
        elif token.special or texts[place] is None or SPACE not in token.text:
            # An unmarked token of visible spaces stays an ordinary one: it never stands in a text as it is written.
            listed_byte = texts[place] is not None and types[place] == TokenType.BYTE
            texts[place], types[place] = token.text, types[place] if listed_byte else type_of(token, named)
            places[token.text] = place
    for text in named:  # tokens with a part to play need not be listed as added
        if (place := places.get(text, rows)) < rows and types[place] == TokenType.NORMAL:
            types[place] = int(TokenType.CONTROL)
    if draft.phantom_spaces:
        texts = [_phantom(text, kind) for text, kind in zip(texts, types, strict=True)]
    scores = None
    if draft.scores is not None:
        lowest = min(draft.scores, default=0.0)
        scores = (*draft.scores, *[lowest] * (rows - len(draft.scores)))
    return _named(texts, types, draft.file, warnings), types, scores, warnings


def _literal(added: Sequence[AddedToken]) -> tuple[str, ...]:
    """Added tokens of visible spaces, longest first: ordinary pieces to the engine, which takes spaces for them."""
    apart = {token.text for token in added if not token.special and not token.normalized and SPACE in token.text}
    return tuple(sorted(apart, key=len, reverse=True))


def _drop(token: AddedToken, declared: Declared, rows: int, file: str, warnings: list[str]) -> None:
    """Leave out a padding token without a row, which many fine-tunes add and no model uses; refuse any other."""
    if token.text not in (declared.roles.get("pad"), "[PAD]", "<pad>") or token.text == declared.roles.get("eos"):
        check_room(token.id + 1, rows, file)
    warnings.append(f"the padding token {shorten(repr(token.text), 40)} has no row in the embedding; left out")


def _phantom(text: str | None, kind: int) -> str | None:
    """WordPiece as the engine has it: words begin with a visible space, word endings with nothing."""
    if text is None or kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED):
        return text
    return text[2:] if text.startswith("##") else SPACE + text


def _named(texts: Sequence[str | None], types: list[int], file: str, warnings: list[str]) -> list[str]:
    """A text of its own for every id: the engine aborts when two tokens are equal."""
    taken: set[str] = set()
    tokens: list[str] = []
    for place, text in enumerate(texts):
        if text is not None and text in taken:
            warnings.append(f"{file}: token {place} repeats {shorten(repr(text), 40)} and is left out")
            text = None
        if text is None:
            types[place] = int(TokenType.UNUSED)
            tokens.append("")
        else:
            taken.add(text)
            tokens.append(text)
    for place in range(len(tokens)):
        if types[place] == TokenType.UNUSED and not tokens[place]:
            tokens[place] = _padding(place, taken)
    _check_texts(tokens, file)
    return tokens


def _padding(place: int, taken: set[str]) -> str:
    text = f"[PAD{place}]"
    while text in taken:
        text += "_"
    taken.add(text)
    return text


def _check_texts(tokens: Sequence[str], file: str) -> None:
    everything = "".join(tokens)
    if "\0" in everything:
        place = next(place for place, text in enumerate(tokens) if "\0" in text)
        raise CorruptFile(f"{file}: token {place} contains a NUL character, which ends a text in the engine")
    try:
        everything.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorruptFile(f"{file}: a token is not valid Unicode (half of a surrogate pair)") from error


@dataclass(frozen=True)
class _Wrapped:
    """What stands around every prompt, as far as the engine's switches can say it, and the rest."""

    add_bos: bool
    add_eos: bool
    add_sep: bool | None
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    warnings: tuple[str, ...]


def _wrap(draft: Draft, settings: _Settings, roles: Roles, tokens: Sequence[str]) -> _Wrapped:
    """The post-processor's tokens, else tokenizer_config.json's switches; BOS and EOS in `roles` follow it.

    The engine puts one BOS in front and one EOS behind: the first token in front becomes BOS, a single one behind
    becomes EOS (an embedding model ends every text with another token than a reply). Longer ones go to Mends.
    """
    places = {text: place for place, text in enumerate(tokens)}
    warnings: list[str] = []

    def ids(texts: tuple[str, ...] | None) -> tuple[int, ...]:
        if texts and any(text not in places for text in texts):
            raise CorruptFile(f"{draft.file}: the post-processor adds {texts!r}, which is not in the vocabulary")
        return tuple(places[text] for text in texts or ())

    prefix, suffix = ids(draft.wrapping.prefix), ids(draft.wrapping.suffix)
    add_bos, add_eos = bool(prefix), bool(suffix)
    for name, given, ours in (
        ("add_bos_token", draft.wrapping.prefix, add_bos),
        ("add_eos_token", draft.wrapping.suffix, add_eos),
    ):
        switch = _flag(settings.tokenizer, name)
        if switch is not None and given is not None and switch != ours:
            warnings.append(f"tokenizer_config.json's {name} contradicts the post-processor, which is followed")
    # Beside a tokenizer.json transformers takes no heed of the switches; one without a post-processor adds nothing.
    switches = settings.tokenizer if draft.file != "tokenizer.json" else {}
    if draft.wrapping.prefix is None:
        # A SentencePiece model alone says nothing; Llama's tokenizer class adds BOS unless told otherwise.
        default = draft.file == "tokenizer.model" and draft.model == "llama"
        switch = _flag(switches, "add_bos_token")
        add_bos = bool(default if switch is None else switch) and "bos" in roles.ids
    if draft.wrapping.suffix is None:
        switch = _flag(switches, "add_eos_token")
        default = draft.file == "tokenizer.model" and draft.model == "t5"
        add_eos = bool(default if switch is None else switch) and "eos" in roles.ids
    _adopt(prefix, suffix, roles)
    if draft.model == "bert" and not ("bos" in roles.ids and "seperator" in roles.ids and "unknown" in roles.ids):
        raise Unsupported(f"{draft.file}: a WordPiece tokenizer without [CLS], [SEP] or [UNK]")
    return _Wrapped(
        add_bos,
        add_eos,
        draft.wrapping.separates_pairs,
        prefix if len(prefix) > 1 else (),
        suffix if len(suffix) > 1 else (),
        tuple(warnings),
    )


def _adopt(prefix: tuple[int, ...], suffix: tuple[int, ...], roles: Roles) -> None:
    if prefix:
        roles.ids["bos"] = prefix[0]
    if suffix:
        former = roles.ids.get("eos")
        roles.ids["eos"] = suffix[-1]
        if former is not None and former != suffix[-1]:
            roles.ends = (former, *roles.ends)


def _flag(values: Mapping[str, Any], key: str) -> bool | None:
    value = values.get(key)
    return value if isinstance(value, bool) else None


def _segment_types(config: Mapping[str, Any]) -> int:
    count = config.get("type_vocab_size", 1)
    return count if type(count) is int and 0 < count < 1 << 16 else 1

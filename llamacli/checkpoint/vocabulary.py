"""The value that a tokenizer becomes: tokens with types, merges or scores, special ids, and what no file can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from llamacli.formats.gguf_values import Value, ValueType, array, boolean, string, u32


class TokenType(IntEnum):
    """The types that llama.cpp gives tokens (`tokenizer.ggml.token_type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SPECIAL_KEYS: tuple[str, ...] = (
    "bos", "eos", "unknown", "seperator", "padding", "mask", "eot", "eom",
    "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
)  # fmt: skip
"""Roles of special tokens as the engine spells them in `tokenizer.ggml.<role>_token_id`, in writing order."""


@dataclass(frozen=True)
class Mends:
    """What the tokenizer does and the engine does not: a runtime can do it around the engine.

    Written under `tokenizer.llamacli.*`, which the engine ignores. Empty for most models.
    """

    normalizer: str = ""
    """Unicode form (`NFC`, `NFKC`, ...) that ordinary text is brought to before it is tokenized.

    `charsmap`: what `precompiled_charsmap` makes of it.
    """
    spaces: str = ""
    """`single`: runs of spaces count as one, and those at either end not at all."""
    space_prefix: str = ""
    """`first`: a space goes in front of the first text only, not after special tokens, and only if none is there.

    `missing`: in front of every stretch of text that does not begin with one. The engine, left alone, puts one in
    front of every stretch.
    """
    cut: str = ""
    """Name of the cut into words that our runtime makes instead of the engine; see `formats/expressions.py`.

    Of scored pieces: `clusters`, `sentencepiece` or `pairs`, the ways to find them that the runtime has.
    """
    steps: tuple[str, ...] = ()
    """What becomes of a text before it is taken apart, where no engine does so: see the runtime's `word_pieces.py` for
    WordPiece, `text_steps.py` for unigram models."""
    longest_word: int = 0
    """Characters of a word, beyond which WordPiece takes it for unknown, where they are not 100."""
    words: tuple[str, ...] = ()
    """The steps of the cut into words, where added tokens are found inside words by the engine, and must not be."""
    scores: tuple[float, ...] = ()
    """The scores of unigram pieces where single precision, which the engine's key has, does not hold them."""
    unknown: str = ""
    """`each`: every unknown character is a token; otherwise one stands for all in a row."""
    prefix: tuple[int, ...] = ()
    """Ids in front of every prompt, where they are not just the BOS token (GLM: `[gMASK]<sop>`)."""
    suffix: tuple[int, ...] = ()
    """Ids after every prompt, where they are not just the EOS token."""
    strip_left: tuple[int, ...] = ()
    """Special tokens that swallow the white space in front of them."""
    strip_right: tuple[int, ...] = ()
    """Special tokens that swallow the white space after them (Phi-3)."""
    end_of_turn: tuple[int, ...] = ()
    """Ids that end a reply and that the engine would not recognise by their text, `eos`, `eot` or `eom`."""
    ordinary: tuple[int, ...] = ()
    """Ids of ordinary text that the engine, by their text, takes for the end of a reply (Qwen's `</s>`)."""
    found: tuple[int, ...] = ()
    """Added tokens to be looked for in text as it is written, where the engine would find others or leave white space."""
    found_normalized: tuple[int, ...] = ()
    """Those to be looked for in text once it has its Unicode form."""
    found_behind_space: tuple[int, ...] = ()
    """Those to be looked for with a space in front, or at the beginning of a text, which they swallow; what follows them gets
    no space of its own (added tokens that Llama 2's normalizer is let loose on)."""
    single_word: tuple[int, ...] = ()
    """Those that count only where no letter, digit or the like stands beside them."""
    literal: tuple[str, ...] = ()
    """Pieces of visible spaces that are found in text as it is written, before its own spaces become visible (Gemma)."""

    def metadata(self) -> dict[str, Value]:
        """The keys for what is not empty."""
        values: dict[str, Value] = {}
        for name in ("normalizer", "spaces", "space_prefix", "cut", "unknown"):
            if text := getattr(self, name):
                values[f"tokenizer.llamacli.{name}"] = string(text)
        if self.scores:
            values["tokenizer.llamacli.scores"] = array(ValueType.FLOAT64, self.scores)
        if self.longest_word:
            values["tokenizer.llamacli.longest_word"] = u32(self.longest_word)
        for name in ("literal", "words", "steps"):
            if texts := getattr(self, name):
                values[f"tokenizer.llamacli.{name}"] = array(ValueType.STRING, texts)
        for name in _IDS:
            if ids := getattr(self, name):
                values[f"tokenizer.llamacli.{name}"] = array(ValueType.UINT32, ids)
        return values


_IDS = (
    "prefix", "suffix", "strip_left", "strip_right", "end_of_turn", "ordinary", "found", "found_normalized",
    "found_behind_space", "single_word",
)  # fmt: skip
NO_MENDS = Mends()


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as llama.cpp takes it: as many tokens as the embedding has rows."""

    model: str
    """`tokenizer.ggml.model`: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE), `bert`, `t5` (unigram), ..."""
    pre: str
    """`tokenizer.ggml.pre`: the engine's name of the pre-tokenizer; `default` where there is none."""
    tokens: tuple[str | bytes, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    merges: tuple[str, ...] | None = None
    special: Mapping[str, int] = field(default_factory=dict)
    """Role (see SPECIAL_KEYS) to id."""
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_sep: bool | None = None
    add_space_prefix: bool | None = None
    remove_extra_whitespaces: bool | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None
    precompiled_charsmap: bytes | None = None
    """SentencePiece's compiled normalizer; the engine heeds it for unigram models only."""
    token_type_count: int | None = None
    """Segment types of BERT-like models."""
    chat_template: str | None = None
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    """Further templates by name, the default one not among them."""
    end_of_turn: tuple[int, ...] = ()
    """All ids that end a reply, by generation_config.json, config.json and the tokenizer's own EOS; sorted."""
    mends: Mends = NO_MENDS
    warnings: tuple[str, ...] = ()
    """What the file cannot express or what the sources contradict each other in: one line each."""

    def metadata(self) -> dict[str, Value]:
        """All `tokenizer.*` keys with their types on disk, in the order of llama.cpp's own converter."""
        values: dict[str, Value] = {}
        if self.token_type_count is not None:
            values["tokenizer.ggml.token_type_count"] = u32(self.token_type_count)
        values["tokenizer.ggml.model"] = string(self.model)
        values["tokenizer.ggml.pre"] = string(self.pre)
        values["tokenizer.ggml.tokens"] = array(ValueType.STRING, self.tokens)
        if self.scores is not None:
            values["tokenizer.ggml.scores"] = array(ValueType.FLOAT32, self.scores)
        values["tokenizer.ggml.token_type"] = array(ValueType.INT32, self.types)
        if self.merges is not None:
            values["tokenizer.ggml.merges"] = array(ValueType.STRING, self.merges)
        for role in SPECIAL_KEYS:
            if role in self.special:
                values[f"tokenizer.ggml.{role}_token_id"] = u32(self.special[role])
        values.update(self._switches())
        if self.precompiled_charsmap is not None:
            values["tokenizer.ggml.precompiled_charsmap"] = array(ValueType.UINT8, self.precompiled_charsmap)
        values.update(self._templates())
        values.update(self.mends.metadata())
        return values

    def _switches(self) -> dict[str, Value]:
        switches = (
            ("add_bos_token", self.add_bos),
            ("add_eos_token", self.add_eos),
            ("add_sep_token", self.add_sep),
            ("add_space_prefix", self.add_space_prefix),
            ("remove_extra_whitespaces", self.remove_extra_whitespaces),
            ("normalizer.lowercase", self.lowercase),
            ("normalizer.strip_accents", self.strip_accents),
        )
        return {f"tokenizer.ggml.{name}": boolean(value) for name, value in switches if value is not None}

    def _templates(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name, template in self.chat_templates.items():
            values[f"tokenizer.chat_template.{name}"] = string(template)
        if self.chat_templates:
            values["tokenizer.chat_templates"] = array(ValueType.STRING, self.chat_templates)
        if self.chat_template is not None:
            values["tokenizer.chat_template"] = string(self.chat_template)
        return values

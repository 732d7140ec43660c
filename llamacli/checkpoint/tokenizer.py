"""The tokenizer of a checkpoint as a Vocabulary: which of its files counts, and what each contributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacli.checkpoint.source import Source
from llamacli.checkpoint.vocabulary import Mends, TokenType, Vocabulary
from llamacli.errors import Unsupported

__all__ = ["Mends", "TokenType", "Vocabulary", "read_vocabulary"]


def read_vocabulary(source: Source, config: Mapping[str, Any], rows: int) -> Vocabulary:
    """The vocabulary of `source` for an embedding of `rows` rows.

    `config` is config.json. Rows without a token become `[PADn]`, unused. Raises CorruptFile for damaged or
    contradictory files and Unsupported for a tokenizer that the engine does not know.
    """
    raise Unsupported(f"{source.label} has no tokenizer")

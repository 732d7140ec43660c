"""The real engine's tokenizer for a Vocabulary: a GGUF with metadata and no weights, loaded `vocab_only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamacli.checkpoint.tokenizer import Vocabulary
from llamacli.formats.gguf_encode import encode_header
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.gguf_values import Value, string, u32
from llamacli.runtime import bindings
from llamacli.runtime.known_text import known_text
from llamacli.runtime.messages import Span
from llamacli.runtime.text_mends import TextMends
from llamacli.runtime.vocab import Vocab


def write_vocabulary(vocabulary: Vocabulary, path: Path, name: str = "test") -> Path:
    """A GGUF that holds only the tokenizer."""
    metadata: dict[str, Value] = {
        "general.architecture": string("llama"),
        "general.name": string(name),
        "llama.context_length": u32(512),
        "llama.embedding_length": u32(32),
        "llama.block_count": u32(1),
        "llama.vocab_size": u32(len(vocabulary.tokens)),
    }
    path.write_bytes(encode_header({**metadata, **vocabulary.metadata()}, []))
    return path


class EngineTokenizer:
    """What llama.cpp makes of a vocabulary, alone and with what our runtime does around it."""

    def __init__(self, vocabulary: Vocabulary, folder: Path, name: str = "test") -> None:
        path = write_vocabulary(vocabulary, folder / "vocabulary.gguf", name)
        self._lib = bindings.load()
        params = self._lib.llama_model_default_params()
        params.vocab_only = True
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ValueError(f"the engine does not load {path}")
        gguf = read_gguf(path)
        self.mended = Vocab(self._lib, self._model, known_text(gguf), TextMends.from_gguf(gguf))
        self.alone = Vocab(self._lib, self._model, known_text(gguf))

    def __enter__(self) -> EngineTokenizer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._lib.llama_model_free(self._model)

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Ids of `text` as every program that uses the engine gets them."""
        return self.alone.encode(text, add_special=add_special, parse_special=parse_special)

    def encode_mended(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of `text` as our runtime gets them."""
        return self.mended.tokens((Span(text, control=True),), add_special=add_special)

    def ends(self) -> list[int]:
        """The ids that end a reply."""
        return self.mended.end_tokens()

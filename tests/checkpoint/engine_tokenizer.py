"""The real engine's tokenizer for a Vocabulary: a GGUF with metadata and no weights, loaded `vocab_only`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lc

from llamacli.checkpoint.tokenizer import Vocabulary
from llamacli.formats.gguf_encode import encode_header
from llamacli.formats.gguf_values import Value, string, u32

_SILENCE = lc.llama_log_callback(lambda level, text, data: None)


def write_vocabulary(vocabulary: Vocabulary, path: Path, name: str = "test", architecture: str = "llama") -> Path:
    """A GGUF that holds only the tokenizer."""
    metadata: dict[str, Value] = {
        "general.architecture": string(architecture),
        "general.name": string(name),
        f"{architecture}.context_length": u32(512),
        f"{architecture}.embedding_length": u32(32),
        f"{architecture}.block_count": u32(1),
        f"{architecture}.vocab_size": u32(len(vocabulary.tokens)),
    }
    path.write_bytes(encode_header({**metadata, **vocabulary.metadata()}, []))
    return path


class EngineTokenizer:
    """What llama.cpp makes of a vocabulary. Close it, or use it as a context."""

    def __init__(self, vocabulary: Vocabulary, folder: Path, name: str = "test") -> None:
        path = write_vocabulary(vocabulary, folder / "vocabulary.gguf", name)
        lc.llama_log_set(_SILENCE, ctypes.c_void_p())
        lc.llama_backend_init()
        params = lc.llama_model_default_params()
        params.vocab_only = True
        self._model = lc.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ValueError(f"the engine does not load {path}")
        self._vocab = lc.llama_model_get_vocab(self._model)

    def __enter__(self) -> EngineTokenizer:
        return self

    def __exit__(self, *exception: Any) -> None:
        lc.llama_model_free(self._model)

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Ids of `text`."""
        data = text.encode("utf-8")
        size = len(data) + 16
        ids = (lc.llama_token * size)()
        count = lc.llama_tokenize(self._vocab, data, len(data), ids, size, add_special, parse_special)
        if count < 0:
            raise ValueError(f"{-count} tokens for {text!r}")
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for, special ones included."""
        size = 64
        buffer = ctypes.create_string_buffer(size)
        length = lc.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = lc.llama_token_to_piece(self._vocab, token, buffer, -length, 0, True)
        return buffer.raw[:length]

    def ends(self, count: int) -> list[int]:
        """The ids below `count` that end a reply."""
        return [token for token in range(count) if lc.llama_vocab_is_eog(self._vocab, token)]

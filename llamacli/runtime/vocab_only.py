"""A model's vocabulary without its weights: quick, and small for any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamacli.errors import EngineError
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import read_gguf
from llamacli.runtime import bindings
from llamacli.runtime.known_text import known_text
from llamacli.runtime.load import file_name
from llamacli.runtime.messages import Span
from llamacli.runtime.text_mends import TextMends
from llamacli.runtime.vocab import Vocab


def open_vocab(path: Path) -> VocabOnly:
    """Load the vocabulary of a model file. Raises NotFound, CorruptFile, Unsupported, EngineError."""
    return VocabOnly(path)


class VocabOnly:
    """A vocabulary. Freed by `close`."""

    def __init__(self, path: Path) -> None:
        self._model: Any = None
        self._lib = bindings.load()
        gguf = read_gguf(path)
        check_safe(gguf)
        parameters = self._lib.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self._lib.llama_model_load_from_file(file_name(path), parameters)
        if not self._model:
            raise EngineError(f"the engine cannot read the vocabulary of {path.name}", bindings.failure_hint())
        self.vocab = Vocab(self._lib, self._model, known_text(gguf), TextMends.from_gguf(gguf))

    def tokens(self, text: str, *, special: bool = False, add_special: bool = True) -> list[int]:
        """Token ids of a text; control tokens in it are recognised only with `special`."""
        return self.vocab.tokens((Span(text, special),), add_special=add_special)

    def piece(self, token: int) -> str:
        """The text of a token; bytes that are no whole character are shown as replacement characters."""
        return self.vocab.piece(token, special=True).decode("utf-8", "replace")

    def close(self) -> None:
        """Free it. Calling it twice does no harm."""
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> VocabOnly:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

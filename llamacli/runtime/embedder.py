"""Texts to vectors: a model's own pooling, several texts in one batch, unit length.

Works with embedding models (BERT and its kin, and decoders that were trained for it) and, by the mean over all tokens,
with any other model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llamacli.errors import ContextOverflow, DoesNotFit, EngineError, Unsupported
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.runtime import bindings
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.engine_context import FLASH_ATTENTION, check_settings, whole_cells
from llamacli.runtime.known_text import known_text
from llamacli.runtime.load import load_weights
from llamacli.runtime.messages import Span
from llamacli.runtime.placement import placed
from llamacli.runtime.processors import processor
from llamacli.runtime.text_mends import TextMends
from llamacli.runtime.vocab import Vocab

POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3}
"""llama.cpp's numbers; a model that ranks (4) gives no vectors."""

_OWN, _RANK = -1, 4
TEXTS = 16
"""Texts that are evaluated at once, as long as they fit a batch together."""

LONGEST = 8192
"""Tokens of a text, at most, unless -c says otherwise."""


def open_embedder(path: Path, settings: EngineSettings, *, pooling: str = "") -> Embedder:
    """Check a model file and load it. `pooling` (of POOLING) overrides the model's own.

    Raises NotFound, CorruptFile, Unsupported, UsageError, DoesNotFit, EngineError.
    """
    gguf = read_gguf(path)
    check_safe(gguf)
    return Embedder(gguf, settings, pooling)


class Embedder:
    """A loaded model that makes vectors of `size` numbers. Freed by `close`."""

    def __init__(self, gguf: GGUF, settings: EngineSettings, pooling: str = "") -> None:
        cpu = processor()
        check_settings(settings, cpu.logical)
        self._lib = bindings.load()
        settings, _ = placed(gguf, settings)
        self._settings, self._gguf = settings, gguf
        self._threads = settings.threads or cpu.threads
        self._context: Any = None
        self._batch: Any = None
        self._model = load_weights(self._lib, gguf, settings, None)
        try:
            self.vocab = Vocab(self._lib, self._model, known_text(gguf), TextMends.from_gguf(gguf))
            if self._lib.llama_model_has_encoder(self._model) and self._lib.llama_model_has_decoder(self._model):
                raise Unsupported(f"{gguf.path.name} translates text; it makes no vectors here")
            trained = int(self._lib.llama_model_n_ctx_train(self._model))
            self.longest = min(settings.ctx_size or LONGEST, trained) if trained > 0 else settings.ctx_size or LONGEST
            self._open(POOLING[pooling] if pooling else _OWN)
        except BaseException:
            self.close()
            raise
        self.size = int(getattr(self._lib, "llama_model_n_embd_out", self._lib.llama_model_n_embd)(self._model))

    def _open(self, pooling: int) -> None:
        self._create(pooling)
        kind = self._lib.llama_pooling_type(self._context)
        if kind == _RANK:
            raise Unsupported(
                f"{self._gguf.path.name} ranks pairs of texts; it makes no vectors",
                "llama.cpp's llama-server --reranking ranks with it",
            )
        if kind == POOLING["none"] and pooling == _OWN:
            self._lib.llama_free(self._context)
            self._create(POOLING["mean"])
        self.pooling = {number: name for name, number in POOLING.items()}[self._lib.llama_pooling_type(self._context)]
        self._memory = self._lib.llama_get_memory(self._context)
        self._batch = self._lib.llama_batch_init(self._room, 0, 1)

    def _create(self, pooling: int) -> None:
        self._room = max(whole_cells(self.longest), self._settings.ubatch)
        parameters = self._lib.llama_context_default_params()
        # A model that looks both ways must see the whole text in one step.
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = self._room
        parameters.n_seq_max = TEXTS
        parameters.kv_unified = True
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.flash_attn_type = FLASH_ATTENTION[self._settings.flash_attn]
        parameters.embeddings = True
        parameters.pooling_type = pooling
        parameters.no_perf = True
        self._context = self._lib.llama_init_from_model(self._model, parameters)
        if not self._context:
            said = bindings.failure_hint()
            kind = DoesNotFit if "alloc" in said.lower() else EngineError
            raise kind(f"the engine cannot make a context of {self._room:,} tokens", said)

    # -- use ---------------------------------------------------------------------------------------------------

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, with what the model wants before and behind it. Raises ContextOverflow."""
        ids = self.vocab.tokens((Span(text, False),), add_special=True)
        if len(ids) > self.longest:
            raise ContextOverflow(
                f"a text has {len(ids):,} tokens; this model takes {self.longest:,}", "cut it into parts"
            )
        return ids

    def embed(self, texts: Sequence[Sequence[int]], *, normalize: bool = True) -> Iterator[list[float]]:
        """One vector for each text (token ids), in order; of length 1 with `normalize`. Raises EngineError."""
        waiting: list[Sequence[int]] = []
        for tokens in texts:
            if waiting and (len(waiting) == TEXTS or sum(map(len, waiting)) + len(tokens) > self._room):
                yield from self._together(waiting, normalize)
                waiting = []
            waiting.append(tokens)
        if waiting:
            yield from self._together(waiting, normalize)

    def _together(self, texts: Sequence[Sequence[int]], normalize: bool) -> Iterator[list[float]]:
        batch, index = self._batch, 0
        for sequence, tokens in enumerate(texts):
            for position, token in enumerate(tokens):
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
                batch.logits[index] = True
                index += 1
        batch.n_tokens = index
        if self._memory:
            self._lib.llama_memory_clear(self._memory, True)
        compute = self._lib.llama_encode if not self._memory else self._lib.llama_decode
        if index and (result := compute(self._context, batch)):
            raise EngineError(f"the engine failed to evaluate a text (code {result})", bindings.failure_hint())
        for sequence, tokens in enumerate(texts):
            if not tokens:
                yield [0.0] * self.size
                continue
            pointer = self._lib.llama_get_embeddings_seq(self._context, sequence)
            if not pointer:
                raise EngineError("the engine gave no vector for a text", bindings.failure_hint())
            vector = [float(value) for value in pointer[: self.size]]
            yield unit(vector) if normalize else vector

    def close(self) -> None:
        """Free the model. Calling it twice does no harm."""
        if self._batch is not None:
            self._lib.llama_batch_free(self._batch)
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._batch = self._context = self._model = None

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def unit(vector: list[float]) -> list[float]:
    """The vector with length 1 (a vector of zeros stays). Raises EngineError for one with NaN."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    if math.isnan(length):
        raise EngineError("the model computes NaN instead of a vector", "its weights are damaged")
    return [value / length for value in vector] if length else vector

"""What the real engine computes from a GGUF file: logits of every position, or the vector of a text."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from llamacli.runtime import bindings


class Engine:
    """One file, loaded on the CPU with float32 caches, one thread, no flash attention: as exact as the engine gets."""

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        bindings.load()  # catches the engine's log, which other tests read
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise ValueError(f"the engine does not load {path}")
        self.adapter = llama.llama_adapter_lora_init(self.model, str(adapter).encode()) if adapter else None
        if adapter and not self.adapter:
            raise ValueError(f"the engine does not load {adapter}")
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: Any) -> None:
        llama.llama_model_free(self.model)

    def logits(self, tokens: Sequence[int], context: int = 0) -> np.ndarray:
        """(positions, vocabulary) float32. `context`: by default the length rounded up to 256."""
        return self._run(tokens, context or -(-len(tokens) // 256) * 256, pooling=None)

    def vectors(self, tokens: Sequence[int]) -> np.ndarray:
        """(positions, width) float32 of an encoder, before pooling."""
        return self._run(tokens, 256, pooling=0)

    def pooled(self, tokens: Sequence[int]) -> np.ndarray:
        """(1, width) float32 of an encoder, pooled as the file says."""
        return self._run(tokens, 256, pooling=-1)

    def ranked(self, tokens: Sequence[int]) -> np.ndarray:
        """(1, labels) float32: the scores of a classifier."""
        return self._run(tokens, 256, pooling=-1)

    def _run(self, tokens: Sequence[int], context: int, pooling: int | None) -> np.ndarray:
        params = llama.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = max(512, len(tokens))
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
        params.swa_full = True
        if pooling is not None:
            params.embeddings, params.pooling_type = True, pooling
        handle = llama.llama_init_from_model(self.model, params)
        if not handle:
            raise ValueError("the engine makes no context")
        if self.adapter:
            adapters = (type(self.adapter) * 1)(self.adapter)
            llama.llama_set_adapters_lora(handle, adapters, 1, (ctypes.c_float * 1)(1.0))
        try:
            self._decode(handle, tokens, encode=pooling is not None and not llama.llama_get_memory(handle))
            return self._output(handle, len(tokens), pooling)
        finally:
            llama.llama_free(handle)

    def _decode(self, handle: Any, tokens: Sequence[int], *, encode: bool) -> None:
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = int(token), place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = 1
        status = (llama.llama_encode if encode else llama.llama_decode)(handle, batch)
        llama.llama_batch_free(batch)
        if status:
            raise ValueError(f"the engine cannot compute this ({status})")

    def _output(self, handle: Any, positions: int, pooling: int | None) -> np.ndarray:
        if pooling is None:
            width = self.vocabulary
            rows = [llama.llama_get_logits_ith(handle, place) for place in range(positions)]
        elif pooling == 0:
            width = llama.llama_model_n_embd(self.model)
            rows = [llama.llama_get_embeddings_ith(handle, place) for place in range(positions)]
        else:
            scores = llama.llama_pooling_type(handle) == llama.LLAMA_POOLING_TYPE_RANK
            width = llama.llama_model_n_cls_out(self.model) if scores else llama.llama_model_n_embd(self.model)
            rows = [llama.llama_get_embeddings_seq(handle, 0)]
        return np.stack([np.ctypeslib.as_array(row, (width,)).copy() for row in rows])


def computed(engine: Engine, case: dict[str, Any]) -> np.ndarray:
    """What a case compares: a decoder's logits, an encoder's vectors, or a classifier's scores."""
    if case["vectors"] == "scores":
        return engine.ranked(case["tokens"])
    return engine.vectors(case["tokens"]) if case["vectors"] else engine.logits(case["tokens"], 256)


def nmse(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean squared error over the mean square of what is expected."""
    return float(((found - expected) ** 2).sum() / (expected**2).sum())

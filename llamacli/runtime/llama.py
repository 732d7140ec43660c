"""LlamaEngine: a GGUF model in this process, run by llama.cpp through its low-level functions.

Nothing here costs more than a few microseconds per token: the sampler chain is the engine's, no logits are copied, and
the text of a token is looked up once.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacli.errors import (
    ContextOverflow,
    EngineError,
    Interrupted,
    Unsupported,
    UsageError,
)
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.runtime import bindings
from llamacli.runtime.attention import attention
from llamacli.runtime.cache_size import ENCODERS
from llamacli.runtime.context_limit import context_limit
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.engine_context import check_settings, whole_cells
from llamacli.runtime.evaluator import Evaluator
from llamacli.runtime.generation import Generation
from llamacli.runtime.heap import give_back
from llamacli.runtime.known_text import known_text
from llamacli.runtime.load import OnLoading, load_adapters, load_weights
from llamacli.runtime.messages import Finish, Piece, Prompt, Sampling, Usage
from llamacli.runtime.placement import placed
from llamacli.runtime.processors import processor
from llamacli.runtime.sampler import Sampler
from llamacli.runtime.text_mends import TextMends
from llamacli.runtime.vocab import Vocab, control_names
from llamacli.runtime.writer import Writer

if TYPE_CHECKING:
    from llamacli.runtime.pictures import Pictures
    from llamacli.runtime.prefix_cache import PrefixCache
    from llamacli.runtime.speculate import Drafts

EXPECTED_ANSWER = 2048
"""Tokens for which room is made at first when no limit is given; the context grows when an answer is longer."""


def open_engine(
    path: Path,
    settings: EngineSettings,
    *,
    progress: OnLoading | None = None,
    meanwhile: Callable[[GGUF], object] | None = None,
) -> LlamaEngine:
    """Check a model file and load it; `meanwhile` is done in a thread of its own while the engine reads the weights.

    Raises NotFound, CorruptFile, Unsupported (what the file is), UsageError (settings), DoesNotFit, EngineError.
    """
    gguf = read_gguf(path)
    check_safe(gguf)
    if meanwhile is not None:
        threading.Thread(target=meanwhile, args=(gguf,)).start()
    return LlamaEngine(gguf, settings, progress=progress)


class LlamaEngine:
    """A loaded model. `context_size` is the most tokens that it will hold; memory is taken as it is needed."""

    def __init__(self, gguf: GGUF, settings: EngineSettings, *, progress: OnLoading | None = None) -> None:
        cpu = processor()
        check_settings(settings, cpu.logical)
        started = time.perf_counter()
        self.path, self.gguf = gguf.path, gguf
        settings, self.placement = placed(gguf, settings)
        self.asked_attention = settings.flash_attn
        """What measurements use, whose figures are compared with llama.cpp's own."""
        settings = replace(settings, flash_attn=attention(gguf, settings, gpu=self.placement is not None))
        self.settings = settings
        self.metadata: Mapping[str, str] = _plain_metadata(gguf)
        self._lib = bindings.load()
        self._model: Any = None
        self._evaluator: Evaluator | None = None
        self._adapters: list[Any] = []
        self.pictures: Pictures | None = None
        self.drafts: Drafts | None = None
        """How answers are drafted, if at all."""
        threads = settings.threads or cpu.threads
        self.threads = (threads, settings.threads_batch or threads)
        self._model = load_weights(self._lib, gguf, settings, progress)
        try:
            self._refuse_unsuited()
            self.vocab = Vocab(self._lib, self._model, known_text(gguf), TextMends.from_gguf(gguf))
            self._evaluator = Evaluator(self._lib, self._model, settings, self.threads)
            self._evaluator.use_adapters(load_adapters(self._lib, self._model, settings))
        except BaseException:
            self.close()
            raise
        self.train_context: int = self._lib.llama_model_n_ctx_train(self._model)
        self.context_size = self._longest()
        self.load_seconds = time.perf_counter() - started
        self.seed = 0
        """The seed of the last answer."""
        self._told: list[int] = []
        self._read_tokens, self._read_seconds = 0, 0.0
        """What reading prompts has taken so far."""
        self.on_reading: Callable[[int, int], None] | None = None
        """Told how many tokens of how many are read of a prompt, from 0 on."""
        self.prefixes: PrefixCache | None = None
        """Where beginnings of prompts are kept beyond this process, if anywhere."""
        gguf.forget_texts()
        give_back()

    def _longest(self) -> int:
        if self.settings.ctx_size:
            return whole_cells(self.settings.ctx_size)
        return self.placement.context if self.placement else context_limit(self.gguf, self.settings)

    def _refuse_unsuited(self) -> None:
        """Models that predict no next token would end the process or write nonsense."""
        lib, name = self._lib, self.path.name
        if not lib.llama_model_has_decoder(self._model) or lib.llama_model_has_encoder(self._model):
            raise Unsupported(f"{name} is no text generator", "models with an encoder are not run here")
        if lib.llama_model_is_diffusion(self._model):
            raise Unsupported(f"{name} is a diffusion model; it does not write one token after the other")
        if self.gguf.get("{arch}.attention.causal") is False or self.gguf.architecture in ENCODERS:
            raise Unsupported(f"{name} makes embeddings, it does not write text")

    # -- what is loaded ----------------------------------------------------------------------------------------

    @property
    def model_bytes(self) -> int:
        """Size of the weights in bytes."""
        return int(self._lib.llama_model_size(self._model))

    @property
    def pointer(self) -> Any:
        """The C pointer of the model, for contexts of another kind than this engine's own."""
        if not self._model:
            raise EngineError("the model is closed")
        return self._model

    @property
    def adapters(self) -> list[tuple[Any, float]]:
        """The LoRA adapters in use, each with its scale."""
        return self._compute.adapters

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self._lib.llama_model_n_params(self._model))

    @property
    def cached_tokens(self) -> int:
        """How many tokens stand in the KV cache now."""
        return len(self._compute.cells)

    @property
    def _compute(self) -> Evaluator:
        if self._evaluator is None:
            raise EngineError("the model is closed")
        return self._evaluator

    def contexts(self, sequences: int) -> Evaluator:
        """A context beside the engine's own, for several sequences. The caller closes it, before the engine."""
        other = Evaluator(self._lib, self._model, replace(self.settings, sequences=sequences), self.threads)
        other.use_adapters(self._compute.adapters)
        return other

    # -- text and tokens ---------------------------------------------------------------------------------------

    def tokens(self, prompt: Prompt, *, add_special: bool = True) -> list[int]:
        """Token ids of a prompt. Control tokens are recognised in control spans only; pictures are negative numbers."""
        if self.pictures is not None:
            return self.pictures.tokens(prompt, self.vocab.tokens, add_special=add_special)
        return self.vocab.tokens(prompt, add_special=add_special)

    def add_picture(self, data: bytes, projector: Path, name: str = "the picture") -> str:
        """Take a picture in; the mark that stands for it in prompts from now on.

        Raises UsageError (what is no picture), NotFound, CorruptFile, Unsupported (the projector), EngineError.
        """
        if self.pictures is None:
            from llamacli.runtime.pictures import Pictures

            self.pictures = Pictures(projector, self._model, self.gguf, self.settings, self.threads[1])
            self.prefixes = None  # a file of the engine's keeps tokens only
        mark = self.pictures.add(data, name)
        self._compute.use_pictures(self.pictures)
        return mark

    def control_tokens(self, names: Iterable[str]) -> frozenset[int]:
        """Ids of those control tokens of the vocabulary that are spelled by one of `names`."""
        found = (self.vocab.encode(name, parse_special=True) for name in names)
        return frozenset(ids[0] for ids in found if len(ids) == 1 and self.vocab.is_control(ids[0]))

    def control_names(self) -> list[str]:
        """The texts of all control tokens."""
        return control_names(self.gguf)

    # -- generation --------------------------------------------------------------------------------------------

    def generate(
        self, tokens: Sequence[int], sampling: Sampling, *, visible: Container[int] = frozenset()
    ) -> Iterator[Piece]:
        """Evaluate what of `tokens` is not yet in the KV cache, then yield the answer piece by piece.

        One piece per token, and a last one with `finish` and `usage`. Control tokens have no text unless they are in
        `visible`. Raises ContextOverflow before anything is evaluated, EngineError when decoding fails.
        """
        compute = self._compute
        compute.stopping = False
        self._make_room(list(tokens), sampling)
        sampler = Sampler(self._lib, self.vocab, sampling, compute.size)
        self.seed = sampler.seed
        try:
            yield from self._answer(compute, sampler, list(tokens), sampling, visible)
        finally:
            sampler.free()

    def _make_room(self, tokens: list[int], sampling: Sampling) -> None:
        if not tokens:
            raise EngineError("there is nothing to go on from: the prompt has no token")
        if tokens[-1] < 0:
            raise UsageError("a prompt cannot end with a picture", "ask something about it")
        count = len(tokens) + (self.pictures.extra(tokens) if self.pictures else 0)
        if count >= self.context_size:
            raise ContextOverflow(
                f"the input is {count:,} tokens; the context holds {self.context_size:,}", self.room_hint()
            )
        answer = sampling.predict if sampling.predict >= 0 else EXPECTED_ANSWER
        self._compute.grow(min(count + answer, self.context_size), self.context_size)

    def room_hint(self) -> str:
        """What helps whoever needs more context than there is."""
        wanted = self.settings.ctx_size
        if wanted and wanted < self.train_context:
            return f"this model was trained for {self.train_context:,}: try a larger -c, or shorten the input"
        if self.context_size < self.train_context:
            return "more does not fit this machine's memory: try -ctk q8_0 -ctv q8_0, or a smaller quantization"
        return "that is all this model was trained for: shorten the input, or take a model with a longer context"

    def _answer(
        self, compute: Evaluator, sampler: Sampler, tokens: list[int], sampling: Sampling, visible: Container[int]
    ) -> Iterator[Piece]:
        started = time.perf_counter()
        self._told = []
        cached, complete = self._read_prompt(compute, tokens)
        read = time.perf_counter()
        tail = ""
        finish: Finish = "cancel"
        if complete:
            compute.check_logits(self.vocab.size)
            sampler.see([token for token in tokens if token >= 0] if self.pictures else tokens)
            writer = Writer(self.vocab, sampling.stop, visible)
            plain = sampling.logprobs is not None or self.pictures is not None
            drafted = self.drafts.steps(compute, tokens) if self.drafts and not plain else None
            answer = Generation(self._lib, self.vocab, compute, sampler, writer, self.context_size)
            for piece in answer.pieces(sampling, drafted):
                self._told.append(piece.token or 0)
                yield piece
            tail, finish = writer.finish(), writer.ended
        usage = Usage(
            prompt=len(tokens),
            cached=cached,
            completion=len(self._told),
            prompt_seconds=read - started,
            completion_seconds=time.perf_counter() - read if self._told else 0.0,
        )
        yield Piece(text=tail, finish=finish, usage=usage)

    def _read_prompt(self, compute: Evaluator, tokens: list[int]) -> tuple[int, bool]:
        """How many tokens were known already, and whether the rest was read to its end."""
        cached = compute.keep(tokens)
        if self.prefixes is not None:
            cached = self.prefixes.restore(compute, tokens, cached)
        began = time.perf_counter()
        self._watch(compute, cached, len(tokens))
        complete = compute.read(tokens[cached:])
        compute.wait()
        self._read_tokens += len(tokens) - cached
        self._read_seconds += time.perf_counter() - began
        return cached, complete

    def _watch(self, compute: Evaluator, known: int, total: int) -> None:
        """Let whoever waits know how far the reading of a prompt is."""
        compute.on_read = None
        if self.on_reading is not None:
            told = self.on_reading
            told(0, total - known)
            compute.on_read = lambda cells: told(cells - known, total - known)

    def logits_after(self, tokens: Sequence[int]) -> list[float]:
        """The logits of whatever may follow `tokens`, one for each token of the vocabulary.

        What of `tokens` is in the KV cache is not evaluated again. Raises ContextOverflow, EngineError.
        """
        compute = self._compute
        compute.stopping = False
        self._make_room(list(tokens), Sampling(predict=0))
        known = compute.keep(tokens)
        self._watch(compute, known, len(tokens))
        if not compute.read(list(tokens)[known:]):
            raise Interrupted("stopped while the prompt was read")
        compute.check_logits(self.vocab.size)
        return list(self._lib.llama_get_logits_ith(compute.context, -1)[: self.vocab.size])

    def shares_of_last(self) -> list[float]:
        """The probability of each token of the last answer, evaluated again; nothing where that cannot be done."""
        from llamacli.runtime.probabilities import shares_of

        return shares_of(self._lib, self._compute, self.vocab.size, self._told)

    def stop(self) -> None:
        """End a running `generate` soon. May be called from a signal handler or another thread."""
        if self._evaluator is not None:
            self._evaluator.stopping = True

    def _token_seconds(self) -> float:
        return self._read_seconds / self._read_tokens if self._read_tokens else math.inf

    def keep_prefix(self) -> None:
        """Keep the beginning of the last prompt on disk; everything after it leaves the KV cache."""
        if self.prefixes is not None and self._compute.size:
            self.prefixes.keep(self._compute, self._token_seconds())

    def keep_chat(self) -> None:
        """Keep the whole conversation on disk as it stands."""
        if self.prefixes is not None and self._compute.size:
            self.prefixes.keep_chat(self._compute, self._token_seconds())

    def forget(self) -> None:
        """Empty the KV cache."""
        if self._compute.size:
            self._compute.clear()

    def _learn(self, compute: Evaluator) -> None:
        """Find out whether drafts pay here, now that nobody waits for an answer."""
        if self.drafts is not None and not compute.stopping:
            with contextlib.suppress(EngineError):
                self.drafts.learn(compute)

    def close(self) -> None:
        """Free the model. Calling it twice does no harm."""
        if self._evaluator is not None:
            self._learn(self._evaluator)
            self._evaluator.close()
            self._evaluator = None
        if self.pictures is not None:
            self.pictures.close()
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _plain_metadata(gguf: GGUF) -> dict[str, str]:
    """Everything but arrays, as text."""
    return {
        key: value.value if isinstance(value.value, str) else str(value.value)
        for key, value in gguf.metadata.items()
        if value.element is None and not isinstance(value.value, bytes)
    }

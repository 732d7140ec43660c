"""Pictures in prompts: a projector file beside the model turns each into vectors that the model reads as it reads tokens.

In a prompt a picture is a mark that nobody else can write. Among token ids it stands as a run of one negative number,
so that everything that compares, counts and cuts tokens goes on working; the evaluator asks here when it meets one.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacli.errors import EngineError, Unsupported, UsageError
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.runtime import bindings
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.engine_context import FLASH_ATTENTION
from llamacli.runtime.known_text import known_text
from llamacli.runtime.load import file_name
from llamacli.runtime.messages import Prompt, Span
from llamacli.runtime.picture_file import check_picture
from llamacli.runtime.projector_check import check_projector

_TEXT, _IMAGE = 0, 1
"""The engine's kinds of chunks."""

TokensOf = Callable[..., list[int]]
"""`Vocab.tokens`."""


@functools.cache
def _library() -> Any:
    """The functions of the engine's library for pictures, its log in the ring with the rest."""
    lib = bindings.load()
    try:
        module = importlib.import_module("llama_cpp.mtmd_cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise Unsupported(f"this build of the engine reads no pictures: {error}") from error
    callback = lib.llama_log_callback(bindings.keep_line)
    bindings.hold(callback)
    module.mtmd_helper_log_set(callback, None)
    return module


@dataclass(frozen=True)
class Chunk:
    """A part of a picture: `cells` are its places in the KV cache, `positions` how far it moves what follows."""

    pointer: Any
    cells: int
    positions: int


class Pictures:
    """The pictures of one loaded model. `close` frees them, before the model."""

    def __init__(self, path: Path, model: Any, text_model: GGUF, settings: EngineSettings, threads: int) -> None:
        check_projector(read_gguf(path))
        if known_text(text_model) is not None:
            raise Unsupported(f"{text_model.path.name} has a vocabulary too small for pictures")
        self._lib = _library()
        self.path = path
        self.chunks: dict[int, Chunk] = {}
        """By the number that stands for them among token ids."""
        self._tokens: dict[str, list[int]] = {}
        self._lists: list[Any] = []
        self._secret = secrets.token_hex(12)
        self._mark = re.compile(f"picture{self._secret}n\\d+e")
        parameters = self._lib.mtmd_context_params_default()
        parameters.use_gpu = settings.gpu_layers != 0
        parameters.print_timings = parameters.warmup = False
        parameters.n_threads = threads
        parameters.flash_attn_type = FLASH_ATTENTION[settings.flash_attn]
        self._context = self._lib.mtmd_init_from_file(file_name(path), model, parameters)
        if not self._context:
            raise EngineError(f"{path.name} is no projector for this model", bindings.failure_hint())
        if not self._lib.mtmd_support_vision(self._context):
            self.close()
            raise Unsupported(f"{path.name} reads no pictures")

    def add(self, data: bytes, name: str = "the picture") -> str:
        """Take a picture in; the mark that stands for it in a text. Raises UsageError, EngineError."""
        check_picture(data, name)
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        bitmap = self._lib.mtmd_helper_bitmap_init_from_buf(self._context, buffer, len(data), False)
        if not bitmap:
            raise UsageError(f"{name} cannot be read: it is damaged", bindings.failure_hint(1))
        try:
            tokens = self._tokenized(bitmap, name)
        finally:
            self._lib.mtmd_bitmap_free(bitmap)
        mark = f"picture{self._secret}n{len(self._tokens)}e"
        self._tokens[mark] = tokens
        return mark

    def _tokenized(self, bitmap: Any, name: str) -> list[int]:
        part = self._lib.mtmd_input_part()
        part.bitmap = bitmap
        parts = (ctypes.POINTER(self._lib.mtmd_input_part) * 1)(ctypes.pointer(part))
        chunks = self._lib.mtmd_input_chunks_init()
        self._lists.append(chunks)
        if self._lib.mtmd_tokenize_from_parts(self._context, chunks, parts, 1, False):
            raise EngineError(f"the engine cannot prepare {name}", bindings.failure_hint())
        out: list[int] = []
        for index in range(self._lib.mtmd_input_chunks_size(chunks)):
            out += self._ids(self._lib.mtmd_input_chunks_get(chunks, index))
        return out

    def _ids(self, pointer: Any) -> list[int]:
        """A chunk among token ids: text as it is, a picture as its number so often as it has positions."""
        kind = self._lib.mtmd_input_chunk_get_type(pointer)
        if kind == _TEXT:
            count = ctypes.c_size_t()
            ids = self._lib.mtmd_input_chunk_get_tokens_text(pointer, ctypes.byref(count))
            return list(ids[: count.value])
        if kind != _IMAGE:
            raise Unsupported("the engine makes something else of this picture than a picture")
        number = -1 - len(self.chunks)
        chunk = Chunk(
            pointer, self._lib.mtmd_input_chunk_get_n_tokens(pointer), self._lib.mtmd_input_chunk_get_n_pos(pointer)
        )
        self.chunks[number] = chunk
        return [number] * chunk.positions

    def tokens(self, prompt: Prompt, tokens_of: TokensOf, *, add_special: bool) -> list[int]:
        """Token ids of a prompt, pictures where their marks are."""
        out: list[int] = []
        group: list[Span] = []

        def flush() -> None:
            if group or (add_special and not out):
                out.extend(tokens_of(tuple(group), add_special=add_special and not out))
            group.clear()

        for span in prompt:
            at = 0
            for found in self._mark.finditer(span.text):
                group.append(Span(span.text[at : found.start()], span.control))
                flush()
                out.extend(self._tokens.get(found[0], ()))
                at = found.end()
            group.append(Span(span.text[at:], span.control))
        flush()
        return out

    @property
    def largest(self) -> int:
        """The most cells of a picture: models that look at all of it at once need them in one step."""
        return max((chunk.cells for chunk in self.chunks.values()), default=0)

    def extra(self, tokens: Sequence[int]) -> int:
        """Cells that the pictures in `tokens` take beyond their positions."""
        return sum(self.chunks[n].cells - self.chunks[n].positions for n in set(tokens) if n < 0)

    def evaluate(self, context: Any, number: int, place: int, batch: int) -> int:
        """Put a picture into the KV cache of `context` at position `place`; how many positions it takes."""
        chunk = self.chunks[number]
        if self._lib.mtmd_encode_chunk(self._context, chunk.pointer):
            raise EngineError("the engine cannot encode a picture", bindings.failure_hint())
        vectors = self._lib.mtmd_get_output_embd(self._context)
        after = ctypes.c_int32()
        nobody = self._lib.mtmd_helper_post_decode_callback()
        result = self._lib.mtmd_helper_decode_image_chunk(
            self._context, context, chunk.pointer, vectors, place, 0, batch, ctypes.byref(after), nobody, None
        )
        if result:
            raise EngineError(f"the engine failed to evaluate a picture (code {result})", bindings.failure_hint())
        return chunk.positions

    def close(self) -> None:
        """Free everything. Calling it twice does no harm."""
        for chunks in self._lists:
            self._lib.mtmd_input_chunks_free(chunks)
        self._lists.clear()
        if self._context:
            self._lib.mtmd_free(self._context)
            self._context = None


def projector_beside(model: Path) -> Path | None:
    """The projector in the model's folder; of several the one whose name has most of the model's. Raises UsageError."""
    found = sorted(p for p in model.parent.glob("*.gguf") if "mmproj" in p.name.lower() and p != model)
    if len(found) > 1:
        for kind in ("f16", "bf16", "f32"):
            same = [p for p in found if re.search(rf"(?<![a-z0-9]){kind}(?![a-z0-9])", p.name.lower())]
            if len(same) == 1:
                return same[0]
        raise UsageError(f"several projectors stand beside {model.name}", f"--mmproj {found[0].name}, or another")
    return found[0] if found else None

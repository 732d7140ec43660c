"""Which weights go to the GPUs when they cannot hold the whole model.

All layers where these fit; else the experts of the first layers stay in main memory, where they cost little (a token
uses few of them); else whole layers stay there, the first ones, as in llama.cpp. What the engine computes in on a GPU is
asked of it, where it matters.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llamacli.formats.gguf_reader import GGUF
from llamacli.formats.tensor_types import BY_NAME
from llamacli.runtime import bindings
from llamacli.runtime.cache_size import cache_bytes
from llamacli.runtime.context_limit import SMALLEST, UNTRAINED, context_limit
from llamacli.runtime.engine import ALL_LAYERS, EngineSettings
from llamacli.runtime.fit import STEP, estimate, laid_out, rounded

RESERVE = 1 << 30
"""Bytes of a GPU that are left to its driver, to scratch memory that the engine takes as it goes, and to the screen."""

LARGEST_RESERVE = 0.15
"""Never more than this part of a GPU."""

USUAL_CONTEXT = 8192
"""Tokens for which there shall be room on the GPUs before weights are put there."""

EXPERT = re.compile(r"blk\.(\d+)\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps\b")
"""Tensors of which a token uses few rows: the experts of a layer."""


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's weights: of each layer, of those the experts, and of the output."""

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    output: int

    @classmethod
    def of(cls, gguf: GGUF) -> Weights:
        """Read off the list of tensors. An output that shares the embeddings' weights is a copy on a GPU."""
        count = int(gguf.get("{arch}.block_count", 0))
        layers, experts, rest = [0] * count, [0] * count, {}
        for tensor in gguf.tensors:
            match = re.match(r"blk\.(\d+)\.", tensor.name)
            if match and int(match[1]) < count:
                layers[int(match[1])] += tensor.size_bytes
                experts[int(match[1])] += tensor.size_bytes if EXPERT.match(tensor.name) else 0
            else:
                rest[tensor.name] = tensor.size_bytes
        embeddings = rest.pop("token_embd.weight", 0)
        return cls(tuple(layers), tuple(experts), sum(rest.values()) + (0 if "output.weight" in rest else embeddings))

    def on_gpu(self, layers: int, kept: int) -> int:
        """Bytes on GPUs of the output and the last `layers` - 1 layers, without the experts of the first `kept`."""
        first = max(0, len(self.layers) + 1 - layers)
        out = sum(size - (self.experts[i] if i < kept else 0) for i, size in enumerate(self.layers) if i >= first)
        return out + (self.output if layers else 0)


@dataclass(frozen=True)
class Placement:
    """Where a model goes. `layers` are those on GPUs, the output counting as one; of so many, `experts` stay behind."""

    layers: int
    experts: int
    all_layers: int
    context: int
    """Tokens that fit, or that the model was trained for."""

    @property
    def whole(self) -> bool:
        """Whether everything is on GPUs."""
        return self.layers >= self.all_layers and not self.experts

    @property
    def cache_share(self) -> float:
        """The part of the KV cache that is on GPUs: that of the layers there."""
        return max(0, min(self.layers, self.all_layers) - 1) / max(1, self.all_layers - 1)

    @property
    def text(self) -> str:
        """For people."""
        experts = f", the experts of {self.experts} layers in main memory" if self.experts else ""
        return f"{min(self.layers, self.all_layers)} of {self.all_layers} layers on the GPU{experts}"


def placed(gguf: GGUF, settings: EngineSettings) -> tuple[EngineSettings, Placement | None]:
    """`settings` with nothing left open, and what they mean; None where there is no GPU or none is wanted."""
    if settings.gpu_layers == 0 or not bindings.has_gpu():
        return settings, None
    found = choose(gguf, settings, room_on_gpus(settings.devices), lambda chosen: gpu_compute(gguf.path, chosen))
    layers = ALL_LAYERS if found.layers >= found.all_layers else found.layers
    return replace(settings, gpu_layers=layers, cpu_moe=found.experts), found


def room_on_gpus(names: Sequence[str]) -> tuple[int, ...]:
    """Bytes to plan with on each GPU: those called `names`, or all; one in the processor only without others."""
    from llamacli.runtime.backends import engine_info  # it takes 40 ms to import

    found = [device for device in engine_info().gpus if not names or device.name in names]
    apart = [device for device in found if device.kind == "gpu"]
    free = [device.memory_free for device in (found if names else apart or found)]
    return tuple(size - min(RESERVE, int(size * LARGEST_RESERVE)) for size in free)


def choose(
    gguf: GGUF, settings: EngineSettings, room: Sequence[int], compute: Callable[[EngineSettings], int]
) -> Placement:
    """The placement on GPUs with `room` bytes each. Layers or experts that `settings` name are kept.

    `compute` tells the bytes that the engine computes in on GPUs with given settings; it is asked only in doubt.
    """
    plan = _Plan(gguf, settings, Weights.of(gguf), room)
    trained = int(gguf.get("{arch}.context_length", 0) or 0) or UNTRAINED
    wanted = rounded(settings.ctx_size or min(USUAL_CONTEXT, trained))
    layers, kept = plan.best(wanted, scratch=2 * plan.scratch(wanted))
    if not plan.named and (layers, kept) != (plan.everything, 0):
        layers, kept, plan = _asked(plan, layers, kept, wanted, compute)
    longest = plan.longest(layers, kept, trained)
    if layers < plan.everything or kept:
        longest = min(longest, context_limit(gguf, settings))
    return Placement(layers, kept, plan.everything, max(SMALLEST, longest))


def _asked(
    plan: _Plan, layers: int, kept: int, wanted: int, compute: Callable[[EngineSettings], int]
) -> tuple[int, int, _Plan]:
    """The best with what the engine says. Weights that stay behind may be copied over to be computed with: ask twice."""
    scratch = 0
    for _ in range(2):
        scratch = compute(replace(plan.settings, ctx_size=wanted, gpu_layers=layers, cpu_moe=kept))
        layers, kept = plan.best(wanted, scratch)
    return layers, kept, replace(plan, known=scratch)


@dataclass(frozen=True)
class _Plan:
    """A model, and the room on GPUs for it."""

    gguf: GGUF
    settings: EngineSettings
    weights: Weights
    room: Sequence[int]
    known: int = 0
    """Bytes to compute in, if the engine was asked."""

    @property
    def everything(self) -> int:
        """Layers, the output counting as one, as in llama.cpp."""
        return len(self.weights.layers) + 1

    @property
    def named(self) -> bool:
        """Whether somebody has said where all is to go."""
        return self.settings.gpu_layers is not None

    def best(self, context: int, scratch: int) -> tuple[int, int]:
        """(layers on GPUs, layers whose experts stay behind): the first of the ways that fits, best first."""
        s, count = self.settings, self.everything - 1
        layers = [min(s.gpu_layers, self.everything)] if s.gpu_layers is not None else None
        kept = [min(s.cpu_moe, count)] if s.cpu_moe is not None else None
        experts = range(count + 1) if any(self.weights.experts) else (0,)
        ways = [(n, e) for n in layers or [self.everything] for e in kept or experts]
        ways += [(n, ways[-1][1]) for n in ([] if layers else range(count, -1, -1))]
        return next((way for way in ways if self._fits(*way, context, scratch)), ways[-1])

    def longest(self, layers: int, kept: int, trained: int) -> int:
        """The most tokens that fit, at most `trained`."""
        low, high = 0, -(-trained // STEP)
        while low < high:
            middle = -(-(low + high) // 2)
            context = middle * STEP
            if self._fits(layers, kept, context, max(self.known, self.scratch(context))):
                low = middle
            else:
                high = middle - 1
        return min(low * STEP, trained)

    def scratch(self, context: int) -> int:
        """Bytes to compute in on all GPUs, as the header lets expect."""
        return estimate(self.gguf, context, ubatch=self.settings.ubatch, flash_attn="on").compute * len(self.room)

    def _fits(self, layers: int, kept: int, context: int, scratch: int) -> bool:
        s, count = self.settings, max(1, self.everything - 1)
        kinds = BY_NAME[s.cache_type_k.upper()], BY_NAME[s.cache_type_v.upper()]
        cache = s.sequences * cache_bytes(self.gguf, context, *kinds) * min(layers, count) // count
        need = self.weights.on_gpu(layers, kept) + cache + (scratch if layers else 0)
        return need <= sum(self.room) - max(self.weights.layers, default=0) * (len(self.room) - 1)


def place_weights(parameters: Any, settings: EngineSettings) -> None:
    """Say in llama_model_params what goes where. Raises UsageError for a device that is not there."""
    parameters.n_gpu_layers = -1 if settings.gpu_layers is None else settings.gpu_layers
    if settings.devices:
        from llamacli.runtime.backends import device_pointers  # it takes 40 ms to import

        parameters.own_devices = device_pointers(settings.devices)  # Python's part of it keeps them alive
        parameters.devices = ctypes.cast(parameters.own_devices, ctypes.c_void_p)
    if settings.cpu_moe:
        parameters.own_overrides = _experts_in_memory(settings.cpu_moe)
        parameters.tensor_buft_overrides = ctypes.cast(parameters.own_overrides, ctypes.c_void_p)


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override: tensors whose names match go to that kind of buffer."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def _experts_in_memory(count: int) -> Any:
    """llama_model_params.tensor_buft_overrides for the experts of the first `count` layers; an empty one ends it."""
    main = bindings.ggml_function("ggml_backend_cpu_buffer_type", ctypes.c_void_p)()
    layers = "|".join(map(str, range(count)))
    pattern = rf"^blk\.({layers})\.ffn_(up|down|gate|gate_up)_(ch)?exps\b"
    return (_Override * 2)(_Override(pattern.encode(), main), _Override(None, None))


def gpu_compute(path: Path, settings: EngineSettings) -> int:
    """Bytes that the engine computes in on GPUs, asked of it without allocating. Raises EngineError."""
    sizes = {}
    for line in laid_out(path, settings).lines:
        match = re.search(r"(\S+) +compute buffer size = +([\d.]+) MiB", line)
        if match and not match[1].startswith("CPU") and not match[1].endswith("_Host"):
            sizes[match[1]] = float(match[2])
    return round(sum(sizes.values()) * (1 << 20))

"""SmolLM 3: Llama's block, without a rope in every fourth one."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, ROPE_DIMENSIONS, VOCAB_SIZE
from llamacli.families.llama import LLAMA


def _no_rope_layers(config: Config) -> Iterable[str]:
    """The engine leaves the rope out of every fourth block, whatever `no_rope_layers` says."""
    layers = config.get("no_rope_layers")
    if layers and [bool(flag) for flag in layers] != [(block + 1) % 4 != 0 for block in range(len(layers))]:
        yield "the engine leaves the rope out of every fourth block; this model's no_rope_layers differ from that"


SMOLLM3 = LLAMA.override(
    name="smollm3",
    title="SmolLM 3",
    architectures=("SmolLM3ForCausalLM",),
    keys=(*DECODER_KEYS, VOCAB_SIZE, ROPE_DIMENSIONS),
    defaults={
        "tie_word_embeddings": True, "rope_theta": 2e6, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
    },
    extra=lambda config: (),
    warnings=_no_rope_layers,
    example="HuggingFaceTB/SmolLM3-3B",
)  # fmt: skip

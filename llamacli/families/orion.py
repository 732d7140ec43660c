"""Orion: Llama's block with layer norms, whose epsilon the configuration calls that of an RMS norm."""

from __future__ import annotations

from llamacli.families.base import Key
from llamacli.families.decoder import DECODER_KEYS, always, real
from llamacli.families.llama import LLAMA
from llamacli.formats.gguf_values import string

ORION = LLAMA.override(
    name="orion",
    title="Orion",
    architectures=("OrionForCausalLM",),
    keys=(
        *(
            key
            for key in DECODER_KEYS
            if "rms" not in key.name and (key.name == "rope.freq_base" or not key.name.startswith("rope."))
        ),
        Key("tensor_data_layout", always(string("Meta AI original pth"))),
        Key("attention.layer_norm_epsilon", real("rms_norm_eps")),
    ),
    rules=(),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
    example="OrionStarAI/Orion-14B-Chat",
)

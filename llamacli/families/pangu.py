"""openPangu Embedded: Llama's block with biases in attention, rows as the checkpoint has them."""

from __future__ import annotations

from llamacli.families.base import Expected
from llamacli.families.decoder import DECODER_KEYS, HEAD_WIDTHS, QKV_BIAS, ROPE_DIMENSIONS, VOCAB_SIZE
from llamacli.families.llama import LLAMA
from llamacli.families.rope import llama3_rope_factors

PANGU_EMBED = LLAMA.override(
    name="pangu-embedded",
    title="openPangu Embedded",
    architectures=("PanguEmbeddedForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, VOCAB_SIZE, ROPE_DIMENSIONS),
    rules=(),
    expected=(*LLAMA.expected, *QKV_BIAS, Expected("blk.{block}.attn_output.bias", lambda c: (c.hidden,))),
    extra=llama3_rope_factors,
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768},
    example="FreedomIntelligence/openPangu-Embedded-7B-V1.1",
)

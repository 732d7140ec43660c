"""GLM-4 9B and 32B (0414): norms before and after, half of each head rotated, gate and up fused."""

from __future__ import annotations

import numpy as np

from llamacli.families.base import Family, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    FUSED_GATE_UP,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    POST_NORMS,
    partial_rope,
)
from llamacli.families.rope import partial_factor
from llamacli.families.transforms import by_rows
from llamacli.formats.dtypes import Block
from llamacli.formats.rows import Grouped, Rows


def _halves(rows: Rows, config: Config) -> Rows:
    """The rotated part of each head from pairs to halves, the only order that the engine's rope in sections has."""
    rotated = int(config.head_dim * partial_factor(config, 0.5))

    def reorder(block: Block) -> Block:
        return np.concatenate((block[:, :rotated:2], block[:, 1:rotated:2], block[:, rotated:]), axis=1)

    return by_rows(lambda matrix: Grouped(matrix, config.head_dim, reorder), rows)


def _in_sections(config: Config) -> bool:
    return "mrope_section" in config.full_rope


HALVES_FIRST = (Rule(r".*\.[qk]_proj\.(weight|bias)", _halves, when=_in_sections),)
"""For vision models, whose rope has sections."""

GLM4 = Family(
    name="glm4",
    title="GLM-4 0414, GLM-4.1V",
    architectures=("Glm4ForCausalLM", "Glm4vForConditionalGeneration", "GlmOcrForConditionalGeneration"),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, partial_rope(0.5)),
    rules=HALVES_FIRST,
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, GATED_FFN[0], *FUSED_GATE_UP, *POST_NORMS),
    defaults={
        "rope_theta": 10000.0, "rms_norm_eps": 1.5625e-7, "max_position_embeddings": 131072, "head_dim": 128,
        "partial_rotary_factor": 0.5,
    },
    example="zai-org/GLM-4-9B-0414",
)  # fmt: skip

"""Gemma 1 and 2: norms stored as their distance from one, the output always tied to the embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamacli.families.base import Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, DECODER_TENSORS, HEAD_WIDTHS, POST_NORMS, real, windows
from llamacli.families.transforms import add_one

NORMS_PLUS_ONE = (Rule(r".*norm\.weight", add_one),)
SOFT_CAPS = (
    Key("attn_logit_softcapping", real("attn_logit_softcapping")),
    Key("final_logit_softcapping", real("final_logit_softcapping")),
)

GEMMA = Family(
    name="gemma",
    title="Gemma 1",
    architectures=("GemmaForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS),
    rules=NORMS_PLUS_ONE,
    expected=DECODER_TENSORS,
    defaults={
        "tie_word_embeddings": True, "head_dim": 256, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 8192,
    },
    example="google/gemma-2b-it",
)  # fmt: skip


def attention_scale_warning(blocks_of_27b: int) -> Callable[[Config], Iterable[str]]:
    """The engine takes the attention's scale from the head's width, in the 27B model from the residual stream's."""

    def warnings(config: Config) -> Iterable[str]:
        wide = config.blocks == blocks_of_27b
        computed = config.hidden // config.heads if wide else config.head_dim
        if (wanted := config.get("query_pre_attn_scalar")) is not None and wanted != computed:
            yield f"the engine scales attention by {computed}, this model by query_pre_attn_scalar {wanted}"

    return warnings


GEMMA2 = GEMMA.override(
    name="gemma2",
    title="Gemma 2",
    architectures=("Gemma2ForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, *SOFT_CAPS, *windows(2)),
    expected=(*DECODER_TENSORS, *POST_NORMS),
    defaults={
        **GEMMA.defaults, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
    },
    warnings=attention_scale_warning(46),
    example="google/gemma-2-9b-it",
)  # fmt: skip

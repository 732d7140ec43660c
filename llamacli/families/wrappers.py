"""The text model inside a checkpoint that also sees or hears: which class it is, and which tensors are its own.

transformers builds the text part of such a model from `text_config.model_type`, so that says what the part is, whatever the
wrapper is called. Its tensors are those beside its embedding; all others are the other senses' and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

TEXT_MODELS: Mapping[str, str] = {
    "afmoe": "AfmoeForCausalLM", "apertus": "ApertusForCausalLM", "arcee": "ArceeForCausalLM",
    "cohere": "CohereForCausalLM", "cohere2": "Cohere2ForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM", "ernie4_5": "Ernie4_5ForCausalLM", "exaone4": "Exaone4ForCausalLM",
    "falcon": "FalconForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM", "gemma3n_text": "Gemma3nForCausalLM", "gemma4_text": "Gemma4ForCausalLM",
    "glm": "GlmForCausalLM", "glm4": "Glm4ForCausalLM", "glm4_moe": "Glm4MoeForCausalLM", "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM", "gpt_oss": "GptOssForCausalLM", "granite": "GraniteForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM", "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "internlm2": "InternLM2ForCausalLM", "kimi_k2": "DeepseekV3ForCausalLM", "lfm2": "Lfm2ForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM", "llama": "LlamaForCausalLM", "llama4_text": "Llama4ForCausalLM",
    "ministral": "MistralForCausalLM", "ministral3": "Ministral3ForCausalLM", "mistral": "MistralForCausalLM",
    "mistral4": "Mistral4ForCausalLM", "mixtral": "MixtralForCausalLM", "nemotron": "NemotronForCausalLM",
    "nemotron_h": "NemotronHForCausalLM", "olmo": "OlmoForCausalLM", "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM", "olmoe": "OlmoeForCausalLM", "phi": "PhiForCausalLM", "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM", "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM", "seed_oss": "SeedOssForCausalLM", "smollm3": "SmolLM3ForCausalLM",
    "stablelm": "StableLmForCausalLM", "starcoder2": "Starcoder2ForCausalLM",
}  # fmt: skip
"""`model_type` of a text model, and the class with a head that transformers makes of it."""

_SIZE_NAMES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings",
)  # fmt: skip
SIZES: Mapping[str, Mapping[str, int]] = {
    kind: dict(zip(_SIZE_NAMES, sizes, strict=True))
    for kind, sizes in {
        "llama": (4096, 11008, 32, 32, 32, 2048),
        "mistral": (4096, 14336, 32, 32, 8, 131072),
        "qwen2": (4096, 22016, 32, 32, 32, 32768),
        "qwen3": (4096, 22016, 32, 32, 32, 32768),
        "gemma": (3072, 24576, 28, 16, 16, 8192),
        "gemma2": (2304, 9216, 26, 8, 4, 8192),
        "phi3": (3072, 8192, 32, 32, 32, 4096),
        "granite": (4096, 11008, 32, 32, 32, 2048),
        "cohere": (8192, 22528, 40, 64, 64, 8192),
        "cohere2": (8192, 22528, 40, 64, 64, 8192),
        "deepseek_v2": (4096, 11008, 32, 32, 32, 2048),
        "deepseek_v3": (7168, 18432, 61, 128, 128, 4096),
        "lfm2": (2560, 12288, 32, 32, 8, 128000),
    }.items()
}
"""What transformers assumes of a nested text model that leaves its sizes out, as LLaVA 1.5 does."""

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("LLaDAModelLM", "LLaDAMoEModelLM", "DreamModel", "RND1"),
        "it writes by diffusion, not token by token; convert a model of a family that --list-families shows",
    ),
    **dict.fromkeys(
        ("T5ForConditionalGeneration", "T5EncoderModel", "MT5ForConditionalGeneration", "UMT5ForConditionalGeneration",
         "BartForConditionalGeneration", "MarianMTModel", "WhisperForConditionalGeneration"),
        "it is an encoder with a decoder; convert a decoder or an encoder that --list-families shows",
    ),
    **dict.fromkeys(
        ("LlamaForSequenceClassification", "MistralForSequenceClassification", "Qwen2ForSequenceClassification",
         "Qwen3ForSequenceClassification", "GemmaForSequenceClassification", "Gemma2ForSequenceClassification"),
        "the engine gives a classifier's scores for BERT, RoBERTa and ModernBERT alone; use such a reranker",
    ),
    **dict.fromkeys(
        ("BitNetForCausalLM", "BitnetForCausalLM"),
        "the engine's graph has another activation than the published models; use the GGUF file of their authors",
    ),
    "Phi3SmallForCausalLM": "the engine has no block-sparse attention; use Phi-3-mini, Phi-3-medium, Phi-3.5 or Phi-4",
    "MllamaForConditionalGeneration": "the engine has no cross-attention; use Llama 3.1, whose text model is the same",
}  # fmt: skip
"""Classes that are refused for a reason that a list of names would not tell."""

OTHER_SENSES = re.compile(
    r"(.*\.)?(vision_tower|vision_model|visual|multi_modal_projector|mm_projector|audio_tower|embed_vision|embed_audio"
    r"|vision_embed_tokens|image_newline|vit|audio_projector|aligner|vision_encoder|vision_language_adapter|patch_merger"
    r"|pre_mm_projector_norm|merger|siglip2|connector|talker|token2wav|vpm|apm|resampler|vision_resampler)(\..*)?"
)
"""Parts of multimodal checkpoints that are no text model, by the names that are in use."""

_EMBEDDING = re.compile(r"(?P<front>(.*\.)?)(embed_tokens|tok_embeddings|word_embeddings|wte|embeddings)\.weight")
_HEAD = re.compile(r"(?P<front>(.*\.)?)(?P<head>(lm_head|output|embed_out)\.(weight|bias))")


def text_prefix(names: Iterable[str]) -> str | None:
    """What stands in front of the text model's tensors (`language_model.model.`); None if no embedding is found."""
    found = (_EMBEDDING.fullmatch(name) for name in names if not OTHER_SENSES.fullmatch(name))
    return next((match["front"] for match in found if match), None)


def has_head(names: Iterable[str]) -> bool:
    """Whether the text model has an output matrix of its own."""
    prefix = text_prefix(names) or ""
    return any((head := _HEAD.fullmatch(name)) and prefix.startswith(head["front"]) for name in names)


def text_name(name: str, prefix: str) -> str | None:
    """A tensor's name in the text model alone, None if it is not the text model's."""
    if name.startswith(prefix):
        return f"model.{name.removeprefix(prefix)}"
    if name.startswith("mtp."):
        return name
    head = _HEAD.fullmatch(name)
    return head["head"] if head and prefix.startswith(head["front"]) else None

"""ModernBERT and what was made of it: rotary encoders with local attention in two blocks of three."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.bert import BERT, CLASSIFIER, CLASSIFIER_LABELS, ENCODER_KEYS, LEFT_OUT
from llamacli.families.cohere import NO_SCALING
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, DECODER_TENSORS, POOLING, VOCAB_SIZE, always, count, real
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, string, u32


def _activation(config: Config) -> Value | None:
    name = config.get("hidden_activation")
    return None if name is None else string(name)


def _refusals(config: Config) -> Iterable[str]:
    types = config.get("layer_types")
    if types is not None and len(set(types)) != 2:
        yield "config.json: the engine's graph has blocks with local attention and without, this model one kind"


def _pattern(config: Config) -> Value | None:
    """The first of so many blocks has no window; transformers 5 names every block's kind."""
    every, types = config.integer("global_attn_every_n_layers", least=1), config.get("layer_types")
    local = [kind == "sliding_attention" for kind in types or ()]
    if not local or local == [block % every != 0 for block in range(config.blocks)]:
        return u32(every)
    return array(ValueType.BOOL, local)


def _classifier_pooling(config: Config) -> Value | None:
    """What its head is given: the mean of all positions, or the first."""
    if not config.architecture.endswith("ForSequenceClassification"):
        return None
    return u32({"mean": 1, "cls": 2}[config.get("classifier_pooling", default="cls")])


NO_SEGMENTS = Key("tokenizer.ggml.token_type_count", lambda config: None)

MODERN_BERT = BERT.override(
    name="modern-bert",
    title="ModernBERT",
    architectures=("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
    keys=(
        *ENCODER_KEYS,
        Key("attention.sliding_window", count("local_attention")),
        Key("attention.sliding_window_pattern", _pattern),
        NO_SCALING, VOCAB_SIZE, NO_SEGMENTS,
        Key("hidden_activation", _activation),
        Key("attention.layer_norm_epsilon", real("layer_norm_eps", "norm_eps")),
        Key("classifier.pooling_type", _classifier_pooling),
        CLASSIFIER_LABELS,
    ),
    rules=(*LEFT_OUT, *CLASSIFIER),
    expected=(
        Expected("token_embd.weight", lambda c: (-1, c.hidden)),
        Expected("token_embd_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.attn_qkv.weight", lambda c: (3 * c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (2 * c.integer("intermediate_size"), c.hidden)),
    ),
    defaults={
        "norm_eps": 1e-5, "max_position_embeddings": 8192, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
        "local_attention": 128, "global_attn_every_n_layers": 3, "hidden_activation": "gelu",
    },
    refusals=_refusals,
    example="answerdotai/ModernBERT-base",
)  # fmt: skip

EURO_BERT = Family(
    name="eurobert",
    title="EuroBERT",
    architectures=("EuroBertModel", "EuroBertForMaskedLM"),
    keys=(
        *DECODER_KEYS, POOLING, NO_SCALING,
        Key("attention.causal", always(boolean(False))),
    ),
    rename=lambda name, config: name.removeprefix("model."),
    rules=(Rule(r"lm_head\..*", drop=True),),
    expected=tuple(tensor for tensor in DECODER_TENSORS if tensor.name != "output.weight"),
    defaults={"rope_theta": 250000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192},
    example="EuroBERT/EuroBERT-210m",
)  # fmt: skip

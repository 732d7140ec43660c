"""BERT and what followed: encoders that make one vector of a text, or one score of a pair."""

from __future__ import annotations

import re
from collections.abc import Callable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import CONTEXT_NAMES, Config
from llamacli.families.decoder import DECODER_KEYS, HEAD_WIDTHS, POOLING, always
from llamacli.families.transforms import rows_of
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, u32
from llamacli.formats.rows import Rows


def _plain(name: str, config: Config) -> str:
    """Without the wrapper's name, and with TensorFlow's gamma and beta as weight and bias."""
    name = re.sub(r"^(bert|roberta|distilbert|model)\.", "", name)
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))


def _labels(config: Config) -> Value | None:
    """What a classifier's scores mean; two labels that are only numbered are transformers' own defaults."""
    labels = config.get("id2label")
    if not _classifies(config) or not labels or (len(labels) == 2 and "LABEL_0" in labels.values()):
        return None
    ordered = [labels[key] for key in sorted(labels, key=int)]
    return array(ValueType.STRING, ordered)


def _classifies(config: Config) -> bool:
    return config.architecture.endswith("ForSequenceClassification")


def _pooling(config: Config) -> Value | None:
    """A classifier's scores are what its file is for."""
    return u32(RANK) if _classifies(config) else POOLING.value(config)


RANK = 4
"""ggml's number for a score in place of a vector."""

ENCODER_KEYS = (
    *DECODER_KEYS,
    Key("attention.causal", always(boolean(False))),
    Key("pooling_type", _pooling),
    Key("tokenizer.ggml.token_type_count", lambda config: u32(config.get("type_vocab_size", default=1))),
)
CLASSIFIER_LABELS = Key("classifier.output_labels", _labels)

LEFT_OUT = (
    Rule(r"embeddings\.position_ids", drop=True),
    Rule(r"pooler\.dense\.(weight|bias)", drop=True, when=lambda config: not _classifies(config)),
    Rule(r"(cls\.(predictions|seq_relationship)|lm_head|vocab_|head\.dense|head\.norm|decoder)\b.*", drop=True,
         when=lambda config: not _classifies(config)),
    Rule(r"vocab_.*", drop=True),
)  # fmt: skip
"""Heads for training; a masked language model is converted as the encoder that it contains."""

CLASSIFIER = (
    Rule(r"pooler\.dense\.(weight|bias)", rename=r"classifier.dense.\1"),
    Rule(r"classifier\.(weight|bias)", rename=r"classifier.out_proj.\1"),
)
"""BERT's pooler is the first of two layers, with a tanh between them, as RoBERTa's classifier is."""


def _ff(config: Config) -> int:
    return int(config.get("intermediate_size", "hidden_dim", "n_inner", default=-1))


def _encoder(position: Callable[[Config], int]) -> tuple[Expected, ...]:
    return (
        Expected("token_embd.weight", lambda c: (-1, c.hidden)),
        Expected("token_embd_norm.weight", lambda c: (c.hidden,)),
        Expected("position_embd.weight", lambda c: (position(c), c.hidden)),
        Expected("blk.{block}.attn_q.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.attn_k.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.attn_v.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.attn_output_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (_ff(c), c.hidden)),
        Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
        Expected("blk.{block}.layer_output_norm.weight", lambda c: (c.hidden,)),
    )


def _positions(config: Config) -> int:
    return config.integer(*CONTEXT_NAMES)


BERT = Family(
    name="bert",
    title="BERT, BGE, MiniLM, E5",
    architectures=("BertModel", "BertForMaskedLM", "BertForSequenceClassification"),
    keys=(*ENCODER_KEYS, CLASSIFIER_LABELS),
    rename=_plain,
    rules=(*LEFT_OUT, *CLASSIFIER),
    expected=_encoder(_positions),
    defaults={"tie_word_embeddings": False, "layer_norm_eps": 1e-12, "max_position_embeddings": 512},
    example="BAAI/bge-small-en-v1.5",
)

DISTILBERT = BERT.override(
    title="DistilBERT",
    architectures=("DistilBertModel", "DistilBertForMaskedLM"),
    expected=tuple(tensor for tensor in BERT.expected if "token_types" not in tensor.name),
    example="distilbert/distilbert-base-uncased",
)


def _offset(config: Config) -> int:
    """RoBERTa counts positions from the one after its padding token's id."""
    padding = config.get("pad_token_id", default=1)
    return int(padding) + 1


def _used_positions(rows: Rows, config: Config) -> Rows:
    return rows_of(rows, _offset(config), rows.shape[0])


def _used_count(config: Config) -> int:
    return _positions(config) - _offset(config)


ROBERTA = BERT.override(
    title="RoBERTa, XLM-RoBERTa, BGE-M3, E5 multilingual",
    architectures=(
        "RobertaModel", "RobertaForSequenceClassification", "XLMRobertaModel", "XLMRobertaForSequenceClassification",
        "CamembertModel",
    ),
    keys=(*BERT.keys, Key("context_length", lambda c: u32(_used_count(c)))),
    rules=(Rule(r"embeddings\.position_embeddings\.weight", _used_positions), *BERT.rules),
    expected=_encoder(_used_count),
    defaults={**BERT.defaults, "layer_norm_eps": 1e-5},
    sibling=lambda config: JINA_V3 if config.get("position_embedding_type") == "rotary" else None,
    example="BAAI/bge-m3",
)  # fmt: skip


def _jina(name: str, config: Config) -> str:
    """The matrices beside whose adapters, one for each task, they are stored."""
    return re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", _plain(name, config))


JINA_V3: Family = BERT.override(
    name="jina-bert-v3",
    title="Jina Embeddings 3",
    architectures=("JinaEmbeddingsV3Model", "JinaEmbeddingsV3ForMaskedLM"),
    rename=_jina,
    keys=ENCODER_KEYS,
    rules=(Rule(r".*\.lora_[AB]", drop=True), *LEFT_OUT),
    expected=(
        Expected("token_embd.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.attn_qkv.weight", lambda c: (3 * c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (_ff(c), c.hidden)),
    ),
    defaults={"layer_norm_eps": 1e-5, "max_position_embeddings": 8194, "rope_theta": 20000.0},
    warnings=lambda config: (
        ("the adapters for tasks are left out; the file gives the vectors without them",)
        if config.get("lora_adaptations")
        else ()
    ),
    example="jinaai/jina-embeddings-v3",
)


def _nomic_context(config: Config) -> Value:
    """The length that it was trained on, not the one that it can be stretched to."""
    return u32(min(config.integer(*CONTEXT_NAMES), int(config.get("max_trained_positions", default=2048))))


NOMIC_BERT = Family(
    name="nomic-bert",
    title="Nomic Embed 1 and 1.5",
    architectures=("NomicBertModel",),
    keys=(*ENCODER_KEYS, *HEAD_WIDTHS, Key("context_length", _nomic_context)),
    rename=_plain,
    rules=LEFT_OUT,
    expected=(
        Expected("token_embd.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.attn_qkv.weight", lambda c: (3 * c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (_ff(c), c.hidden)),
    ),
    defaults={"layer_norm_epsilon": 1e-12, "rotary_emb_base": 10000},
    fixed={
        "prenorm": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "causal": False,
    },
    example="nomic-ai/nomic-embed-text-v1.5",
)

"""Falcon-H1: attention and Mamba 2 beside each other in every block, with multipliers that are folded into the matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamacli.families.base import Expected, Family, Key, Named, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    OUTPUT,
    OUTPUT_NORM,
    VOCAB_SIZE,
    count,
)
from llamacli.families.mamba import MAMBA2_RULES
from llamacli.families.transforms import chain, rows_of, scale
from llamacli.formats.gguf_values import Value, u32
from llamacli.formats.rows import Joined, Rows


def _factor(name: str, place: int | None = None) -> Callable[[Config], float]:
    """A multiplier of the configuration, 1 where it has none."""

    def factor(config: Config) -> float:
        found = config.get(name, default=1.0)
        return float(found if place is None or not isinstance(found, list) else found[place])

    return factor


def _both_ends(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    """The embedding of a tied model, which has another multiplier where it is the output."""
    yield name, scale(_factor("embedding_multiplier"))(rows, config)
    yield "lm_head.weight", scale(_factor("lm_head_multiplier"))(rows, config)


def _refusals(config: Config) -> Iterable[str]:
    if config.get("mamba_rms_norm", default=False) and config.get("mamba_norm_before_gate", default=True):
        yield "config.json: the engine norms a mixer behind its gate, this model before (mamba_norm_before_gate)"


def _inner(config: Config) -> int:
    return int(config.get("mamba_d_ssm", default=int(config.get("mamba_expand", default=2)) * config.hidden))


def _groups_by_state(config: Config) -> int:
    return int(config.get("mamba_n_groups", default=1)) * config.integer("mamba_d_state")


def _by_part(rows: Rows, config: Config) -> Rows:
    """The mixer's input matrix: gate, x, B, C and step have a multiplier each."""
    ends = [_inner(config), 2 * _inner(config)]
    ends += [ends[1] + _groups_by_state(config), ends[1] + 2 * _groups_by_state(config), rows.shape[0]]
    starts = [0, *ends[:-1]]
    parts = (
        scale(_factor("ssm_multipliers", place))(rows_of(rows, start, end), config)
        for place, (start, end) in enumerate(zip(starts, ends, strict=True))
    )
    return Joined(tuple(parts), rows.shape)


def _context(config: Config) -> Value:
    return u32(config.get("max_position_embeddings", default=0))


FALCON_H1 = Family(
    name="falcon-h1",
    title="Falcon-H1",
    architectures=("FalconH1ForCausalLM",),
    keys=(
        *DECODER_KEYS, VOCAB_SIZE, Key("context_length", _context),
        Key("attention.key_length", lambda c: u32(c.head_dim)),
        Key("attention.value_length", lambda c: u32(c.head_dim)),
        Key("ssm.conv_kernel", count("mamba_d_conv")),
        Key("ssm.inner_size", lambda c: u32(_inner(c))),
        Key("ssm.state_size", count("mamba_d_state")),
        Key("ssm.time_step_rank", lambda c: u32(_inner(c) // c.integer("mamba_d_head"))),
        Key("ssm.group_count", count("mamba_n_groups")),
    ),
    rules=(
        Rule(r".*\.down_proj\.(weight|bias)", scale(_factor("mlp_multipliers", 1))),
        Rule(r".*\.gate_proj\.(weight|bias)", scale(_factor("mlp_multipliers", 0))),
        Rule(r".*\.k_proj\.weight", scale(_factor("key_multiplier"), _factor("attention_in_multiplier"))),
        Rule(r".*\.[qv]_proj\.weight", scale(_factor("attention_in_multiplier"))),
        Rule(r".*\.o_proj\.weight", scale(_factor("attention_out_multiplier"))),
        Rule(r".*\.mamba\.out_proj\.weight", scale(_factor("ssm_out_multiplier"))),
        Rule(r".*\.mamba\.in_proj\.weight", chain(scale(_factor("ssm_in_multiplier")), _by_part)),
        Rule(r".*\.embed_tokens\.weight", split=_both_ends, when=lambda config: config.tied),
        Rule(r"lm_head\.weight", drop=True, when=lambda config: config.tied),
        Rule(r"lm_head\.weight", scale(_factor("lm_head_multiplier"))),
        Rule(r".*\.embed_tokens\.weight", scale(_factor("embedding_multiplier"))),
        Rule(r"model\.layers\.(\d+)\.pre_ff_layernorm\.weight", rename=r"blk.\1.ffn_norm"),  # the engine's name
        *MAMBA2_RULES,
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *GATED_FFN[1:],
        Expected("blk.{block}.ssm_in.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.ssm_out.weight", lambda c: (c.hidden, _inner(c))),
    ),
    defaults={
        "rope_theta": 100000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "num_key_value_heads": 8,
        "mamba_d_state": 256, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_ssm": 1024,
    },
    refusals=_refusals,
    example="tiiuae/Falcon-H1-0.5B-Instruct",
)  # fmt: skip

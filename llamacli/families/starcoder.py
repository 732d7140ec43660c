"""StarCoder 1 and SantaCoder: GPT-2 with one shared key and value head, matrices stored as (out, in)."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import always
from llamacli.families.gpt2 import GPT2
from llamacli.formats.gguf_values import u32


def _refusals(config: Config) -> Iterable[str]:
    if not config.get("multi_query", default=True):
        yield "config.json: a GPT-BigCode without multi_query is not supported by the engine"


STARCODER = GPT2.override(
    name="starcoder",
    title="StarCoder 1, SantaCoder",
    architectures=("GPTBigCodeForCausalLM",),
    keys=(*GPT2.keys, Key("attention.head_count_kv", always(u32(1)))),
    rules=(Rule(r".*\.attn\.(masked_)?bias", drop=True),),
    expected=(
        *(tensor for tensor in GPT2.expected if "attn_qkv" not in tensor.name),
        Expected("blk.{block}.attn_qkv.weight", lambda c: (c.hidden + 2 * c.head_dim, c.hidden)),
    ),
    refusals=_refusals,
    example="bigcode/starcoder",
)

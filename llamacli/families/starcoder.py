"""StarCoder 1 and SantaCoder: GPT-2 with one shared key and value head, matrices stored as (out, in)."""

from __future__ import annotations

from llamacli.families.base import Expected, Key, Rule
from llamacli.families.decoder import always
from llamacli.families.gpt2 import GPT2
from llamacli.formats.gguf_values import u32

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
    fixed={"scale_attn_weights": True, "multi_query": True},
    example="bigcode/starcoder",
)

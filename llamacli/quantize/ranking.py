"""A causal model that ranks by what it would answer: its file gets the two rows of the output that decide, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llamacli.checkpoint.reranker import ANSWERS, TEMPLATE
from llamacli.checkpoint.vocabulary import Vocabulary
from llamacli.families.bert import RANK
from llamacli.formats.gguf_values import Value, ValueType, array, u32
from llamacli.formats.rows import Joined, RowRange, Rows

FAMILIES = ("qwen3", "qwen3vl")
"""Whose graphs in the engine turn the two scores into shares of one."""


def ranking(
    family: str, tensors: Mapping[str, Rows], vocabulary: Vocabulary
) -> tuple[dict[str, Rows], dict[str, Value], Vocabulary]:
    """The tensors, further keys and the vocabulary of a model that ranks; all others as they are.

    The engine computes the scores from the last token's state, so that no other row of the output is needed.
    """
    if family not in FAMILIES or not set(ANSWERS) <= set(vocabulary.tokens):
        return dict(tensors), {}, vocabulary
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    places = [vocabulary.tokens.index(answer) for answer in ANSWERS]
    rows = Joined(tuple(RowRange(head, place, place + 1) for place in places), (len(places), head.shape[-1]))
    kept = {name: tensor for name, tensor in tensors.items() if name != "output.weight"}
    keys = {
        f"{family}.pooling_type": u32(RANK),
        f"{family}.classifier.output_labels": array(ValueType.STRING, ANSWERS),
    }
    templates = {**vocabulary.chat_templates, "rerank": TEMPLATE}
    return {**kept, "cls.output.weight": rows}, keys, replace(vocabulary, chat_templates=templates)

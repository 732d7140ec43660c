"""Whether a checkpoint is a reranker that answers "yes" or "no", which its class and configuration do not tell.

Qwen 3's rerankers are ordinary causal models by their `config.json`; only their card and their name say what they are for.
"""

from __future__ import annotations

import re

from llamacli.checkpoint.source import Source

ANSWERS = ("yes", "no")
"""What the model says of a pair; the score is the first one's share of the two."""

_HEADING = re.compile(r"^#+ *qwen3-(vl-)?reranker", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(r"qwen3-(vl-)?reranker", re.IGNORECASE)

TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""The prompt on which these models were trained, as programs that rank look for it under the name `rerank`."""


def answers_pairs(source: Source) -> bool:
    """Whether the checkpoint's card is headed by the name of such a reranker, or the checkpoint bears the name itself."""
    if _NAME.search(source.name):
        return True
    return "README.md" in source.files() and bool(_HEADING.search(source.read("README.md").decode("utf-8", "replace")))

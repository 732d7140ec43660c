"""Where prompts are cut into batches: at the same places whoever reads them, so that the same bits come of it.

In other cuts the engine sums up in another order, and on a quantized model logits move by up to 0.3.
"""

from __future__ import annotations

LONG_PROMPT = 256
"""Tokens from which on the last of a prompt is evaluated alone: whoever reads the same prompt again needs only that one."""


def last_alone(length: int) -> bool:
    """Whether the last token of a prompt so long is evaluated by itself."""
    return length > LONG_PROMPT


def until_cut(at: int, step: int, batch: int) -> int:
    """How many tokens may be read at place `at`: up to a whole step from an odd one, else to a whole batch."""
    whole = step if at % step else max(batch // step, 1) * step
    return min(whole - at % whole, batch)

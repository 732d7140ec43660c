"""How two models differ on one token: from logits to losses and divergences, in blocks that fit a processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Logits: TypeAlias = "NDArray[np.float32]"
"""(tokens, vocabulary)"""
Ids: TypeAlias = "NDArray[np.int64]"
"""(tokens,): the tokens that really came next."""
Floats: TypeAlias = "NDArray[np.float64]"
"""(tokens,)"""

_BLOCK_VALUES = 1 << 19
"""Logits that are worked on at a time: 2 MiB."""


@dataclass(frozen=True, eq=False)
class Differences:
    """What one token's prediction is like, for each of several tokens.

    `loss`: negative log-probability of the token that came, in nats; `base_loss`: the same of the source;
    `divergence`: Kullback-Leibler divergence of the prediction from the source's, in nats; `same_top`: whether both
    think the same token the most likely.
    """

    loss: Floats
    base_loss: Floats
    divergence: Floats
    same_top: NDArray[np.bool_]


def losses(logits: Logits, ids: Ids) -> Floats:
    """Negative log-probability of each token of `ids`, in nats."""
    out = np.empty(len(ids), np.float64)
    for part in _blocks(logits):
        shifted, _, total = _softmax(logits[part])
        out[part] = np.log(total) - _at(shifted, ids[part])
    return out


def differences(base: Logits, other: Logits, ids: Ids) -> Differences:
    """Compare `other` with `base`, the logits of the source at the same places.

    With p and q the two distributions: sum of p (log p - log q), as llama-perplexity computes it, but from the
    source's logits as they are, not from 16-bit ones.
    """
    out = Differences(np.empty(len(ids)), np.empty(len(ids)), np.empty(len(ids)), np.empty(len(ids), np.bool_))
    for part in _blocks(base):
        p, weights, p_total = _softmax(base[part])
        q, _, q_total = _softmax(other[part])
        out.base_loss[part] = np.log(p_total) - _at(p, ids[part])
        out.loss[part] = np.log(q_total) - _at(q, ids[part])
        out.same_top[part] = p.argmax(axis=1) == q.argmax(axis=1)
        p -= q
        p *= weights
        out.divergence[part] = p.sum(axis=1, dtype=np.float64) / p_total + np.log(q_total) - np.log(p_total)
    return out


def _blocks(logits: Logits) -> Iterator[slice]:
    rows, columns = logits.shape
    step = max(1, _BLOCK_VALUES // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _softmax(logits: Logits) -> tuple[Logits, Logits, Floats]:
    """Logits less their row's greatest, the exponentials of these, and the rows' sums of exponentials."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return shifted, weights, weights.sum(axis=1, dtype=np.float64)


def _at(values: Logits, ids: Ids) -> Floats:
    return values[np.arange(len(ids)), ids].astype(np.float64)

"""The receipt of a quantized file in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def receipt_lines(receipt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What `quantize --check` wrote down, by heading; keys of the receipt without their `llamacli.`.

    A file may come from anywhere: a value of an unexpected type is shown as it is.
    """
    told = {"version", "engine", "recipe", "kernel", "source", "source.sha256", "weights.sha256"}
    if "recipe" in receipt:
        maker = (
            f"llamacli {receipt.get('version', '')}, {receipt.get('engine', '')}, {receipt.get('kernel', '')} kernel"
        )
        yield "made by", f"{maker}, recipe {receipt['recipe']}"
    if "source" in receipt:
        yield "made from", str(receipt["source"])
    digests = receipt.get("source.sha256")
    for line in digests if isinstance(digests, list) else ():
        yield "", str(line)
    if _number(receipt, "check.tokens"):
        yield "check", _figures(receipt)
    for name, value in receipt.items():
        if name not in told and not name.startswith("check."):
            yield f"llamacli.{name}", str(value)


def _figures(receipt: Mapping[str, Any]) -> str:
    def of(name: str) -> float:
        return _number(receipt, f"check.{name}")

    return (
        f"KL divergence {of('kl_divergence'):.4f} ± {of('kl_divergence_error'):.4f} (99 %: "
        f"{of('kl_divergence_99'):.3f}), same top token {100 * of('same_top'):.1f} %, perplexity "
        f"×{of('perplexity_ratio'):.4f} ± {of('perplexity_ratio_error'):.4f}, on {of('tokens'):,.0f} tokens"
    )


def _number(receipt: Mapping[str, Any], name: str) -> float:
    value = receipt.get(name, 0)
    return float(value) if isinstance(value, (int, float)) else 0.0

"""Which type takes a tensor whose rows are not whole blocks of the type that the recipe wants.

The table is llama.cpp's (`tensor_type_fallback` in `src/llama-quant.cpp`): the 256-wide types give way to a 32-wide
type of about the same size, and a row that is no multiple of 32 either stays at 16 bits.
"""

from __future__ import annotations

from llamacli.errors import Unsupported
from llamacli.formats.tensor_types import (
    F16,
    IQ1_M,
    IQ1_S,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_S,
    IQ3_XXS,
    IQ4_NL,
    IQ4_XS,
    Q2_0,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    TQ1_0,
    TQ2_0,
    TensorType,
)  # fmt: skip

FALLBACKS: dict[TensorType, TensorType] = {
    **dict.fromkeys((IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_XS), IQ4_NL),
    **dict.fromkeys((Q2_0, Q2_K, Q3_K, TQ1_0, TQ2_0), Q4_0),
    Q4_K: Q5_0,
    Q5_K: Q5_1,
    Q6_K: Q8_0,
}
"""The 32-wide type that stands in for a type with wider blocks."""


def fits(type_: TensorType, columns: int) -> bool:
    """Whether rows of `columns` weights are whole blocks of `type_`."""
    return columns % type_.block_size == 0


def type_that_fits(wanted: TensorType, columns: int, name: str) -> TensorType:
    """`wanted`, or what stands in for it in the tensor `name` with rows of `columns` weights.

    Raises Unsupported for a type with wide blocks that nothing stands in for (Q1_0, NVFP4).
    """
    if fits(wanted, columns):
        return wanted
    if wanted.block_size > 32 and wanted not in FALLBACKS:
        raise Unsupported(
            f"{name}: rows of {columns} weights are no multiple of {wanted.block_size}, which {wanted} needs",
            f"choose another type for this tensor: --tensor-type '{name}=q8_0'",
        )
    narrower = FALLBACKS.get(wanted, wanted)
    return narrower if fits(narrower, columns) else F16

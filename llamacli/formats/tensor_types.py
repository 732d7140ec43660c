"""ggml's tensor types and llama.cpp's file types as data.

Numbers, block sizes and names come from `ggml.h` and `llama.h`; a test compares them with the gguf package. Needs no
import, so that `list` and `show` start at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorType:
    """One way of storing weights: `block_size` weights of a row take `block_bytes` bytes."""

    name: str
    id: int
    block_size: int
    block_bytes: int

    @property
    def quantized(self) -> bool:
        """Whether weights share scales within a block."""
        return self.block_size > 1

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` weights, which must be a multiple of the block."""
        return columns // self.block_size * self.block_bytes

    def __str__(self) -> str:
        return self.name


F32 = TensorType("F32", 0, 1, 4)
F16 = TensorType("F16", 1, 1, 2)
Q4_0 = TensorType("Q4_0", 2, 32, 18)
Q4_1 = TensorType("Q4_1", 3, 32, 20)
Q5_0 = TensorType("Q5_0", 6, 32, 22)
Q5_1 = TensorType("Q5_1", 7, 32, 24)
Q8_0 = TensorType("Q8_0", 8, 32, 34)
Q8_1 = TensorType("Q8_1", 9, 32, 36)
Q2_K = TensorType("Q2_K", 10, 256, 84)
Q3_K = TensorType("Q3_K", 11, 256, 110)
Q4_K = TensorType("Q4_K", 12, 256, 144)
Q5_K = TensorType("Q5_K", 13, 256, 176)
Q6_K = TensorType("Q6_K", 14, 256, 210)
Q8_K = TensorType("Q8_K", 15, 256, 292)
IQ2_XXS = TensorType("IQ2_XXS", 16, 256, 66)
IQ2_XS = TensorType("IQ2_XS", 17, 256, 74)
IQ3_XXS = TensorType("IQ3_XXS", 18, 256, 98)
IQ1_S = TensorType("IQ1_S", 19, 256, 50)
IQ4_NL = TensorType("IQ4_NL", 20, 32, 18)
IQ3_S = TensorType("IQ3_S", 21, 256, 110)
IQ2_S = TensorType("IQ2_S", 22, 256, 82)
IQ4_XS = TensorType("IQ4_XS", 23, 256, 136)
I8 = TensorType("I8", 24, 1, 1)
I16 = TensorType("I16", 25, 1, 2)
I32 = TensorType("I32", 26, 1, 4)
I64 = TensorType("I64", 27, 1, 8)
F64 = TensorType("F64", 28, 1, 8)
IQ1_M = TensorType("IQ1_M", 29, 256, 56)
BF16 = TensorType("BF16", 30, 1, 2)
TQ1_0 = TensorType("TQ1_0", 34, 256, 54)
TQ2_0 = TensorType("TQ2_0", 35, 256, 66)
MXFP4 = TensorType("MXFP4", 39, 32, 17)
NVFP4 = TensorType("NVFP4", 40, 64, 36)
Q1_0 = TensorType("Q1_0", 41, 128, 18)
Q2_0 = TensorType("Q2_0", 42, 64, 18)

TENSOR_TYPES: tuple[TensorType, ...] = (
    F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K, IQ2_XXS, IQ2_XS, IQ3_XXS,
    IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, I8, I16, I32, I64, F64, IQ1_M, BF16, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0,
)  # fmt: skip
BY_ID: dict[int, TensorType] = {t.id: t for t in TENSOR_TYPES}
BY_NAME: dict[str, TensorType] = {t.name: t for t in TENSOR_TYPES}

FILE_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""`general.file_type` as llama.cpp numbers it."""

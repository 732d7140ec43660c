"""The weights of a GGUF file: is any of them, or any scale of a block, not a number or infinite?

One such value makes every answer garbage without an error. Where the scales lie in a block is ggml's `ggml-common.h`;
what counts as bad is what the engine's own `check_tensors` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from llamacli.errors import CorruptFile
from llamacli.formats.gguf_reader import GGUF, TensorInfo
from llamacli.formats.tensor_types import TensorType
from llamacli.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Float = Literal["f16", "bf16", "f32", "f64", "e8m0"]

SCALES: dict[str, tuple[tuple[int, Float], ...]] = {
    "F32": ((0, "f32"),),
    "F16": ((0, "f16"),),
    "BF16": ((0, "bf16"),),
    "F64": ((0, "f64"),),
    "Q1_0": ((0, "f16"),),
    "Q2_0": ((0, "f16"),),
    "Q4_0": ((0, "f16"),),
    "Q4_1": ((0, "f16"), (2, "f16")),
    "Q5_0": ((0, "f16"),),
    "Q5_1": ((0, "f16"), (2, "f16")),
    "Q8_0": ((0, "f16"),),
    "Q8_1": ((0, "f16"), (2, "f16")),
    "Q2_K": ((80, "f16"), (82, "f16")),
    "Q3_K": ((108, "f16"),),
    "Q4_K": ((0, "f16"), (2, "f16")),
    "Q5_K": ((0, "f16"), (2, "f16")),
    "Q6_K": ((208, "f16"),),
    "Q8_K": ((0, "f32"),),
    "IQ1_S": ((0, "f16"),),
    "IQ2_XXS": ((0, "f16"),),
    "IQ2_XS": ((0, "f16"),),
    "IQ2_S": ((0, "f16"),),
    "IQ3_XXS": ((0, "f16"),),
    "IQ3_S": ((0, "f16"),),
    "IQ4_NL": ((0, "f16"),),
    "IQ4_XS": ((0, "f16"),),
    "TQ1_0": ((52, "f16"),),
    "TQ2_0": ((64, "f16"),),
    "MXFP4": ((0, "e8m0"),),
}
"""Where the floating-point numbers of a block lie, in bytes from its start. IQ1_M, which spreads its scale over four
places, is treated apart; whole numbers and NVFP4's scales have no bad values."""

_EXPONENT: dict[Float, tuple[str, int]] = {
    "f16": ("<u2", 0x7C00),
    "bf16": ("<u2", 0x7F80),
    "f32": ("<u4", 0x7F800000),
    "f64": ("<u8", 0x7FF0000000000000),
    "e8m0": ("u1", 0xFF),
}
"""How wide a number is, and the exponent bits that are all set when it is infinite or not a number."""

_PIECE_BYTES = 1 << 24


def check_weights(gguf: GGUF, progress: Progress | None = None) -> None:
    """Read every tensor once and raise `CorruptFile` for the first bad number, with its tensor and row.

    Reads in pieces of some 16 MB; progress counts bytes of weights.
    """
    progress = progress or Silent()
    for part, path in enumerate(gguf.paths):
        with path.open("rb") as file:
            for tensor in (t for t in gguf.tensors if t.part == part):
                progress.describe(tensor.name)
                _check_tensor(gguf, tensor, path, file, progress)


def first_bad_weight(kind: TensorType, data: bytes) -> int | None:
    """The number of the first weight whose block of `kind` holds NaN or infinity; None where `data` is sound."""
    import numpy as np

    blocks = np.frombuffer(data, np.uint8).reshape(-1, kind.block_bytes)
    bad = _bad_blocks(kind, blocks)
    return int(bad.argmax()) * kind.block_size if bad is not None and bad.any() else None


def _check_tensor(gguf: GGUF, tensor: TensorInfo, path: Path, file: BinaryIO, progress: Progress) -> None:
    file.seek(gguf.tensor_start(tensor))
    done = 0
    for data in _pieces(file, tensor):
        if len(data) % tensor.type.block_bytes:
            raise CorruptFile(f"{path} became shorter while it was read", "something else is writing to it")
        place = first_bad_weight(tensor.type, data)
        if place is not None:
            place += done // tensor.type.block_bytes * tensor.type.block_size
            raise CorruptFile(
                f"{path}: the tensor {tensor.name!r} holds NaN or infinity in row {place // tensor.shape[0]:,}, "
                f"column {place % tensor.shape[0]:,}",
                "the file is damaged, or was made from a broken checkpoint; get it again",
            )
        done += len(data)
        progress.advance(len(data))


def _pieces(file: BinaryIO, tensor: TensorInfo) -> Iterator[bytes]:
    """The tensor's bytes, whole blocks at a time."""
    step = _PIECE_BYTES // tensor.type.block_bytes * tensor.type.block_bytes
    left = tensor.size_bytes
    while left:
        data = file.read(min(step, left))
        yield data or b"\0"  # an end too early shows as a piece that is no block
        left -= len(data)


def _bad_blocks(kind: TensorType, blocks: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """One truth value per block; None where the type has no bad values."""
    import numpy as np

    if kind.name == "IQ1_M":
        # the top four bits of each of the block's four last 16-bit words make one f16, the lowest first; its exponent
        # is bits 10 to 14: of the fourth word all but the sign, of the third the two upper bits
        words = np.ascontiguousarray(blocks[:, 48:56]).view("<u2")
        return np.asarray(((words[:, 3] & 0x7000) == 0x7000) & ((words[:, 2] & 0xC000) == 0xC000))
    bad = None
    for offset, form in SCALES.get(kind.name, ()):
        layout, mask = _EXPONENT[form]
        width = np.dtype(layout).itemsize
        numbers = np.ascontiguousarray(blocks[:, offset : offset + width]).view(layout)[:, 0]
        infinite = (numbers & mask) == mask
        bad = infinite if bad is None else bad | infinite
    return bad

"""Blocks of types whose weights are numbers on a grid, taken apart and put together: scale * number + offset.

A level is the index of such a number: an integer counted from the least one, or an entry of a table. Levels are all that
is written back; scales and offsets stay as they are. How blocks are laid out: ggml-common.h, ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = "NDArray[np.uint8]"
Floats: TypeAlias = "NDArray[np.float32]"


@dataclass(frozen=True)
class Grid:
    """A type's numbers, and how its blocks hold them.

    `part`: weights that share a scale. `least` and `most`: the integers that a weight can be; `table`: whether levels
    are looked up in IQ4's table instead.
    """

    part: int
    least: int
    most: int
    scales: Callable[[Bytes], tuple[Floats, Floats]]
    """(blocks, bytes) -> scale and offset of every part: two of (blocks, parts)."""
    levels: Callable[[Bytes], Bytes]
    """(blocks, bytes) -> (blocks, weights)."""
    put: Callable[[Bytes, Bytes], None]
    """(blocks, bytes), (blocks, weights): write these levels into the blocks."""
    table: bool = False


# Scales ---------------------------------------------------------------------------------------------------------------


def _half(blocks: Bytes, at: int) -> Floats:
    """The binary16 number at byte `at` of every block: (blocks, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _no_offset(scales: Floats) -> tuple[Floats, Floats]:
    return scales, np.zeros_like(scales)


def _scales_q4k(blocks: Bytes) -> tuple[Floats, Floats]:
    low, high, both = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    codes = np.concatenate([low & 63, both & 15 | low >> 6 << 4], 1)
    least = np.concatenate([high & 63, both >> 4 | high >> 6 << 4], 1)
    return _half(blocks, 0) * codes, -(_half(blocks, 2) * least)


def _scales_q2k(blocks: Bytes) -> tuple[Floats, Floats]:
    codes = blocks[:, :16]
    return _half(blocks, 80) * (codes & 15), -(_half(blocks, 82) * (codes >> 4))


def _scales_q3k(blocks: Bytes) -> tuple[Floats, Floats]:
    low, high = blocks[:, 96:104], blocks[:, 104:108]
    codes = np.concatenate([low & 15, low >> 4], 1) | np.concatenate([high >> k & 3 for k in (0, 2, 4, 6)], 1) << 4
    return _no_offset(_half(blocks, 108) * (codes.astype(np.float32) - 32))


def _scales_q6k(blocks: Bytes) -> tuple[Floats, Floats]:
    return _no_offset(_half(blocks, 208) * blocks[:, 192:208].view(np.int8))


def _scales_iq4xs(blocks: Bytes) -> tuple[Floats, Floats]:
    part = np.arange(8, dtype=np.uint8)
    low = blocks[:, 4:8].repeat(2, 1) >> part % 2 * 4 & 15
    high = blocks[:, 2:4].repeat(4, 1) >> part % 4 * 2 & 3
    return _no_offset(_half(blocks, 0) * ((low | high << 4).astype(np.float32) - 32))


def _scale_alone(blocks: Bytes) -> tuple[Floats, Floats]:
    return _no_offset(_half(blocks, 0))


def _scale_and_least(blocks: Bytes) -> tuple[Floats, Floats]:
    return _half(blocks, 0), _half(blocks, 2)


# Levels ---------------------------------------------------------------------------------------------------------------

_Get: TypeAlias = Callable[[Bytes], Bytes]
_Put: TypeAlias = Callable[[Bytes, Bytes], None]


def _nibbles(at: int, run: int) -> tuple[_Get, _Put]:
    """Four bits each: bytes from `at` hold `run` levels in their low halves and the next `run` in their high ones."""

    def get(blocks: Bytes) -> Bytes:
        pairs = blocks[:, at:].reshape(len(blocks), -1, 1, run)
        return np.concatenate([pairs & 15, pairs >> 4], 2).reshape(len(blocks), -1)

    def put(blocks: Bytes, levels: Bytes) -> None:
        pairs = levels.reshape(len(blocks), -1, 2, run)
        blocks[:, at:] = (pairs[:, :, 0] & 15 | pairs[:, :, 1] << 4).reshape(len(blocks), -1)

    return get, put


def _pairs(at: int) -> tuple[_Get, _Put]:
    """Two bits each, in 64 bytes from `at`: byte l of a half holds its weights l, l + 32, l + 64 and l + 96."""

    def get(blocks: Bytes) -> Bytes:
        half = blocks[:, at : at + 64].reshape(-1, 2, 1, 32)
        return np.concatenate([half >> k & 3 for k in (0, 2, 4, 6)], 2).reshape(-1, 256)

    def put(blocks: Bytes, levels: Bytes) -> None:
        four = (levels & 3).reshape(-1, 2, 4, 32)
        packed = four[:, :, 0] | four[:, :, 1] << 2 | four[:, :, 2] << 4 | four[:, :, 3] << 6
        blocks[:, at : at + 64] = packed.reshape(-1, 64)

    return get, put


def _with_bit(rest: tuple[_Get, _Put], at: int, bit: int) -> tuple[_Get, _Put]:
    """One bit more, in 32 bytes from `at`: bit j of byte l is that of weight 32*j + l."""

    def get(blocks: Bytes) -> Bytes:
        bits = np.unpackbits(blocks[:, at : at + 32, None], axis=2, bitorder="little")
        levels: Bytes = rest[0](blocks) | bits.transpose(0, 2, 1).reshape(-1, 256) << bit
        return levels

    def put(blocks: Bytes, levels: Bytes) -> None:
        rest[1](blocks, levels)
        bits = (levels >> bit & 1).reshape(-1, 8, 32).transpose(0, 2, 1)
        blocks[:, at : at + 32] = np.packbits(bits, axis=2, bitorder="little")[:, :, 0]

    return get, put


def _with_fifth(at: int) -> tuple[_Get, _Put]:
    """Blocks of 32: a fifth bit for each weight in the four bytes from `at`, then four bits each."""
    rest = _nibbles(at + 4, 16)

    def get(blocks: Bytes) -> Bytes:
        fifth = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little")
        levels: Bytes = rest[0](blocks) | fifth << np.uint8(4)
        return levels

    def put(blocks: Bytes, levels: Bytes) -> None:
        rest[1](blocks, levels)
        blocks[:, at : at + 4] = np.packbits(levels >> 4, axis=1, bitorder="little")

    return get, put


def _levels_q6k(blocks: Bytes) -> Bytes:
    low = blocks[:, :128].reshape(-1, 2, 2, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    upper = np.concatenate([high >> k & 3 for k in (0, 2, 4, 6)], 2)
    levels: Bytes = (np.concatenate([low & 15, low >> 4], 2) | upper << 4).reshape(-1, 256)
    return levels


def _put_q6k(blocks: Bytes, levels: Bytes) -> None:
    four = levels.reshape(-1, 2, 4, 32)
    low, high = four & 15, four >> 4
    blocks[:, :128] = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
    packed = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    blocks[:, 128:192] = packed.reshape(-1, 64)


GRIDS: dict[str, Grid] = {
    "Q2_K": Grid(16, 0, 3, _scales_q2k, *_pairs(16)),
    "Q3_K": Grid(16, -4, 3, _scales_q3k, *_with_bit(_pairs(32), 0, 2)),
    "Q4_K": Grid(32, 0, 15, _scales_q4k, *_nibbles(16, 32)),
    "Q5_K": Grid(32, 0, 31, _scales_q4k, *_with_bit(_nibbles(48, 32), 16, 4)),
    "Q6_K": Grid(16, -32, 31, _scales_q6k, _levels_q6k, _put_q6k),
    "Q4_0": Grid(32, -8, 7, _scale_alone, *_nibbles(2, 16)),
    "Q4_1": Grid(32, 0, 15, _scale_and_least, *_nibbles(4, 16)),
    "Q5_0": Grid(32, -16, 15, _scale_alone, *_with_fifth(2)),
    "Q5_1": Grid(32, 0, 31, _scale_and_least, *_with_fifth(4)),
    "IQ4_XS": Grid(32, 0, 15, _scales_iq4xs, *_nibbles(8, 16), table=True),
    "IQ4_NL": Grid(32, 0, 15, _scale_alone, *_nibbles(2, 16), table=True),
}

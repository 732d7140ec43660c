"""What kind of picture some bytes are and how large it will be, from its first bytes: before native code unpacks it."""

from __future__ import annotations

from llamacli.errors import UsageError

LARGEST_FILE = 64 << 20
"""Bytes of a picture's file."""

LARGEST_SIDE, MOST_DOTS = 1 << 15, 1 << 26
"""Of a picture, unpacked: 64 million dots take 200 MB."""

_STANDALONE = (0x01, *range(0xD0, 0xD8))
"""JPEG markers without a length."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that tell the size."""


def check_picture(data: bytes, name: str) -> None:
    """Raise UsageError unless `data` is a PNG, JPEG, GIF or BMP of a reasonable size."""
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{name} is larger than {LARGEST_FILE >> 20} MiB")
    size = picture_size(data)
    if size is None:
        raise UsageError(f"{name} is no picture that can be read", "PNG, JPEG, GIF and BMP are")
    width, height = size
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE and width * height <= MOST_DOTS):
        raise UsageError(f"{name} is {width:,} by {height:,} dots", f"at most {MOST_DOTS:,} together are read")


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(width, height), or None for what is none of the known kinds."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith((b"GIF87a", b"GIF89a")) and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if data.startswith(b"BM") and len(data) >= 26:
        return abs(int.from_bytes(data[18:22], "little", signed=True)), abs(
            int.from_bytes(data[22:26], "little", signed=True)
        )
    return _jpeg_size(data) if data.startswith(b"\xff\xd8\xff") else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _STANDALONE:
            place += 2
        elif marker in _FRAMES:
            return int.from_bytes(data[place + 7 : place + 9], "big"), int.from_bytes(
                data[place + 5 : place + 7], "big"
            )
        else:
            place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    return None

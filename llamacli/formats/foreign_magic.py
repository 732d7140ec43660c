"""What a file is when it is not what it should be, told from its first bytes."""

from __future__ import annotations

_ANOTHER = "name a .gguf file"
_CONVERT = "llamacli quantize turns a folder of safetensors into a GGUF file"

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; the weights were not downloaded", "run: git lfs pull"),
    (b"FUGG", "a big-endian GGUF file", "download or convert the little-endian file"),
    (b"PK\x03\x04", "a zip archive, perhaps PyTorch weights", _CONVERT),
    (b"\x80\x02", "a pickle", "pickles run code and are never read; look for safetensors"),
    (b"\x80\x04", "a pickle", "pickles run code and are never read; look for safetensors"),
    (b"tjgg", "the GGJT format of 2023", "convert the model again"),
    (b"lmgg", "the GGML format of 2023", "convert the model again"),
    (b"fmgg", "the GGMF format of 2023", "convert the model again"),
    (b"algg", "a GGLA adapter of 2023", "convert the adapter again"),
    (b"\x89HDF", "an HDF5 file", _CONVERT),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7-zip archive", "unpack it first"),
)


def what_it_is(start: bytes, size: int) -> tuple[str, str]:
    """A few words about a file of `size` bytes that begins with `start`, and a hint."""
    if not size:
        return "it is empty", "download or convert it again"
    for magic, words, hint in SIGNATURES:
        if start.startswith(magic):
            return f"it is {words}", hint
    text = start[:256].lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps an error message of the server", "download it again"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size:
        return "it is a safetensors file", _CONVERT
    if text.startswith((b"{", b"[")):
        return "it is JSON", _ANOTHER
    if not start[:4096].strip(b"\0"):
        return "it begins with zeros, as an unfinished download does", "download it again"
    return "it does not begin with GGUF", _ANOTHER

"""Tiny projectors with random weights, which the engine runs as it runs real ones, and pictures to show them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

SIDE, PATCH, WIDTH, BLOCKS, INNER = 32, 8, 32, 2, 64
Dots = Callable[[int, int], tuple[int, int, int]]


def write_projector(path: Path, kind: str, text_width: int, seed: int = 1) -> Path:
    """A projector of llama.cpp's `kind` for a model whose vectors have `text_width` numbers."""
    numbers = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", kind)
    for key, value in {
        "image_size": SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": INNER,
        "block_count": BLOCKS, "projection_dim": text_width, "attention.head_count": 2,
    }.items():  # fmt: skip
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    for key in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{key}", [0.5, 0.5, 0.5])

    def put(name: str, *shape: int, ones: bool = False) -> None:
        values = np.ones(shape) if ones else numbers.normal(0, 0.3, shape)
        writer.add_tensor(name, values.astype(np.float32))

    def norm(name: str) -> None:
        put(f"{name}.weight", WIDTH, ones=True)
        put(f"{name}.bias", WIDTH)

    merged = kind == "qwen2vl_merger"
    put("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    if merged:
        put("v.patch_embd.weight.1", WIDTH, 3, PATCH, PATCH)
    else:
        put("v.patch_embd.bias", WIDTH)
        put("v.position_embd.weight", (SIDE // PATCH) ** 2 + (kind == "mlp"), WIDTH)
    if kind == "mlp":
        put("v.class_embd", WIDTH)
        norm("v.pre_ln")
    for block in range(BLOCKS):
        start = f"v.blk.{block}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            put(f"{start}.{part}.weight", WIDTH, WIDTH)
            put(f"{start}.{part}.bias", WIDTH)
        for part in ("ln1", "ln2"):
            norm(f"{start}.{part}")
        put(f"{start}.ffn_up.weight", INNER, WIDTH)
        put(f"{start}.ffn_up.bias", INNER)
        put(f"{start}.ffn_down.weight", WIDTH, INNER)
        put(f"{start}.ffn_down.bias", WIDTH)
    norm("v.post_ln")
    if kind == "gemma3":
        writer.add_uint32("clip.vision.projector.scale_factor", 2)
        put("mm.soft_emb_norm.weight", WIDTH, ones=True)
        put("mm.input_projection.weight", WIDTH, text_width)
    else:
        inner = 4 * WIDTH if merged else text_width
        put("mm.0.weight", inner, 4 * WIDTH if merged else WIDTH)
        put("mm.0.bias", inner)
        put("mm.2.weight", text_width, inner)
        put("mm.2.bias", text_width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def png(width: int, height: int, dots: Dots) -> bytes:
    """A picture."""
    rows = b"".join(b"\0" + b"".join(bytes(dots(x, y)) for x in range(width)) for y in range(height))

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")

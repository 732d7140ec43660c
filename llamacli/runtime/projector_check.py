"""Whether the engine can be given a projector: what its graph takes for granted and would end the process without.

The engine asks for most tensors of a projector as if they were optional, because so many kinds share one reader, and then
computes with what is not there. Found by reading llama.cpp's `clip.cpp` and by showing pictures to damaged projectors.
"""

from __future__ import annotations

from llamacli.errors import CorruptFile, LlamacliError, Unsupported
from llamacli.formats.gguf_reader import GGUF
from llamacli.formats.gguf_values import ValueType
from llamacli.formats.tensor_types import F32

MOST_BLOCKS = 512

PLACED = ("mlp", "ldp", "ldpv2", "adapter", "resampler", "gemma3", "idefics3", "internvl", "lfm2", "janus_pro", "phi4")
"""Kinds whose patches get learned vectors for their places."""
PATCHED = (*PLACED, "qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger", "pixtral", "kimivl", "llama4")
"""Kinds that cut a picture into patches by one convolution."""
LAYERS = {False: (0, 2), True: (0, 1, 3, 4)}
"""Layers of LLaVA's projector, without and with norms; the engine computes with them, whether they are there or not."""

_TYPES = {
    **dict.fromkeys(("layer_norm_epsilon", "swiglu_clamp"), ValueType.FLOAT32),
    **dict.fromkeys(("projector_type", "model_variant", "mm_patch_merge_type"), ValueType.STRING),
    **dict.fromkeys(("has_vision_encoder", "has_audio_encoder", "has_gen_audio_encoder"), ValueType.BOOL),
    **dict.fromkeys(("use_gelu", "use_silu"), ValueType.BOOL),
}
"""What is no whole number, by the last part of its name."""
_READING = ("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight", "ffn_up.weight", "ffn_gate.weight")
_WRITING = ("attn_out.weight", "ffn_down.weight")
_NORMS = ("ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias")


def check_projector(gguf: GGUF) -> None:
    """Raise Unsupported if a file is no projector for pictures, CorruptFile for what would end the process."""
    name = gguf.path.name
    if gguf.architecture != "clip":
        raise Unsupported(
            f"{name} is no projector", "a projector's name has mmproj in it, and it stands beside the model"
        )
    if gguf.get("clip.has_vision_encoder") is not True:
        raise Unsupported(f"{name} reads no pictures")
    _check_types(gguf)
    width, heads = _number(gguf, "embedding_length", 1 << 16), _number(gguf, "attention.head_count", 1 << 12)
    if width % heads or _number(gguf, "image_size", 1 << 13) < _number(gguf, "patch_size", 1 << 10):
        raise _corrupt(gguf, "its sizes do not go with one another")
    for tensor in gguf.tensors:
        if len(tensor.shape) == 1 and tensor.type is not F32:
            raise _corrupt(gguf, f"{tensor.name} is {tensor.type.name}, not F32")
    shapes = {tensor.name: tensor.shape for tensor in gguf.tensors}
    _check_ends(gguf, shapes)
    for block in range(_number(gguf, "block_count", MOST_BLOCKS, least=0)):
        prefix = f"v.blk.{block}."
        _check_block(gguf, {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}, width, block)


def _check_types(gguf: GGUF) -> None:
    """Values must be stored as the engine asks for them: it asserts that they are."""
    for key, value in gguf.metadata.items():
        last = key.rpartition(".")[2]
        if key in ("general.name", "general.description"):
            wanted = ValueType.STRING
        elif key.startswith("clip.") and value.element is None:
            wanted = _TYPES.get(last, ValueType.UINT32)
        else:
            continue
        if value.type is not wanted:
            raise _corrupt(gguf, f"{key} is stored as {value.type.name}")
        if last == "layer_norm_epsilon" and not 0 <= value.value < 1:
            raise _corrupt(gguf, f"{key} is {value.value!r}")
    for key in ("clip.vision.image_mean", "clip.vision.image_std"):
        found = gguf.metadata.get(key)
        if found is not None and (found.element is None or len(found.value) != 3):
            raise _corrupt(gguf, f"{key} is not one number for each colour")


def _check_ends(gguf: GGUF, shapes: dict[str, tuple[int, ...]]) -> None:
    """Before and after the blocks."""
    kind = gguf.get("clip.vision.projector_type") or gguf.get("clip.projector_type")
    layers = LAYERS["mm.3.weight" in shapes] if kind == "mlp" else ()
    needed = [f"mm.{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    needed += ["v.position_embd.weight"] if kind in PLACED else []
    needed += ["v.patch_embd.weight"] if kind in PATCHED else []
    for tensor in needed:
        if tensor not in shapes:
            raise _corrupt(gguf, f"{tensor} is missing")


def _check_block(gguf: GGUF, shapes: dict[str, tuple[int, ...]], width: int, block: int) -> None:
    together = [f"attn_{part}.weight" in shapes for part in "qkv"]
    attends = any(together) or "attn_qkv.weight" in shapes
    if attends and not (all(together) or "attn_qkv.weight" in shapes):
        raise _corrupt(gguf, f"block {block} lacks a part of its attention")
    if attends and not {"attn_out.weight", "ffn_down.weight", "ffn_up.weight"} <= set(shapes):
        raise _corrupt(gguf, f"block {block} lacks a tensor")
    for name, shape in shapes.items():
        at = 0 if name in _READING or name in _NORMS else -1 if name in _WRITING else None
        if at is not None and shape[at] != width:
            raise _corrupt(gguf, f"{name} of block {block} does not go with vectors of {width}")


def _number(gguf: GGUF, key: str, most: int, *, least: int = 1) -> int:
    value = gguf.get(f"clip.vision.{key}")
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _corrupt(gguf, f"clip.vision.{key} is {value!r}")
    return value


def _corrupt(gguf: GGUF, what: str) -> LlamacliError:
    return CorruptFile(f"{gguf.path.name} is damaged: {what}", "download it again")

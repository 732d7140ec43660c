"""What a model file says about itself, in plain values: the facts behind `show`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llamacli.formats.gguf_reader import GGUF, Skipped
from llamacli.formats.gguf_values import ValueType

TEMPLATE_FEATURES: tuple[tuple[str, str], ...] = (
    ("system", r"\bsystem\b|[+{~]\s*\w+(?:\.role|\[['\"]role['\"]\])"),  # or any role as it comes
    ("tools", r"\btools\b|\btool_calls?\b"),
    ("thinking", r"enable_thinking|reasoning_content|</?think(?:ing)?>|\bthinking\b|<\|channel\|>"),
    ("vision", r"<\|?image|image_url|['\"]image['\"]|vision_start|<\|?video"),
    ("audio", r"<\|?audio|['\"]audio['\"]|input_audio"),
)
"""What a chat template can do, told by words that it then contains."""

SPECIAL_TOKENS = (
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "mask",
    "fim_pre",
    "fim_suf",
    "fim_mid",
)
"""As in `tokenizer.ggml.<name>_token_id`, with the format's own spelling."""

SOURCES = (
    "general.source.huggingface.repository",
    "general.source.repo_url",
    "general.source.url",
    "general.repo_url",
    "general.url",
    "general.base_model.0.repo_url",
)
"""Where a file may say what it was made from, the most telling first."""


@dataclass(frozen=True)
class TypeShare:
    """How much of a model is stored in one type."""

    type: str
    tensors: int
    weights: int
    size_bytes: int


def quantization_mix(gguf: GGUF) -> list[TypeShare]:
    """The types of the tensors, the one that takes most bytes first."""
    shares: dict[str, TypeShare] = {}
    for tensor in gguf.tensors:
        old = shares.get(tensor.type.name, TypeShare(tensor.type.name, 0, 0, 0))
        shares[tensor.type.name] = TypeShare(
            old.type, old.tensors + 1, old.weights + tensor.weights, old.size_bytes + tensor.size_bytes
        )
    return sorted(shares.values(), key=lambda share: -share.size_bytes)


def template_features(template: str) -> list[str]:
    """What the chat template knows of: system, tools, thinking, vision, audio."""
    return [name for name, words in TEMPLATE_FEATURES if re.search(words, template)]


def chat_template(gguf: GGUF) -> str:
    """The model's chat template, or nothing."""
    value = gguf.get("tokenizer.chat_template", "")
    return value if isinstance(value, str) else ""


def sampling_defaults(gguf: GGUF) -> dict[str, Any]:
    """What the model's makers recommend (`general.sampling.*`)."""
    return _with_prefix(gguf, "general.sampling.")


def receipt(gguf: GGUF) -> dict[str, Any]:
    """What llamacli wrote down when it made the file (`llamacli.*`)."""
    return _with_prefix(gguf, "llamacli.")


def special_tokens(gguf: GGUF) -> dict[str, tuple[int, str]]:
    """Id and text of the tokens with a role."""
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    found = {}
    for name in SPECIAL_TOKENS:
        number = gguf.get(f"tokenizer.ggml.{name}_token_id")
        if tokens is None or tokens.element is not ValueType.STRING or not isinstance(number, int):
            continue
        if not 0 <= number < len(tokens.value):
            continue
        text = "" if isinstance(tokens.value, Skipped) else tokens.value[number]
        found[name.replace("seperator", "separator")] = (number, readable(text))
    return found


def source(gguf: GGUF) -> str:
    """What the file was made from, where it says so."""
    return next((readable(value) for key in SOURCES if (value := gguf.get(key))), "")


def license_of(gguf: GGUF) -> str:
    """The licence's name as the file has it."""
    return readable(gguf.get("general.license.name") or gguf.get("general.license") or "")


def describe(gguf: GGUF) -> dict[str, Any]:
    """Everything `show` can say, as JSON can carry it. Keys never change their meaning."""
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    template = chat_template(gguf)
    return {
        "name": readable(gguf.get("general.name") or gguf.path.name),
        "files": [str(path) for path in gguf.paths],
        "size_bytes": gguf.size_bytes,
        "architecture": gguf.architecture,
        "parameters": gguf.weights,
        "file_type": gguf.file_type_name,
        "bits_per_weight": round(gguf.bits_per_weight, 3),
        "quantization": [vars(share) for share in quantization_mix(gguf)],
        "context_length": per_block(gguf.get("{arch}.context_length")),
        "blocks": per_block(gguf.get("{arch}.block_count")),
        "embedding_length": per_block(gguf.get("{arch}.embedding_length")),
        "feed_forward_length": per_block(gguf.get("{arch}.feed_forward_length")),
        "heads": per_block(gguf.get("{arch}.attention.head_count")),
        "heads_kv": per_block(gguf.get("{arch}.attention.head_count_kv", gguf.get("{arch}.attention.head_count"))),
        "experts": per_block(gguf.get("{arch}.expert_count")),
        "experts_used": per_block(gguf.get("{arch}.expert_used_count")),
        "sliding_window": per_block(gguf.get("{arch}.attention.sliding_window")),
        "vocabulary": len(tokens.value) if tokens is not None and tokens.element is not None else 0,
        "tokenizer": readable(gguf.get("tokenizer.ggml.model", "")),
        "pre_tokenizer": readable(gguf.get("tokenizer.ggml.pre", "")),
        "special_tokens": {name: {"id": i, "text": text} for name, (i, text) in special_tokens(gguf).items()},
        "template": bool(template),
        "template_features": template_features(template),
        "sampling": sampling_defaults(gguf),
        "license": license_of(gguf),
        "source": source(gguf),
        "receipt": receipt(gguf),
        "gguf_version": gguf.version,
    }


def per_block(value: Any) -> int | list[int] | None:
    """A number that is the same in every block once, else the list of them; None for what is no number."""
    items = value if isinstance(value, tuple) else (value,)
    numbers = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
    if not numbers:
        return None
    return numbers[0] if len(set(numbers)) == 1 else numbers


def readable(value: Any) -> str:
    """Text of a metadata value that ought to be text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (tuple, list)):
        return ", ".join(readable(item) for item in value)
    return str(value)


def plain(value: Any) -> Any:
    """A metadata value as JSON can carry it: bytes as text, and numbers that JSON does not have as text too."""
    if isinstance(value, bytes):
        return readable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Skipped):
        return {"length": len(value)}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _with_prefix(gguf: GGUF, prefix: str) -> dict[str, Any]:
    return {key[len(prefix) :]: plain(gguf.get(key)) for key in gguf.metadata if key.startswith(prefix)}

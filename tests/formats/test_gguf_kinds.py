"""Models of several kinds of blocks that have one kind alone: the engine would end the process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import tiny_model

from llamacli.errors import CorruptFile
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.gguf_values import Value, ValueType, array, string, u32

CASES: dict[str, tuple[str, dict[str, Value]]] = {
    "head_count_kv has heads": ("lfm2", {"attention.head_count_kv": array(ValueType.INT32, [2, 2])}),
    "recurrent_layers names no block": (
        "qwen35",
        {"attention.recurrent_layers": array(ValueType.BOOL, [False, False])},
    ),
    "sliding_window_pattern names no block": (
        "olmo2",
        {
            "attention.sliding_window": u32(8),
            "attention.sliding_window_pattern": array(ValueType.BOOL, [False, False]),
        },
    ),
}


@pytest.mark.parametrize("words", CASES)
def test_one_kind_of_blocks_is_refused(words: str, tmp_path: Path) -> None:
    architecture, changes = CASES[words]
    model = tiny_model().with_key("general.architecture", string(architecture))
    for name, value in {**model.metadata, **{f"llama.{name}": value for name, value in changes.items()}}.items():
        if name.startswith("llama."):
            model = model.with_key(name, None).with_key(name.replace("llama.", f"{architecture}."), value)
    with pytest.raises(CorruptFile, match=words):
        check_safe(read_gguf(model.write(tmp_path / "model.gguf")))

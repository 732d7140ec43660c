"""What describes a model is no part of it: a card that cannot be read stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, Result
from synthetic import write_checkpoint

FILES: dict[str, tuple[str, bytes]] = {
    "a table that is none": ("README.md", b"---\nlicense: [a\nfoo: : :\n---\n"),
    "no UTF-8": ("README.md", b"---\nname: caf\xe9\n---\n"),
    "a tag that would run code": ("README.md", b"---\nlicense: !!python/object/apply:os.getpid []\n---\n"),
    "a date for a licence": ("README.md", b"---\nlicense: 2024-01-01\n---\n"),
    "parts that stand for others": ("README.md", b"---\na: &a [x, x]\nb: &b [*a, *a]\ntags: [*b, *b]\n---\n"),
    "a word for a temperature": ("generation_config.json", b'{"temperature": "hot"}'),
    "a number larger than its type": ("generation_config.json", b'{"top_k": 99999999999999}'),
}


@pytest.mark.parametrize("name", FILES)
def test_it_is_left_out(name: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    file, content = FILES[name]
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    write_checkpoint(tmp_path / "model", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    (tmp_path / "model" / file).write_bytes(content)
    done = invoke("quantize", tmp_path / "model", "-q", "Q8_0", "--dry-run")
    assert done.code == 0, done.err
    assert f"warning: {file} is not as such files are" in done.err
    assert "config.json is" not in done.err.replace("generation_config.json", "")


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    write_checkpoint(tmp_path / "model", case["config"], {key: tuple(shape) for key, shape in case["tensors"].items()})
    for path in (tmp_path / "model").glob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    done = invoke("quantize", tmp_path / "model", "-q", "Q8_0", "--dry-run")
    assert done.code == 0 and "warning" not in done.err

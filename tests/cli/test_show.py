from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llamacli.formats.gguf_encode import encode_header
from llamacli.formats.gguf_values import ValueType, array, f32, i32, string, u32
from llamacli.formats.tensor_types import F32, Q4_K
from llamacli.library.describe import template_features

TEMPLATE = "{% if tools %}<think>{{ m.role == 'system' }}{{ '<|image_pad|>' }}{% endif %}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with everything that `show` can tell; its weights are zeros."""
    metadata = {
        "general.architecture": string("qwen3moe"),
        "general.name": string("Little One"),
        "general.file_type": u32(15),
        "general.license": string("apache-2.0"),
        "general.license.link": string("https://example.org/licence"),
        "general.source.huggingface.repository": string("someone/little-one"),
        "general.sampling.temp": f32(0.6),
        "general.sampling.top_k": i32(20),
        "qwen3moe.context_length": u32(40960),
        "qwen3moe.block_count": u32(2),
        "qwen3moe.embedding_length": u32(256),
        "qwen3moe.attention.head_count": u32(8),
        "qwen3moe.attention.head_count_kv": array(ValueType.INT32, [2, 2]),
        "qwen3moe.expert_count": u32(16),
        "qwen3moe.expert_used_count": u32(4),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("qwen2"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, ["a", "b", "<|end|>\n"]),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.bos_token_id": u32(99),
        "tokenizer.chat_template": string(TEMPLATE),
        "llamacli.recipe": string("Q4_K_M"),
    }
    tensors = [("token_embd.weight", (256, 3), Q4_K.id, 0), ("output_norm.weight", (256,), F32.id, 448)]
    path = tmp_path / "little.gguf"
    path.write_bytes(encode_header(metadata, tensors) + bytes(448 + 1024))
    return path


def test_the_summary_tells_what_a_model_is(invoke: Any, model: Path) -> None:
    done = invoke("show", model)
    assert done.code == 0 and done.err == ""
    facts = dict(line.split(None, 1) for line in done.out.split("\n\n")[0].splitlines())
    assert facts["model"] == "Little One" and facts["file"] == str(model)
    assert facts["quantization"] == "Q4_K_M" and facts["parameters"] == "1.02 K"
    assert facts["architecture"] == "qwen3moe, 2 blocks, width 256, heads 8/2, 4 of 16 experts"
    assert facts["context"] == "40,960 tokens" and facts["vocabulary"] == "3 tokens (gpt2, qwen2)"
    assert facts["special"] == 'eos 2 "<|end|>\\n"'
    assert facts["template"] == "system, tools, thinking, vision"
    assert facts["sampling"] == "temp 0.6, top_k 20"
    assert facts["licence"] == "apache-2.0" and facts["source"] == "someone/little-one"
    assert facts["made"].endswith("recipe Q4_K_M")
    table = [line.split() for line in done.out.split("\n\n")[1].splitlines()]
    assert table[0] == ["type", "tensors", "weights", "bytes", "share"]
    assert table[1][:4] == ["F32", "1", "256", "1024"] and table[2][:4] == ["Q4_K", "1", "768", "432"]


@pytest.mark.parametrize(
    ("template", "features"),
    [
        ("{% for m in messages %}{{ '<|im_start|>' + m['role'] }}{% endfor %}", ["system"]),
        ("{{ m.role }}: {{ m.content }}", ["system"]),
        ("{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}", []),
        ("{% if m.role == 'system' %}{{ tool_calls }}", ["system", "tools"]),
        ("{{ enable_thinking }}", ["thinking"]),
        ("<|channel|>analysis", ["thinking"]),
        ("<start_of_image> {% if x == 'image' %}", ["vision"]),
    ],
)
def test_templates_tell_what_they_can_do(template: str, features: list[str]) -> None:
    assert template_features(template) == features


def test_json_says_the_same_to_scripts(invoke: Any, model: Path) -> None:
    facts = invoke("show", model, "--json").json
    assert facts["architecture"] == "qwen3moe" and facts["parameters"] == 1024
    assert facts["heads_kv"] == 2 and facts["experts_used"] == 4 and facts["context_length"] == 40960
    assert facts["sampling"] == {"temp": pytest.approx(0.6), "top_k": 20}
    assert facts["special_tokens"] == {"eos": {"id": 2, "text": "<|end|>\n"}}
    assert facts["template_features"] == ["system", "tools", "thinking", "vision"]
    assert facts["quantization"][1] == {"type": "Q4_K", "tensors": 1, "weights": 768, "size_bytes": 432}


def test_single_things_are_shown_alone(invoke: Any, model: Path) -> None:
    assert invoke("show", model, "--template").out == TEMPLATE + "\n"
    assert invoke("show", model, "--license").out == "apache-2.0\nhttps://example.org/licence\n"
    assert invoke("show", model, "--kv", "{arch}.context_length").out == "40960\n"
    assert invoke("show", model, "--kv", "tokenizer.ggml.tokens").out == "a\nb\n<|end|>\\n\n"
    assert invoke("show", model, "--kv", "tokenizer.ggml.tokens", "--json").json == ["a", "b", "<|end|>\n"]
    assert invoke("show", model, "--tensors").out.splitlines()[1].split() == [
        "token_embd.weight",
        "256x3",
        "Q4_K",
        "432",
    ]
    assert invoke("show", model, "--tensors", "--json").json[1]["offset"] == 448
    keys = invoke("show", model, "--keys").out
    assert "tokenizer.ggml.tokens" in keys and "string[3]" in keys


def test_what_is_not_there_is_said(invoke: Any, model: Path, tmp_path: Path) -> None:
    missing = invoke("show", model, "--kv", "general.licens")
    assert missing.code == 3 and "no key general.licens" in missing.err
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(encode_header({"general.architecture": string("llama")}, []))
    assert invoke("show", bare, "--template").code == 1
    assert invoke("show", bare).out.splitlines()[0].split() == ["model", "bare.gguf"]
    assert invoke("show", tmp_path / "none.gguf").code == 3
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(30))
    done = invoke("show", tmp_path / "bad.gguf")
    assert done.code == 9 and done.out == "" and done.err.startswith("error: ")


def test_show_starts_without_numpy_and_the_engine(model: Path) -> None:
    import subprocess

    code = (
        "import sys; from llamacli.cli.app import main; sys.argv = ['llamacli', 'show', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'numpy', 'llama_cpp', 'gguf', 'rich', 'prompt_toolkit'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""The grammar of a model name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacli.errors import UsageError
from llamacli.library.names import ModelName, safe_file

HUB = [
    ("a/b", ("a/b", "", "")),
    ("a/b:Q4_K_M", ("a/b", "Q4_K_M", "")),
    ("a/b@v1:q8_0", ("a/b", "q8_0", "v1")),
    ("a/b:Q8_0@v1", ("a/b", "Q8_0", "v1")),
    ("a/b:UD-Q4_K_XL", ("a/b", "UD-Q4_K_XL", "")),
    ("a/b:sub/x.gguf", ("a/b", "sub/x.gguf", "")),
    ("a/b@refs/pr/7", ("a/b", "", "refs/pr/7")),
    ("hf:a/b", ("a/b", "", "")),
    ("hf.co/a/b:Q6_K", ("a/b", "Q6_K", "")),
    ("https://huggingface.co/a/b", ("a/b", "", "")),
    ("https://huggingface.co/a/b/blob/main/x.gguf", ("a/b", "x.gguf", "main")),
    ("https://huggingface.co/a/b/resolve/main/s/x.gguf?download=true", ("a/b", "s/x.gguf", "main")),
    ("https://huggingface.co/a/b/tree/main", ("a/b", "", "main")),
    ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "", "")),
]


@pytest.mark.parametrize(("text", "parts"), HUB)
def test_a_repository_is_taken_apart(text: str, parts: tuple[str, str, str]) -> None:
    name = ModelName.parse(text)
    assert (name.kind, name.name, name.selector, name.revision) == ("hub", *parts)


@pytest.mark.parametrize(
    "text",
    [
        "./a",
        "../a/b",
        "/a/b",
        "~/m",
        "~",
        "C:\\m\\x.gguf",
        "c:/m",
        "\\\\host\\m\\x",
        "x.gguf",
        "models/x.gguf",
        "m\\x",
        ".",
        "..",
    ],
)
def test_a_path_is_a_path(text: str) -> None:
    assert ModelName.parse(text) == ModelName("path", text)


def test_other_tools_models_have_a_prefix() -> None:
    assert ModelName.parse("ollama:llama3.2:3b") == ModelName("ollama", "llama3.2:3b")
    assert ModelName.parse("lms:google/gemma-3-4b") == ModelName("lms", "google/gemma-3-4b")


def test_a_word_is_an_alias() -> None:
    assert ModelName.parse("llama-3.2-3b") == ModelName("alias", "llama-3.2-3b")


@pytest.mark.parametrize(
    "text",
    ["", " ", "a/b/c", "a/", "/".join("abc"), "a/b@", "a/b:", "a b", "a/b@../x:q", "a/b:../x", "a\x1b/b", "a--b/c",
     "a/..b", "a/b:c:\\x", "a/b.git", "hf:x", "a/b\n", "ollama:"],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ModelName.parse(text)


@given(st.text(st.sampled_from("ab/:@.-_~\\ C\x00ggufhfolama"), max_size=24))
def test_a_name_survives_the_way_through_text(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except UsageError:
        return
    assert ModelName.parse(str(name)) == name


HOSTILE = [
    "..", ".", "", "../x", "a/../x", "a/..", "/etc/passwd", "//host/share", "\\\\host\\share", "a\\b", "C:x", "C:\\x",
    "a:b", "nul", "NUL.gguf", "a/con", "com1.txt", "aux", "a\x00b", "a\x1bb", "a\nb", "a\x7fb", "a\x9bb", "x.", "x ",
    "a./b", "a /b", "x" * 256, "é" * 128, "a//b", "a/", "/", "./a", "a/./b", "a|b", "a?b", "a*b", 'a"b', "<a>",
    "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_name_is_refused(name: str) -> None:
    assert not safe_file(name)


@pytest.mark.parametrize(
    "name", ["x.gguf", "a/b/c.safetensors", "Ünïcode.json", ".gitattributes", "x" * 255, "con-1.x"]
)
def test_an_honest_file_name_is_taken(name: str) -> None:
    assert safe_file(name)

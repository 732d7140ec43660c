"""models.toml, ours and the user's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

from llamacli.errors import UsageError
from llamacli.library.catalog import catalog, near, shipped
from llamacli.library.names import ModelName

ENTRIES = catalog()
LICENCES = {
    "apache-2.0", "gemma", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "mit", "mrl", "qwen", "qwen-research",
}  # fmt: skip
"""As the cards of the Hub spell them."""


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_of_ours_is_a_repository_with_its_facts(name: str) -> None:
    entry = ENTRIES[name]
    assert ModelName.parse(name).kind == "alias"
    for repo in (entry.model, entry.source):
        assert ModelName.parse(repo).kind == "hub"
    assert entry.licence and entry.parameters and entry.good_for and entry.context >= 512
    assert entry.kind in ("chat", "base", "embedding")
    assert set(entry.licence.split(", ")) <= LICENCES
    assert re.fullmatch(r"\d+(\.\d+)?[MB](, \d+(\.\d+)?B (active|in memory))?", entry.parameters)
    assert "gguf" in entry.model.lower() or entry.model == entry.source, "files to run, or weights to quantize"


def test_no_model_has_two_names() -> None:
    assert len({entry.model for entry in ENTRIES.values()}) == len(ENTRIES)


def test_the_first_entries_are_llamas() -> None:
    assert all(name.startswith("llama-") for name in list(ENTRIES)[:8])


def test_the_catalog_ships_beside_the_package() -> None:
    assert shipped().name == "models.toml" and shipped().is_file()


def test_the_users_entries_come_first_and_are_checked(tmp_path: Path) -> None:
    own = tmp_path / "models.toml"
    own.write_text('[tinyllama]\nmodel = "me/Mine"\n[new]\nmodel = "./x.gguf"\n')
    merged = catalog(tmp_path)
    assert merged["tinyllama"].model == "me/Mine" and merged["new"].model == "./x.gguf"
    for bad in ("[x]\n", 'x = "y"\n', "[x]\nmodel = 3\n", '[x]\nmodel = "a/b"\ncontext = "big"\n', "[", "\xff"):
        own.write_text(bad, encoding="latin-1")
        with pytest.raises(UsageError, match=r"models\.toml"):
            catalog(tmp_path)


def test_near_names_forgive_case_and_punctuation() -> None:
    assert near("Llama-3.2 3B", ENTRIES)[0] == "llama-3.2-3b"
    assert near("lama3.1-8b", ENTRIES)[0] == "llama-3.1-8b"
    assert near("zzzz", ENTRIES) == []


def test_the_catalog_can_be_listed(invoke: Callable[..., Result]) -> None:
    assert "llama-3.2-3b" in invoke("list", "--catalog").out
    assert invoke("list", "--catalog", "--json").json[0]["licence"] == "llama3.2"

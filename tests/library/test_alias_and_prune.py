"""Short names, the default model, and what unfinished downloads leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import Result

from llamacli.library.lock import only_one

Invoke = Callable[..., Result]


def test_an_alias_leads_to_its_model_until_it_is_removed(invoke: Invoke, tmp_path: Path) -> None:
    model = tmp_path / "Größe-Q8_0.gguf"
    model.write_bytes(b"x")
    assert invoke("alias", "mine", model).code == 0
    assert invoke("alias", "--json").json == [{"NAME": "mine", "MODEL": str(model)}]
    assert str(model) in invoke("verify", "mine").err
    assert "mine" in invoke("list", "-q").out.split()
    assert invoke("alias", "other", "mine").code == 0
    assert str(model) in invoke("verify", "other").err
    assert invoke("alias", "mime", "--remove").err.count("mine")
    assert invoke("alias", "mine", "--remove").code == 0
    assert invoke("verify", "mine").code == 3


@pytest.mark.parametrize(
    ("name", "model"), [("a/b", "c/d"), ("x y", "c/d"), ("x", "a/b/c"), ("x", ""), ("m.gguf", "c/d")]
)
def test_a_bad_alias_is_refused(invoke: Invoke, name: str, model: str) -> None:
    assert invoke("alias", name, model).code == 2
    assert invoke("alias", "--json").json == []


def test_the_default_model_is_remembered(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("default").code == 1
    assert invoke("default", "llama-3.2-3b").code == 0
    assert invoke("default").out == "llama-3.2-3b\n"
    missing = invoke("verify")
    assert missing.code == 3 and "llamacli download llama-3.2-3b" in missing.err
    assert invoke("default", env={"LLAMACLI_MODEL": "x/y"}).out == "x/y\n"


def test_a_file_named_from_its_folder_is_found_from_every_other(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"x")
    assert invoke("default", "mine.gguf").code == 0
    assert invoke("alias", "short", "./mine.gguf").code == 0
    assert invoke("default").out == f"{tmp_path / 'mine.gguf'}\n"
    assert {"NAME": "short", "MODEL": str(tmp_path / "mine.gguf")} in invoke("alias", "--json").json


def test_prune_takes_what_nobody_is_downloading(invoke: Invoke, tmp_path: Path) -> None:
    blobs = tmp_path / "hf" / "hub" / "models--a--M" / "blobs"
    blobs.mkdir(parents=True)
    digest = {name: name * 64 for name in "abc"}
    for name in "ab":
        part = blobs / f"{digest[name]}.llamacli-part"
        part.write_bytes(b"x" * 1000)
        state = '{"version": 1, "size": 5000, "digest": "%s", "host": "", "validator": "", "done": [[0, 1000]]}'
        part.with_name(part.name + ".json").write_text(state % digest[name])
    (blobs / digest["c"]).write_bytes(b"whole")
    rows = invoke("prune", "--dry-run", "--json").json
    assert [(r["repo"], r["bytes"]) for r in rows] == [("a/M", 1000), ("a/M", 1000)]
    assert invoke("prune").code == 2
    with only_one(tmp_path / "hf" / "hub" / ".locks" / "models--a--M" / f"{digest['a']}.lock", lambda: None):
        assert "freed 1.0 kB" in invoke("prune", "-y").err
    assert sorted(p.name[0] for p in blobs.iterdir()) == ["a", "a", "c"]
    assert invoke("prune", "-y").code == 0
    assert [p.name[0] for p in blobs.iterdir()] == ["c"]


def test_an_alias_cannot_lead_back_to_itself(invoke: Invoke) -> None:
    assert invoke("alias", "x", "x").code == 2
    assert invoke("alias", "x", "y").code == 0 and invoke("alias", "y", "z").code == 0
    refused = invoke("alias", "z", "x")
    assert refused.code == 2 and "back to itself" in refused.err
    assert len(invoke("alias", "--json").json) == 2


def test_a_name_that_leads_nowhere_is_kept_with_a_warning(invoke: Invoke) -> None:
    assert "no model is called nope" in invoke("default", "nope").err

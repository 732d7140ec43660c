"""`llamacli list` and `llamacli rm` on Hub caches made by hand and by huggingface_hub's rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from support import Result

from llamacli.library.index import Index, read_facts
from llamacli.library.lock import only_one

Invoke = Callable[..., Result]
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small real GGUF."""
    import gguf
    import numpy as np

    path = tmp_path_factory.mktemp("model") / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_file_type(7)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub"


def put(
    cache: Path, repo: str, commit: str, files: dict[str, bytes], ref: str = "", *, hard_links: bool = False
) -> None:
    folder = cache / ("models--" + repo.replace("/", "--"))
    for name, content in files.items():
        blob = folder / "blobs" / f"{abs(hash(content)):064x}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        pointer = folder / "snapshots" / commit / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if hard_links:
            pointer.hardlink_to(blob)
        else:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    if ref:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(commit)


def test_a_list_shows_what_one_would_type(invoke: Invoke, cache: Path, model: bytes) -> None:
    put(cache, "a/M-GGUF", NEW, {"M-Q8_0.gguf": model, "mmproj-M-f16.gguf": b"x"}, ref="main")
    put(cache, "a/Split", NEW, {"S-Q4_K_M-00001-of-00002.gguf": model + b"1", "S-Q4_K_M-00002-of-00002.gguf": b"2"})
    put(cache, "a/Torn", NEW, {"S-Q4_K_M-00001-of-00002.gguf": model + b"3"})
    put(cache, "a/Base", NEW, {"model.safetensors": b"w" * 10, "config.json": b"{}"})
    put(cache, "a/Bad", NEW, {"Bad-Q4_0.gguf": b"not a model"})
    rows = {m["name"]: m for m in invoke("list", "--json").json}
    assert set(rows) == {"a/M-GGUF:Q8_0", "a/Split:Q4_K_M", "a/Base", "a/Bad:Q4_0"}
    assert rows["a/M-GGUF:Q8_0"]["context"] == 4096 and rows["a/M-GGUF:Q8_0"]["bytes"] == len(model)
    assert rows["a/Split:Q4_K_M"]["bytes"] == len(model) + 2
    assert rows["a/Base"]["quant"] == "safetensors" and rows["a/Bad:Q4_0"]["error"]
    table = invoke("list").out
    assert table.splitlines()[0].split() == ["NAME", "QUANT", "SIZE", "CTX", "FITS", "WHERE", "USED"]
    assert "4 096" in table and "damaged" in table
    assert sorted(invoke("list", "-q").out.splitlines()) == sorted(rows)
    fields = next(line for line in invoke("list", "--plain").out.splitlines() if line.startswith("a/M-GGUF")).split(
        "\t"
    )
    assert fields[:6] == ["a/M-GGUF:Q8_0", "Q8_0", str(len(model)), "4096", "yes", "hf"]


def test_every_name_of_the_list_is_found(invoke: Invoke, cache: Path, model: bytes, tmp_path: Path) -> None:
    put(
        cache,
        "a/M",
        NEW,
        {"M-Q8_0.gguf": model, "M-UD-Q8_0.gguf": model + b"1", "sub/odd.gguf": model + b"2"},
        ref="main",
    )
    put(cache, "a/M", OLD, {"M-Q8_0.gguf": model + b"old", "M-UD-Q8_0.gguf": model + b"1"})
    names = invoke("list", "-q").out.splitlines()
    assert len(names) == 4
    found = {name: invoke("download", name, "--offline") for name in names}
    assert all(r.code == 0 for r in found.values()), found
    assert len({Path(r.out.strip()).resolve() for r in found.values()}) == 4


def test_an_empty_list_is_no_error(invoke: Invoke) -> None:
    result = invoke("list")
    assert (result.code, result.out) == (0, "") and "llamacli download" in result.err
    assert invoke("list", "--json").json == []


def test_models_of_other_tools_are_listed_when_asked(invoke: Invoke, tmp_path: Path, model: bytes) -> None:
    for folder in (".lmstudio/models/google/gemma", ".cache/llama.cpp", ".local/share/nomic.ai/GPT4All",
                   ".config/Jan/data/models/llama"):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"x-{len(folder)}-Q4_0.gguf").write_bytes(model)
    assert invoke("list", "--json").json == []
    if sys.platform.startswith("linux"):
        rows = invoke("list", "--all", "--json").json
        assert {r["where"] for r in rows} == {"lms", "llama.cpp", "gpt4all", "jan"}
        for row in rows:
            assert invoke("download", row["name"]).code in (0, 2)


def test_the_index_forgets_a_file_that_changed(tmp_path: Path, model: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model)
    index = Index(tmp_path / "index.json")
    assert index.facts(path, path.stat()).context == 4096
    index.save()
    again = Index(tmp_path / "index.json")
    saved = json.loads((tmp_path / "index.json").read_text())
    saved["files"][str(path)]["facts"]["context"] = 7
    (tmp_path / "index.json").write_text(json.dumps(saved))
    again = Index(tmp_path / "index.json")
    assert again.facts(path, path.stat()).context == 7, "an unchanged file is not read again"
    os.utime(path, ns=(0, 12345))
    assert again.facts(path, path.stat()) == read_facts(path)
    path.write_bytes(b"broken")
    assert "GGUF" in again.facts(path, path.stat()).error


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1, "files": []}', '{"version": 1, "files": {"x": 3}}'])
def test_a_broken_index_is_made_anew(tmp_path: Path, model: bytes, content: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model)
    (tmp_path / "index.json").write_text(content)
    assert Index(tmp_path / "index.json").facts(path, path.stat()).context == 4096


def test_a_list_imports_neither_numpy_nor_the_engine_nor_the_network(tmp_path: Path) -> None:
    heavy = ("numpy", "llama_cpp", "huggingface_hub", "gguf", "ssl", "http.client", "rich.console")
    code = f"""
import sys
from llamacli.cli.app import invoke
from llamacli.cli.console import Console
from llamacli.cli.context import Context
env = {{"LLAMACLI_HOME": {str(tmp_path)!r}, "HF_HOME": {str(tmp_path)!r}}}
assert invoke(["list"], Context(console=Console(sys.stdout, sys.stderr, env), env=env)) == 0
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- rm ------------------------------------------------------------------------------------------------------------


def blobs(cache: Path) -> int:
    return len(list(cache.glob("models--*/blobs/*")))


def test_rm_says_what_goes_and_asks_first(invoke: Invoke, cache: Path) -> None:
    put(cache, "a/M", NEW, {"M-Q8_0.gguf": b"8" * 5000, "M-Q4_0.gguf": b"4" * 3000}, ref="main")
    dry = invoke("rm", "a/M:Q8_0", "--dry-run")
    assert dry.code == 0 and "5.0 kB" in dry.err and blobs(cache) == 2
    refused = invoke("rm", "a/M:Q8_0")
    assert refused.code == 2 and "-y" in refused.err and blobs(cache) == 2
    assert invoke("rm", "a/M:Q8_0", "-y", "--json").json["freed"] == 5000
    assert blobs(cache) == 1 and not scan_cache_dir(cache).warnings
    assert invoke("list", "-q").out == "a/M:Q4_0\n"
    assert invoke("rm", "a/M", "-y").code == 0
    assert not list(cache.glob("models--*"))
    assert invoke("rm", "a/M", "-y").code == 3


def test_a_blob_that_another_revision_needs_stays(invoke: Invoke, cache: Path) -> None:
    put(cache, "a/M", OLD, {"M-Q8_0.gguf": b"same" * 1000, "M-Q4_0.gguf": b"old" * 1000})
    put(cache, "a/M", NEW, {"M-Q8_0.gguf": b"same" * 1000, "M-Q4_0.gguf": b"new" * 1000}, ref="main")
    result = invoke("rm", f"a/M@{OLD}", "-y")
    assert result.code == 0 and "1 of them stay" in result.err and "freed 3.0 kB" in result.err
    assert blobs(cache) == 2
    assert not scan_cache_dir(cache).warnings
    assert invoke("download", "a/M:Q8_0", "--offline").code == 0


def test_a_cache_without_symbolic_links_gives_its_bytes_back_too(invoke: Invoke, cache: Path) -> None:
    put(cache, "a/M", OLD, {"M-Q8_0.gguf": b"same" * 1000}, hard_links=True)
    put(cache, "a/M", NEW, {"M-Q4_0.gguf": b"new" * 1000}, ref="main", hard_links=True)
    same, pointer = cache / "models--a--M/snapshots" / OLD / "M-Q8_0.gguf", cache / "models--a--M/snapshots" / NEW
    (pointer / "M-Q8_0.gguf").hardlink_to(same)
    assert invoke("rm", f"a/M@{OLD}", "-y", "--json").json["freed"] == 0
    assert blobs(cache) == 2 and not same.exists()
    assert invoke("rm", "a/M:Q8_0", "-y", "--json").json["freed"] == 4000
    assert blobs(cache) == 1 and invoke("download", "a/M:Q4_0", "--offline").code == 0


def test_a_branch_that_pointed_at_what_went_goes_too(invoke: Invoke, cache: Path) -> None:
    put(cache, "a/M", OLD, {"M-Q8_0.gguf": b"old"}, ref="v1")
    put(cache, "a/M", NEW, {"M-Q8_0.gguf": b"new"}, ref="main")
    assert invoke("rm", "a/M@v1", "-y").code == 0
    info = scan_cache_dir(cache)
    assert not info.warnings
    assert {ref for r in info.repos for v in r.revisions for ref in v.refs} == {"main"}


def test_unfinished_downloads_go_with_their_repository_but_not_under_a_download(invoke: Invoke, cache: Path) -> None:
    folder = cache / "models--a--M"
    (folder / "blobs").mkdir(parents=True)
    part = folder / "blobs" / ("c" * 64 + ".llamacli-part")
    part.write_bytes(b"x" * 100)
    with only_one(cache / ".locks" / "models--a--M" / ("c" * 64 + ".lock"), lambda: None):
        assert invoke("rm", "a/M", "-y").code == 12
        assert part.exists()
    assert invoke("rm", "a/M", "-y").code == 0
    assert not folder.exists()


def test_what_is_not_ours_is_not_removed(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    assert "ollama rm" in invoke("rm", "ollama:llama3", "-y").err
    assert invoke("rm", "ollama:llama3", "-y").code == invoke("rm", "./m.gguf", "-y").code == 2
    assert (tmp_path / "m.gguf").exists()


def test_a_blob_that_is_a_link_into_a_shared_store_loses_only_the_link(
    invoke: Invoke, cache: Path, tmp_path: Path
) -> None:
    put(cache, "a/M", NEW, {"M-Q8_0.gguf": b"bytes"}, ref="main")
    (blob,) = cache.glob("models--a--M/blobs/*")
    shared = tmp_path / "shared"
    shutil.move(blob, shared)
    blob.symlink_to(shared)
    assert invoke("rm", "a/M", "-y", "--json").json["freed"] == 0
    assert shared.read_bytes() == b"bytes"


def test_what_was_made_here_can_be_removed(invoke: Callable[..., Result], tmp_path: Path, model: bytes) -> None:
    folder = tmp_path / "home" / "data" / "models" / "maker--Made"
    folder.mkdir(parents=True)
    for quant in ("Q8_0", "Q4_K_M"):
        (folder / f"Made-{quant}.gguf").write_bytes(model)
    assert [entry["where"] for entry in invoke("list", "--json").json] == ["made", "made"]
    told = invoke("rm", "maker/Made:Q8_0", "-y")
    assert told.code == 0 and "1 file," in told.err
    assert [entry["name"] for entry in invoke("list", "--json").json] == ["maker/Made:Q4_K_M"]
    assert invoke("rm", "maker/Made", "-y").code == 0 and not folder.exists()
    assert invoke("rm", "maker/Made", "-y").code == 3

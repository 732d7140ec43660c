"""From a name to a file on this computer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llamacli.cli.context import Context
from llamacli.cli.models import model_path
from llamacli.errors import CorruptFile, NotFound, Unsupported, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put(cache: Path, repo: str, *names: str, commit: str = COMMIT, branch: str = "main") -> Path:
    """Files of `repo` in a Hub cache, laid out as huggingface_hub does."""
    folder = cache / ("models--" + repo.replace("/", "--"))
    for name in names:
        content = f"{repo} {commit} {name}".encode()
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    return folder / "snapshots" / commit


@pytest.fixture
def here(context: Callable[..., Context]) -> Context:
    return context()


def cache_of(here: Context) -> Path:
    return Path(here.env["HF_HOME"]) / "hub"


def test_a_file_is_itself(here: Context) -> None:
    (here.cwd / "m.gguf").touch()
    assert model_path(here, "m.gguf") == here.cwd / "m.gguf"
    assert model_path(here, "~/m.gguf") == here.home / "m.gguf"
    assert model_path(here, str(here.cwd / "m.gguf")) == here.cwd / "m.gguf"


def test_a_missing_file_suggests_its_neighbour(here: Context) -> None:
    (here.cwd / "tiny-Q4_K_M.gguf").touch()
    with pytest.raises(NotFound, match="no such file") as caught:
        model_path(here, "./tiny-Q4_K_S.gguf")
    assert "tiny-Q4_K_M.gguf" in caught.value.hint


def test_a_folder_with_one_model_is_that_model(here: Context) -> None:
    (here.cwd / "d").mkdir()
    (here.cwd / "d" / "mmproj-f16.gguf").touch()
    (here.cwd / "d" / "m-00001-of-00002.gguf").touch()
    with pytest.raises(CorruptFile, match="1 of 2 parts are missing"):
        model_path(here, "./d")
    (here.cwd / "d" / "m-00002-of-00002.gguf").touch()
    assert model_path(here, "./d").name == "m-00001-of-00002.gguf"
    (here.cwd / "d" / "other.gguf").touch()
    with pytest.raises(UsageError, match="holds 2 models"):
        model_path(here, "./d")


def test_the_default_model_comes_from_the_environment_then_the_settings(context: Callable[..., Context]) -> None:
    here = context()
    with pytest.raises(UsageError, match="no default model"):
        model_path(here, None)
    here.config_dir.mkdir(parents=True)
    (here.config_dir / "config.toml").write_text('model = "./a.gguf"\n')
    for name in ("a.gguf", "b.gguf"):
        (here.cwd / name).touch()
    assert model_path(here, None).name == "a.gguf"
    assert model_path(context(LLAMACLI_MODEL="./b.gguf"), "-").name == "b.gguf"


def test_a_repository_in_the_cache_is_found_by_quantization_and_file(here: Context) -> None:
    files = ("M-Q4_K_M.gguf", "M-UD-Q5_K_XL.gguf", "q8/M-Q8_0-00001-of-00002.gguf", "q8/M-Q8_0-00002-of-00002.gguf")
    snapshot = put(cache_of(here), "a/M-GGUF", *files, "mmproj-Q8_0.gguf", "imatrix-Q4_K_M.gguf")
    for text, name in {
        "a/M-GGUF:q4_k_m": files[0],
        "A/m-gguf:Q4_K_M": files[0],
        "a/M-GGUF:Q5_K_XL": files[1],
        "a/M-GGUF:Q8_0": files[2],
        "a/M-GGUF:M-Q4_K_M.gguf": files[0],
        "a/M-GGUF:M-Q8_0-00002-of-00002.gguf": files[2],
        f"a/M-GGUF@{COMMIT}:Q4_K_M": files[0],
        f"a/M-GGUF:Q4_K_M@{COMMIT[:8]}": files[0],
        "a/M-GGUF@main": files[2],
        "M-GGUF": files[2],
    }.items():
        assert model_path(here, text) == snapshot / name, text


def test_a_model_that_is_not_here_names_the_command_that_fetches_it(here: Context) -> None:
    put(cache_of(here), "a/M-GGUF", "M-Q4_K_M.gguf")
    for text in ("a/M-GGUF:Q8_0", "a/M-GGUF@dev:Q4_K_M", "b/Other:Q2_K"):
        with pytest.raises(NotFound) as caught:
            model_path(here, text)
        assert f"llamacli download {text}" in caught.value.hint
        assert caught.value.exit_code == 3
    with pytest.raises(NotFound) as caught:
        model_path(here, "a/M-GUF")
    assert "a/M-GGUF" in caught.value.hint
    (cache_of(here) / "models--b--Thing").mkdir()
    with pytest.raises(NotFound) as caught:
        model_path(here, "b/Thin")
    assert "b/Thing" not in caught.value.hint, "what was refused has left an empty folder"


def test_a_split_model_with_a_part_missing_is_not_here(here: Context) -> None:
    put(cache_of(here), "a/M", "M-Q8_0-00001-of-00002.gguf")
    with pytest.raises(NotFound, match="not whole"):
        model_path(here, "a/M:Q8_0")


def test_a_link_to_nothing_is_not_a_model(here: Context) -> None:
    snapshot = put(cache_of(here), "a/M", "M-Q8_0.gguf")
    (snapshot / "M-Q8_0.gguf").resolve().unlink()
    with pytest.raises(NotFound):
        model_path(here, "a/M:Q8_0")


def test_safetensors_want_to_be_quantized_first(here: Context) -> None:
    put(cache_of(here), "a/M", "model.safetensors", "config.json")
    with pytest.raises(Unsupported) as caught:
        model_path(here, "a/M")
    assert "llamacli quantize a/M" in caught.value.hint


def test_an_alias_of_the_user_leads_to_its_model(here: Context) -> None:
    snapshot = put(cache_of(here), "a/M", "M-Q8_0.gguf")
    here.config_dir.mkdir(parents=True)
    (here.config_dir / "models.toml").write_text(
        '[mine]\nmodel = "a/M:Q8_0"\n[loop]\nmodel = "loop"\n[gone]\nmodel = "a/X"\n'
    )
    assert model_path(here, "mine") == model_path(here, "Mine") == snapshot / "M-Q8_0.gguf"
    with pytest.raises(UsageError, match="itself"):
        model_path(here, "loop")
    with pytest.raises(NotFound) as caught:
        model_path(here, "gone")
    assert caught.value.hint == "llamacli download gone"
    with pytest.raises(NotFound) as caught:
        model_path(here, "mone")
    assert "mine" in caught.value.hint


def test_models_of_ollama_and_lm_studio_are_used_in_place(context: Callable[..., Context], tmp_path: Path) -> None:
    root = tmp_path / "ollama"
    content = b"GGUF of a llama"
    digest = hashlib.sha256(content).hexdigest()
    manifest = root / "manifests" / "registry.ollama.ai" / "library" / "llama3.2" / "latest"
    manifest.parent.mkdir(parents=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64, "size": 1},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": len(content)},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    (root / "blobs").mkdir()
    (root / "blobs" / f"sha256-{digest}").write_bytes(content)
    (manifest.parent / "broken").write_text("{")
    here = context(OLLAMA_MODELS=str(root))
    assert model_path(here, "ollama:llama3.2").read_bytes() == content
    assert model_path(here, "ollama:llama3.2:latest").read_bytes() == content
    for wrong in ("ollama:llama3.1", "ollama:lama3.2"):
        with pytest.raises(NotFound, match="Ollama has no model") as caught:
            model_path(here, wrong)
        assert "did you mean ollama:llama3.2?" in caught.value.hint
    folder = tmp_path / ".lmstudio" / "models" / "google" / "gemma-3-4b"
    folder.mkdir(parents=True)
    (folder / "gemma-Q4_K_M.gguf").touch()
    assert model_path(here, "lms:google/gemma-3-4b") == folder / "gemma-Q4_K_M.gguf"


def test_bad_names_are_usage_errors(here: Context) -> None:
    for text in ("a/b/c", "x" * 5000, "a/b:\x1b[2J", "nul\x00"):
        with pytest.raises((UsageError, NotFound)):
            model_path(here, text)

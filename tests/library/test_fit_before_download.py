"""What a model on the Hub needs here is known before its weights are fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_hub import HubFile, LocalHub, local_hub
from support import MODELS, Result

from llamacli.cli import fitting
from llamacli.cli.context import Context
from llamacli.cli.fitting import Room
from llamacli.cli.models import obtain

Invoke = Callable[..., Result]
REPO = "maker/Wide-GGUF"
SOURCE = "maker/tinystories-656k-wide256"
TYPES = ("Q8_0", "Q6_K", "Q4_0")


@pytest.fixture
def hub(converted: Callable[..., Path]) -> Iterator[LocalHub]:
    with local_hub() as hub:
        hub.add(REPO, {f"Wide-{kind}.gguf": converted("tinystories-656k-wide256", kind).read_bytes() for kind in TYPES})
        folder = MODELS["tinystories-656k-wide256"]
        hub.add(
            SOURCE,
            {p.name: HubFile(p.read_bytes(), p.suffix == ".safetensors") for p in folder.iterdir() if p.is_file()},
        )
        yield hub


@pytest.fixture
def llamacli(invoke: Invoke, hub: LocalHub) -> Invoke:
    def run(*arguments: object, **env: str) -> Result:
        return invoke(*arguments, env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **env})

    return run


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that this much memory is free."""

    def set_free(memory: int, gpus: int = 0) -> None:
        monkeypatch.setattr(fitting, "room", lambda: Room(memory, gpus))

    return set_free


def sizes(hub: LocalHub) -> list[int]:
    return [len(hub.repos[REPO].files[f"Wide-{kind}.gguf"].content) for kind in TYPES]


def needs(llamacli: Invoke) -> list[dict[str, Any]]:
    return list(llamacli("fit", REPO, "--json").json)


def test_a_remote_model_needs_what_the_same_file_here_needs(
    llamacli: Invoke, converted: Callable[..., Path], hub: LocalHub
) -> None:
    there = llamacli("fit", f"{REPO}:Q8_0", "--json")
    here = llamacli("fit", converted("tinystories-656k-wide256", "Q8_0"), "--json")
    figures = ("context", "weights_bytes", "kv_bytes", "compute_bytes", "total_bytes")
    assert [there.json[f] for f in figures] == [here.json[f] for f in figures]
    assert not any(path.name.startswith("llamacli-header") for path in Path("/tmp").glob("llamacli-header-*/*.gguf"))


def test_of_a_header_no_more_than_twice_its_length_is_fetched(hub: LocalHub, llamacli: Invoke) -> None:
    content = hub.repos[REPO].files["Wide-Q8_0.gguf"].content + bytes(40_000_000)
    hub.repos[REPO].files = {"Wide-Q8_0.gguf": HubFile(content)}
    hub.sent = 0
    assert llamacli("show", f"{REPO}:Q8_0").code in (0, 9)
    assert hub.sent <= 2_100_000


def test_download_takes_the_best_that_fits_with_room_to_spare_and_says_why(
    llamacli: Invoke, hub: LocalHub, free: Callable[..., None]
) -> None:
    rows = needs(llamacli)
    assert [row["quant"] for row in rows] == list(TYPES) and [row["bytes"] for row in rows] == sizes(hub)
    for row in rows:
        free(int(row["total_bytes"] / 0.9) + 2)
        result = llamacli("download", REPO, "--dry-run", "--json")
        assert result.json["files"][0]["file"] == f"Wide-{row['quant']}.gguf"
        assert f"→ {row['quant']}" in result.err and "tokens of context" in result.err
    free(int(rows[-1]["total_bytes"] / 0.9) - 2000)
    result = llamacli("download", REPO)
    assert result.code == 6 and "no, needs" in result.err
    assert llamacli("fit", REPO).code == 6
    assert llamacli("download", REPO, "--fit", "off").code == 0


def test_a_longer_context_needs_more_and_a_gpu_counts_for_itself(llamacli: Invoke, free: Callable[..., None]) -> None:
    short, long = (llamacli("fit", REPO, "--ctx", n, "--json").json for n in (512, 16384))
    assert short[0]["bytes"] == long[0]["bytes"] and short[0]["total_bytes"] < long[0]["total_bytes"]
    free(0, gpus=1 << 40)
    assert "on GPU" in llamacli("download", REPO, "--list").out
    assert llamacli("download", REPO, "--fit", "ram").code == 6
    assert llamacli("download", REPO, "--fit", "gpu", "--dry-run").code == 0


def test_show_reads_a_remote_header(llamacli: Invoke, hub: LocalHub) -> None:
    result = llamacli("show", f"{REPO}:Q6_K", "--json")
    assert result.json["file_type"] == "Q6_K" and result.json["files"] == [f"{REPO}/Wide-Q6_K.gguf"]
    assert llamacli("show", f"{REPO}:Q6_K", "--kv", "llama.block_count").out.strip().isdigit()
    assert llamacli("show", f"{REPO}:Q6_K", "--offline").code == 3


def test_a_checkpoint_on_the_hub_is_planned_in_every_recipe(llamacli: Invoke, hub: LocalHub) -> None:
    rows = llamacli("fit", SOURCE, "--json").json
    by_name = {row["quant"]: row["bytes"] for row in rows}
    assert by_name["Q8_0"] == len(hub.repos[REPO].files["Wide-Q8_0.gguf"].content)
    assert by_name["Q6_K"] == len(hub.repos[REPO].files["Wide-Q6_K.gguf"].content)
    assert not list(Path.cwd().glob("*.gguf"))


def test_quantize_chooses_by_the_same_rule(llamacli: Invoke, free: Callable[..., None], tmp_path: Path) -> None:
    rows = llamacli("fit", SOURCE, "--json").json
    wanted = next(row for row in rows if row["quant"] == "Q5_K_M")
    free(int(wanted["total_bytes"] / 0.9) + 2)
    result = llamacli("quantize", SOURCE, "--fit", "auto")
    assert result.code == 0, result.err
    assert Path(result.out.strip()).name == "tinystories-656k-wide256-Q5_K_M.gguf"
    assert Path(result.out.strip()).stat().st_size == wanted["bytes"] and "the best that fits" in result.err
    free(1000)
    assert llamacli("quantize", SOURCE, "--fit", "ram", "--force").code == 6
    assert llamacli("quantize", SOURCE, "--fit", "ram", "-q", "Q8_0").code == 2


def test_a_model_that_has_only_safetensors_is_quantized_when_it_is_asked_for(
    context: Callable[..., Context], hub: LocalHub, invoke: Invoke
) -> None:
    here = context(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
    path = obtain(here, SOURCE, pull=True)
    assert path.name == "tinystories-656k-wide256-Q8_0.gguf" and path.is_relative_to(here.data_dir)
    hub.requests.clear()
    assert obtain(here, SOURCE) == path and obtain(here, f"{SOURCE}:Q8_0") == path and not hub.requests
    assert str(path) in invoke("list", "--json").out, "what was made here is listed"

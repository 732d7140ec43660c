"""`show` of what is no GGUF yet, and `verify` of what the cache's names promise."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from local_hub import local_hub
from support import ROOT, Result

DEMO = ROOT / "demo" / "tinystories-chat-2m"
Invoke = Callable[..., Result]


def test_a_checkpoint_in_a_folder_is_shown_as_what_it_would_be(invoke: Invoke) -> None:
    facts = invoke("show", DEMO, "--json").json
    assert (facts["architecture"], facts["file_type"], facts["parameters"]) == ("llama", "BF16", 2_230_528)
    assert facts["files"] == [str(DEMO)]


def test_a_checkpoint_on_the_hub_is_shown_from_its_headers(invoke: Invoke, tmp_path: Path) -> None:
    with local_hub() as hub:
        hub.add("maker/Tiny", {path.name: path.read_bytes() for path in DEMO.iterdir() if path.is_file()})
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        shown = invoke("show", "maker/Tiny", env=env)
        assert shown.code == 0 and "maker/Tiny\n" in shown.out and "2.23 M" in shown.out
        assert hub.sent < 1_000_000 and not list((tmp_path / "hf").rglob("*.safetensors"))
        assert invoke("download", "maker/Tiny", env=env).code == 0
        hub.requests.clear()
        assert invoke("show", "maker/Tiny:Q4_K_M", env=env).code == 3
    assert "safetensors" in invoke("list").out


@pytest.mark.parametrize("hard_links", [False, True], ids=["symbolic", "hard"])
@pytest.mark.parametrize("flip", [False, True])
def test_verify_compares_with_the_digest_in_the_cache(invoke: Invoke, tmp_path: Path, converted: Callable[..., Path],
                                                      flip: bool, hard_links: bool) -> None:  # fmt: skip
    content = bytearray(converted("stories260K-hf", "Q8_0").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    content[-40] ^= flip  # in the values of a block, where any bits are a number
    blob = tmp_path / "hf" / "hub" / "models--a--M-GGUF" / "blobs" / digest
    pointer = blob.parent.parent / "snapshots" / ("b" * 40) / "M-Q8_0.gguf"
    for path in (blob, pointer):
        path.parent.mkdir(parents=True)
    blob.write_bytes(content)
    if hard_links:
        pointer.hardlink_to(blob)
    else:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    result = invoke("verify", "a/M-GGUF:Q8_0")
    if flip:
        assert result.code == 9 and "its hash is not the one" in result.err
        assert invoke("verify", "a/M-GGUF:Q8_0", "--header").code == 0
    else:
        assert result.code == 0 and "SHA-256 as promised" in result.out

"""Where weights go when a GPU cannot hold all: planned from the header, and done by the engine on a second device."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from families.converting import convert
from families.synthetic import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from runtime import other_device

from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.runtime.context_limit import SMALLEST
from llamacli.runtime.engine import ALL_LAYERS, EngineSettings
from llamacli.runtime.llama import open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.placement import Placement, Weights, choose

CASES = Path(__file__).parents[1] / "data" / "families"
SCRATCH = 300_000
"""Bytes to compute in that these plans are made with."""


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with experts: two layers of four."""
    folder = tmp_path_factory.mktemp("experts")
    case = json.loads((CASES / "olmoe.json").read_text())
    write_checkpoint(folder / "checkpoint", case["config"], case["tensors"])
    return convert(folder / "checkpoint", folder / "olmoe.gguf")


def plan(gguf: GGUF, room: int, devices: int = 1, **settings: Any) -> Placement:
    return choose(gguf, EngineSettings(**settings), (room // devices,) * devices, lambda chosen: SCRATCH)


def test_weights_are_counted_where_the_engine_puts_them(experts: Path) -> None:
    gguf = read_gguf(experts)
    weights = Weights.of(gguf)
    embeddings = next(tensor.size_bytes for tensor in gguf.tensors if tensor.name == "token_embd.weight")
    assert weights.on_gpu(3, 0) == sum(tensor.size_bytes for tensor in gguf.tensors) - embeddings
    assert weights.on_gpu(1, 0) == weights.output > 0
    assert weights.on_gpu(3, 0) - weights.on_gpu(3, 2) == sum(weights.experts) == 2 * 3 * 4 * 64 * 48 * 4
    assert weights.on_gpu(0, 0) == 0


def test_tied_embeddings_are_copied_to_the_gpu(converted: Callable[..., Path]) -> None:
    gguf = read_gguf(converted("stories260K-hf"))
    names = {tensor.name: tensor.size_bytes for tensor in gguf.tensors}
    assert "output.weight" not in names
    assert Weights.of(gguf).output == names["token_embd.weight"] + names["output_norm.weight"]


def test_experts_stay_behind_before_layers_do(experts: Path) -> None:
    gguf = read_gguf(experts)
    found = [plan(gguf, room) for room in range(0, 2_000_000, 5_000)]
    ways = [(place.layers, -place.experts) for place in found]
    assert ways == sorted(ways)
    assert {(place.layers, place.experts) for place in found} == {(0, 2), (1, 2), (2, 2), (3, 2), (3, 1), (3, 0)}


def test_what_is_planned_fits(experts: Path) -> None:
    gguf = read_gguf(experts)
    weights = Weights.of(gguf)

    @given(room=st.integers(0, 4_000_000), devices=st.integers(1, 3), cache=st.sampled_from(["f16", "q8_0"]))
    def holds(room: int, devices: int, cache: str) -> None:
        place = plan(gguf, room, devices, cache_type_k=cache, cache_type_v=cache)
        assert not place.layers or weights.on_gpu(place.layers, place.experts) + SCRATCH <= room
        assert place.context >= SMALLEST

    holds()


def test_what_is_named_is_kept(experts: Path) -> None:
    gguf = read_gguf(experts)
    assert plan(gguf, 0, gpu_layers=ALL_LAYERS).layers == 3
    assert plan(gguf, 10**9, gpu_layers=2).layers == 2
    assert plan(gguf, 10**9, cpu_moe=1).experts == 1
    assert plan(gguf, 10**9, cpu_moe=ALL_LAYERS).experts == 2


@pytest.fixture
def elsewhere(experts: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Ask a process whose engine has a second device, served by a third process."""
    if other_device.library() is None:
        pytest.skip("the engine is built without RPC")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    script = [sys.executable, other_device.__file__]
    with subprocess.Popen([*script, "serve", endpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        _wait_for(endpoint)
        with subprocess.Popen([*script, "use", endpoint, str(experts)], stdin=-1, stdout=-1, text=True) as user:

            def ask(**settings: Any) -> dict[str, Any]:
                assert user.stdin and user.stdout
                user.stdin.write(f"{settings!r}\n")
                user.stdin.flush()
                answer: dict[str, Any] = json.loads(user.stdout.readline())
                return answer

            yield ask
        server.kill()


def _wait_for(endpoint: str) -> None:
    host, port = endpoint.split(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("no server came up")


def test_the_engine_puts_weights_where_they_are_planned(
    elsewhere: Callable[..., dict[str, Any]], experts: Path
) -> None:
    with open_engine(experts, EngineSettings(threads=1, gpu_layers=0)) as engine:
        prompt = engine.tokens((Span("Once upon a time", False),))
        text = "".join(piece.text for piece in engine.generate(prompt, Sampling(temp=0, predict=16)))
    whole = elsewhere()
    assert whole["text"] == text and whole["whole"]
    kept = elsewhere(cpu_moe=1)
    assert kept["text"] == text and not kept["whole"]
    half = elsewhere(gpu_layers=2)
    assert half["text"] == text and not half["whole"]
    sizes = [_on_device(answer) for answer in (whole, kept, half)]
    assert sizes[0] > sizes[1] > sizes[2] > 0


def _on_device(answer: dict[str, Any]) -> float:
    return sum(float(line.split("=")[1].split()[0]) for line in answer["buffers"] if line.startswith("RPC"))


def test_the_engine_is_asked_what_it_computes_in(elsewhere: Callable[..., dict[str, Any]], experts: Path) -> None:
    assert elsewhere(room=0)["layers"] == 0
    tight, roomy = elsewhere(room=Weights.of(read_gguf(experts)).on_gpu(3, 0)), elsewhere(room=100_000_000)
    assert (roomy["layers"], roomy["experts"]) == (3, 0)
    assert (tight["layers"], -tight["experts"]) < (3, 0)


def test_sequences_are_counted_where_their_cache_will_lie(elsewhere: Callable[..., dict[str, Any]]) -> None:
    whole, half, none = (elsewhere(cells=1024, gpu_layers=layers) for layers in (3, 2, 0))
    assert whole["fits"] == whole["there"] // whole["each"]
    assert half["fits"] == pytest.approx(min(half["there"], half["here"]) / (half["each"] / 2), rel=0.05)
    assert none["fits"] == pytest.approx(none["here"] / none["each"], rel=0.05)

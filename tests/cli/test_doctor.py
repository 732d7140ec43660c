"""`llamacli doctor`, `llamacli fit` and the first screen."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.console import Console
from llamacli.cli.context import Context
from llamacli.cli.diagnosis import (
    disk_section,
    engine_problems,
    engine_section,
    homeless,
    machine_problems,
    machine_section,
    reinstall,
    unused_gpus,
)
from llamacli.errors import EngineError
from llamacli.runtime.backends import Device, EngineInfo, engine_info
from llamacli.runtime.gpus import Gpu
from llamacli.runtime.hardware import Machine, machine
from llamacli.runtime.memory import Memory

SECRET = "hf_CanaryCanaryCanary"


@pytest.fixture
def computer() -> Machine:
    """The machine we run on, without graphics and with plenty of memory."""
    return dataclasses.replace(machine(quick=True), gpus=(), memory=Memory(1 << 35, 1 << 34), translated=False)


@pytest.fixture
def engine() -> EngineInfo:
    return dataclasses.replace(engine_info(), backends=("CPU",))


def test_json_names_every_section_and_agrees_with_the_exit_code(invoke: Any) -> None:
    result = invoke("doctor", "--json")
    report = result.json
    assert set(report) == {"ok", "sections", "problems"}
    assert list(report["sections"]) == ["machine", "engine", "disk", "terminal", "python", "hub"]
    assert result.code == (0 if report["ok"] else 1)
    assert report["ok"] == (not report["problems"])
    for section in report["sections"].values():
        assert all(set(fact) == {"name", "value"} and fact["value"] for fact in section)


def test_text_ends_with_ok_or_numbered_problems(invoke: Any) -> None:
    result = invoke("doctor")
    last = result.out.rstrip("\n").splitlines()[-1]
    assert last == "ok" if result.code == 0 else last.startswith("   fix: ")
    assert "\x1b" not in result.out


def test_no_secret_and_no_home_is_shown(invoke: Any, tmp_path: Path) -> None:
    for flags in ((), ("--json",)):
        result = invoke("doctor", *flags, env={"HF_TOKEN": SECRET})
        assert SECRET not in result.out + result.err
        assert str(tmp_path) not in result.out + result.err
        assert "present" in result.out


def test_offline_the_hub_is_not_asked(invoke: Any) -> None:
    report = invoke("doctor", "--hub", "--json").json
    assert report["sections"]["hub"] == [{"name": "reachable", "value": "not asked: offline"}]


def test_without_a_network_all_may_be_well(invoke: Any) -> None:
    result = invoke("doctor", "--json", env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert "refuses the connection" in result.json["sections"]["hub"][0]["value"]
    assert not any("127.0.0.1" in problem["message"] for problem in result.json["problems"])


def test_an_unreachable_hub_is_a_problem(invoke: Any) -> None:
    result = invoke("doctor", "--hub", "--json", env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert result.code == 1
    assert any("127.0.0.1" in problem["message"] for problem in result.json["problems"])


def test_a_graphics_processor_without_its_backend_comes_with_the_line_that_mends_it(
    computer: Machine, engine: EngineInfo
) -> None:
    seen = dataclasses.replace(computer, gpus=(Gpu("NVIDIA GeForce RTX 4090", "nvidia", 24 << 30),) * 2)
    (problem,) = engine_problems(seen, engine)
    assert "RTX 4090 is present but not used" in problem.message
    assert "-DGGML_CUDA=on" in problem.fix and "pip install" in problem.fix


def test_a_backend_that_sees_no_device_points_to_the_driver(engine: EngineInfo) -> None:
    cuda = dataclasses.replace(engine, backends=("CUDA", "CPU"))
    gpu = Gpu("NVIDIA A2", "nvidia")
    (problem,) = unused_gpus([gpu], cuda)
    assert "sees no device" in problem.message
    device = Device("CUDA0", "NVIDIA A2", "gpu", "CUDA", 1 << 30, 1 << 31)
    assert unused_gpus([gpu], dataclasses.replace(cuda, devices=(*cuda.devices, device))) == []


def test_integrated_graphics_of_intel_are_not_missed(engine: EngineInfo) -> None:
    assert unused_gpus([Gpu("Intel Iris", "intel", unified=True)], engine) == []
    assert len(unused_gpus([Gpu("Intel Arc A770", "intel", 16 << 30)], engine)) == 1


def test_unused_instructions_are_a_problem(computer: Machine, engine: EngineInfo) -> None:
    modern = dataclasses.replace(computer, processor=dataclasses.replace(computer.processor, features=("AVX2", "FMA")))
    old = dataclasses.replace(engine, features=("SSE3", "OPENMP"))
    (problem,) = engine_problems(modern, old)
    assert "AVX2, FMA" in problem.message
    assert engine_problems(modern, dataclasses.replace(engine, features=("AVX2", "FMA"))) == []


def test_a_translated_python_and_a_full_memory_are_problems(computer: Machine) -> None:
    bad = dataclasses.replace(computer, translated=True, memory=Memory(1 << 33, 1 << 28))
    assert [p.message.split()[0] for p in machine_problems(bad)] == ["this", "only"]
    assert machine_problems(computer) == []


def test_a_missing_engine_is_a_problem_not_a_crash(computer: Machine) -> None:
    section = engine_section(computer, None, EngineError("llama-cpp-python is not installed", "pip install it"))
    assert [p.message for p in section.problems] == ["llama-cpp-python is not installed"]


def test_every_device_is_described(computer: Machine) -> None:
    both = (Gpu("A", "nvidia", 8 << 30, 7 << 30, "550.1"), Gpu("B", "apple", unified=True))
    values = [value for name, value in machine_section(dataclasses.replace(computer, gpus=both)).facts]
    assert "A, 8.6 GB, 7.5 GB free, driver 550.1" in values
    assert "B, shares the main memory" in values


def test_a_cache_that_cannot_be_written_is_a_problem(context: Callable[..., Context], tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("not a folder")
    section = disk_section(context(HF_HUB_CACHE=str(obstacle / "hub")))
    assert [p.message for p in section.problems] == ["~/file/hub is not writable"]


def test_paths_below_home_lose_the_users_name() -> None:
    assert homeless(Path("/home/me/x"), Path("/home/me")) == "~/x"
    assert homeless(Path("/srv/x"), Path("/home/me")) == "/srv/x"


def test_the_line_that_rebuilds_keeps_the_rpc_backend() -> None:
    assert "-DGGML_VULKAN=on -DGGML_RPC=on" in reinstall("-DGGML_VULKAN=on")


# -- fit ---------------------------------------------------------------------------------------------------------


def test_fit_says_yes_and_exits_0(invoke: Any, converted: Callable[..., Path]) -> None:
    path = converted("stories260K-hf", "F32")
    report = invoke("fit", path, "--json")
    assert report.code == 0, report.err
    assert report.json["fits"] and report.json["total_bytes"] == sum(
        report.json[key] for key in ("weights_bytes", "kv_bytes", "compute_bytes", "program_bytes")
    )
    assert report.json["context"] == 512 == report.json["largest_context"]
    assert "yes" in invoke("fit", path).out


def test_fit_says_no_and_exits_6_with_what_would_fit(invoke: Any, converted: Callable[..., Path]) -> None:
    result = invoke("fit", converted("stories260K-hf", "F32"), "--ctx", 200_000_000)
    assert result.code == 6
    assert "--ctx 512 it fits" in result.err
    assert "no" in result.out


def test_fit_refuses_what_is_no_model(invoke: Any, tmp_path: Path) -> None:
    assert invoke("fit", tmp_path / "none.gguf").code == 3


# -- the first screen --------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_bare_llamacli_on_a_terminal_shows_the_machine_and_what_to_try(
    tmp_path: Path, converted: Callable[..., Path]
) -> None:
    models = tmp_path / ".ollama" / "models"
    manifest = models / "manifests/registry.ollama.ai/library/tiny/1b"
    manifest.parent.mkdir(parents=True)
    digest = "0" * 64
    layer = f'{{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:{digest}"}}'
    manifest.write_text(f'{{"layers": [{layer}]}}')
    (models / "blobs").mkdir()
    (models / "blobs" / f"sha256-{digest}").write_bytes(converted("stories260K-hf", "F32").read_bytes())
    env = {"LLAMACLI_HOME": str(tmp_path / "own"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    out = Terminal()
    here = Context(Console(out, io.StringIO(), env), env=env, home=tmp_path, cwd=tmp_path)
    assert invoke_app([], here) == 0
    text = out.getvalue()
    assert "This machine: " in text and "RAM" in text and "engine" in text
    assert "You have 1 model here, 1 of them from other tools" in text
    assert "llamacli chat ollama:tiny:1b" in text
    assert "Usage:" not in text


def test_bare_llamacli_in_a_pipe_prints_the_help(invoke: Any) -> None:
    result = invoke()
    assert result.code == 0
    assert result.out.startswith("Usage: llamacli")
    assert result.err == ""

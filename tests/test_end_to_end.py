"""The product from outside: from a checkpoint to the text its author published, in a pipe, and installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import MODELS, ROOT, Result

from llamacli.formats.gguf_reader import read_gguf

PROGRAM = [sys.executable, "-m", "llamacli"]


def llamacli(*arguments: object, typed: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """The program as a process of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **env}
    command = [*PROGRAM, *(str(a) for a in arguments)]
    return subprocess.run(command, input=typed.encode(), capture_output=True, timeout=120, env=environment, check=False)


def test_the_greedy_text_is_the_one_its_author_published(converted: Callable[..., Path]) -> None:
    expected = (MODELS["stories260K-hf"] / "expected_greedy.txt").read_text()
    done = llamacli(
        "run", "-m", converted("stories260K-hf", "F32"), "--temp", 0, "-n", 256, "-p", "", "--allow-truncated"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == expected.strip()


def test_the_checkpoint_and_the_gguf_in_between_give_the_same_file(
    tmp_path: Path, converted: Callable[..., Path]
) -> None:
    direct = tmp_path / "direct.gguf"
    source = MODELS["tinystories-656k-bf16"]
    assert llamacli("quantize", source, direct, "-q", "Q5_K_M", "--kernel", "ggml").returncode == 0
    between = converted("tinystories-656k-bf16", "BF16")
    assert llamacli("quantize", between, tmp_path / "two.gguf", "-q", "Q5_K_M", "--kernel", "ggml").returncode == 0
    assert direct.read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize(
    "arguments", [["--split-max-size", "500K"], ["--prune-layers", "1"], ["--pure"], ["--leave-output-tensor"]]
)
def test_what_the_dry_run_says_is_what_is_written(
    arguments: list[str], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    source = MODELS["tinystories-656k-wide256"]
    command = ("quantize", source, tmp_path / "m.gguf", *arguments, "--kernel", "ggml")
    plan = invoke(*command, "--dry-run", "--json").json["outputs"][0]
    assert list(tmp_path.iterdir()) == []
    written = invoke(*command)
    assert written.code == 0, written.err
    paths = [Path(line) for line in written.out.splitlines()]
    assert [str(path) for path in paths] == plan["paths"]
    assert sum(path.stat().st_size for path in paths) == plan["bytes"]
    model = read_gguf(paths[0])
    assert {t.name: (t.type.name, t.size_bytes) for t in model.tensors} == {
        t["name"]: (t["type"], t["bytes"]) for t in plan["tensors"]
    }


def test_split_files_run_and_merge_to_the_whole(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    source = MODELS["tinystories-656k-wide256"]
    invoke("quantize", source, tmp_path / "whole.gguf", "-q", "Q8_0", "--kernel", "ggml")
    split = invoke(
        "quantize", source, tmp_path / "parts.gguf", "-q", "Q8_0", "--kernel", "ggml", "--split-max-size", "800K"
    )
    parts = split.out.split()
    assert len(parts) > 2 and parts[0].endswith(f"parts-00001-of-{len(parts):05}.gguf")
    answer = [llamacli("run", "-m", path, "--temp", 0, "-n", 20, "-p", "Once", "--allow-truncated").stdout
              for path in (tmp_path / "whole.gguf", parts[0])]  # fmt: skip
    assert answer[0] == answer[1] and len(answer[0]) > 20
    assert invoke("merge", parts[0], tmp_path / "merged.gguf").code == 0
    whole, merged = read_gguf(tmp_path / "whole.gguf"), read_gguf(tmp_path / "merged.gguf")
    split_keys = {"split.no", "split.count", "split.tensors.count"}  # llama-gguf-split leaves them, with a count of 0
    assert {key: value for key, value in merged.metadata.items() if key not in split_keys} == whole.metadata
    assert merged.get("split.count") == 0
    assert [(t.name, t.type, t.shape) for t in whole.tensors] == [(t.name, t.type, t.shape) for t in merged.tensors]
    data = [path.read_bytes()[model.data_offsets[0] :] for path, model in (
        (tmp_path / "whole.gguf", whole), (tmp_path / "merged.gguf", merged))]  # fmt: skip
    assert data[0] == data[1]


def test_override_kv_sets_a_key(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    arguments = (
        "--override-kv",
        "general.name=str:Another",
        "--override-kv",
        "tokenizer.ggml.add_bos_token=bool:false",
    )
    invoke(
        "quantize", MODELS["tinystories-656k-bf16"], tmp_path / "m.gguf", "-q", "Q8_0", "--kernel", "ggml", *arguments
    )
    model = read_gguf(tmp_path / "m.gguf")
    assert model.get("general.name") == "Another" and model.get("tokenizer.ggml.add_bos_token") is False


# -- in a pipe -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(converted: Callable[..., Path]) -> Path:
    return converted("tinystories-chat-2m", "Q8_0")


def test_a_pipe_gets_the_answer_and_nothing_else(demo: Path) -> None:
    done = llamacli("run", "-m", demo, "--temp", 0, "Hello", FORCE_COLOR="")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout and done.stderr == b""
    assert done.stdout.endswith(b"\n") and not done.stdout.endswith(b"\n\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX shells")
def test_a_reader_that_goes_away_ends_the_answer_quietly(demo: Path) -> None:
    script = f'"{sys.executable}" -m llamacli run -m "{demo}" --ignore-eos -n 400 "Tell me a story." | head -n 1'
    done = subprocess.run(
        ["bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode in (0, 141), done.stderr
    assert done.stdout.count(b"\n") == 1 and b"Traceback" not in done.stderr and b"Broken" not in done.stderr


@pytest.mark.parametrize(
    "env",
    [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "20"}, {"LC_ALL": "C", "PYTHONUTF8": "0"},
     {"PYTHONIOENCODING": "ascii"}],
    ids=lambda env: next(iter(env)),
)  # fmt: skip
def test_the_answer_does_not_depend_on_the_environment(demo: Path, env: dict[str, str]) -> None:
    plain = llamacli("run", "-m", demo, "--temp", 0, "Héllo ☃, tell me a story.", "-n", 40, "--allow-truncated")
    other = llamacli("run", "-m", demo, "--temp", 0, "Héllo ☃, tell me a story.", "-n", 40, "--allow-truncated", **env)
    assert other.returncode == 0, other.stderr
    assert other.stdout == plain.stdout


def test_a_prompt_longer_than_the_context_is_told_with_both_numbers(demo: Path) -> None:
    done = llamacli("run", "-m", demo, typed="word " * 3000)
    assert done.returncode == 5 and done.stdout == b""
    assert b"512" in done.stderr and b"Traceback" not in done.stderr


def test_reaching_the_limit_is_exit_code_4_and_the_text_stays(demo: Path) -> None:
    done = llamacli("run", "-m", demo, "--temp", 0, "-n", 5, "Tell me a story.")
    assert done.returncode == 4 and len(done.stdout) > 5


@pytest.mark.parametrize("fault", ["truncated", "flipped magic", "empty"])
def test_a_corrupt_model_is_one_line(fault: str, demo: Path, tmp_path: Path) -> None:
    data = demo.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes({"truncated": data[:-5000], "flipped magic": b"XGUF" + data[4:], "empty": b""}[fault])
    for command in (
        ["run", "-m", broken, "hi"],
        ["chat", broken],
        ["show", broken],
        ["verify", broken],
        ["bench", broken],
    ):
        done = llamacli(*command)
        assert done.returncode == 9, (command, done.stderr)
        assert done.stderr.startswith(b"error: ") and b"Traceback" not in done.stderr


def test_a_nan_in_a_quantized_file_is_found_by_verify(demo: Path, tmp_path: Path) -> None:
    model = read_gguf(demo)
    tensor = next(t for t in model.tensors if t.type.name == "Q8_0")
    data = bytearray(demo.read_bytes())
    start = model.tensor_start(tensor)
    data[start : start + 2] = np.float16(np.nan).tobytes()
    (tmp_path / "nan.gguf").write_bytes(data)
    done = llamacli("verify", tmp_path / "nan.gguf")
    assert done.returncode == 9 and tensor.name.encode() in done.stderr


# -- installed -------------------------------------------------------------------------------------------------------


def test_the_wheel_carries_the_catalog(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert "llamacli/models.toml" in names and "llamacli/cli/app.py" in names
    assert not any(name.startswith(("tests/", "demo/")) for name in names)

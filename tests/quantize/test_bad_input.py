"""Bad input to `quantize`: one clear line, the documented exit code, nothing left behind, no input touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import MODELS, SHARED, Result

from llamacli.errors import CorruptFile
from llamacli.progress import Silent
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize

Break = Callable[[Path], object]
SMALL = MODELS["tinystories-656k-bf16"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of a small real checkpoint, to be broken."""
    return Path(shutil.copytree(SMALL, tmp_path / "checkpoint"))


def edit_config(**changes: object) -> Break:
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return apply


def edit_header(change: Callable[[dict], object]) -> Break:
    """Change the header of the safetensors file and keep its data."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        change(header)
        new = json.dumps(header).encode()
        path.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])

    return apply


def rename_tensor(old: str, new: str) -> Break:
    return edit_header(lambda header: header.update({new: header.pop(old)}))


def poison(value: float) -> Break:
    """Put a value that is not finite into the middle of a tensor."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        raw = bytearray(path.read_bytes())
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        begin = header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0]
        bits = int(np.float32(value).view(np.uint32)) >> 16
        raw[8 + length + begin + 2000 : 8 + length + begin + 2002] = bits.to_bytes(2, "little")
        path.write_bytes(bytes(raw))

    return apply


def into_shards(*, lose: str = "", extra: str = "", name: str = "") -> Break:
    """Rewrite the folder as two shards with an index; optionally with a fault."""

    def apply(folder: Path) -> None:
        first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
        whole = folder / "model.safetensors"
        raw = whole.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = {k: v for k, v in json.loads(raw[8 : 8 + length]).items() if k != "__metadata__"}
        names = list(header)
        weight_map = {}
        for shard, part in ((first, names[: len(names) // 2]), (second, names[len(names) // 2 :])):
            table, data = {}, b""
            for tensor in part:
                begin, end = header[tensor]["data_offsets"]
                table[tensor] = {**header[tensor], "data_offsets": [len(data), len(data) + end - begin]}
                data += raw[8 + length + begin : 8 + length + end]
                weight_map[tensor] = shard
            new = json.dumps(table).encode()
            (folder / shard).write_bytes(len(new).to_bytes(8, "little") + new + data)
        whole.unlink()
        if lose:
            (folder / lose).unlink()
        if extra:
            weight_map[extra] = second
        if name:
            weight_map[names[0]] = name
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return apply


CASES: dict[str, tuple[Break, int, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), 11, "config.json"),
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), 9, "config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), 11, "weights"),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("*token*")], 11, "tokenizer"),
    "unknown architecture": (edit_config(architectures=["LlamoForCausalLM"]), 11, "LlamoForCausalLM"),
    "no architecture": (edit_config(architectures=None, model_type=None), 11, "architecture"),
    "unclaimed tensor": (
        rename_tensor("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.sideways_proj.weight"), 11, "sideways_proj"),
    "tensor missing": (edit_config(num_hidden_layers=3), 9, "blk.2."),
    "tensor of another shape": (edit_config(intermediate_size=100), 9, "ffn_gate"),
    "vocabulary larger than the embedding": (
        lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text().replace(
            '"added_tokens": [', '"added_tokens": [{"id": 9999, "content": "<|far|>", "special": true},')), 9, "2,048|2048"),
    "not a number": (poison(float("nan")), 9, "blk.1.ffn_up.weight"),
    "infinite": (poison(float("-inf")), 9, "blk.1.ffn_up.weight"),
    "Git LFS pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        9, "Git LFS"),
    "truncated": (
        lambda f: os.truncate(f / "model.safetensors", (f / "model.safetensors").stat().st_size - 10), 9, "truncated"),
    "pickle under a safetensors name": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x80\x02}q\x00." + b"\0" * 100), 11, "pickle"),
    "only pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), 11, "safetensors"),
    "missing shard": (into_shards(lose="model-00002-of-00002.safetensors"), 9, "model-00002-of-00002"),
    "extra tensor in the index": (into_shards(extra="model.layers.9.x.weight"), 9, "model.layers.9.x.weight"),
    "shard name leaves the folder": (into_shards(name="../evil.safetensors"), 9, "evil"),
    "absolute shard name": (into_shards(name="/etc/passwd.safetensors"), 9, "passwd"),
    "shards without an index": (
        lambda f: (into_shards()(f), (f / "model.safetensors.index.json").unlink()), 9, "index"),
    "quantized by another tool": (
        edit_config(quantization_config={"quant_method": "aqlm"}), 11, "aqlm"),
    "two shards hold one tensor": (
        lambda f: (into_shards()(f), shutil.copy(
            f / "model-00001-of-00002.safetensors", f / "model-00002-of-00002.safetensors")), 9, "two shards|not in the index"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bad_checkpoint_is_one_line_and_an_exit_code(
    case: str, checkpoint: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    break_it, code, words = CASES[case]
    break_it(checkpoint)
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    (tmp_path / "out").mkdir()
    done = invoke("quantize", checkpoint, tmp_path / "out" / "model.gguf", "-q", "Q8_0", "--kernel", "ggml")
    assert done.code == code, done.err
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert any(word in errors[0] for word in words.split("|")), errors[0]
    assert "Traceback" not in done.err
    assert list((tmp_path / "out").iterdir()) == []
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


ARGUMENTS: dict[str, tuple[list[str], int, str]] = {
    "no source": ([], 2, "quantize what"),
    "no such folder": (["nowhere"], 3, "nowhere"),
    "not a folder": (["{src}/config.json"], 11, "config.json"),
    "unknown type": (["{src}", "-q", "Q4_K_X"], 2, "Q4_K_X"),
    "type that needs a matrix": (["{wide}", "-q", "IQ2_XS"], 2, "matrix"),
    "unknown kernel": (["{src}", "--kernel", "quick"], 2, "quick"),
    "bad override": (["{src}", "--override-kv", "a=b"], 2, "KEY=TYPE:VALUE"),
    "an override that its type cannot hold": (["{src}", "--override-kv", "a=int:99999999999"], 2, "99999999999"),
    "a number that float32 cannot hold": (["{src}", "--override-kv", "a=float:1e300"], 2, "1e300"),
    "a key of the file itself": (["{src}", "--override-kv", "general.alignment=int:7"], 2, "general.alignment"),
    "no type in the list": (["{src}", "-q", ","], 2, "-q names no type"),
    "a pipe for a file": (["{src}", "-"], 2, "not to a pipe"),
    "a type file that is no text": (["{src}", "--tensor-type-file", "{src}/model.safetensors"], 2, "is not text"),
    "less divergence than any file": (["{wide}", "--max-kld", "0.0001", "--no-probe"], 2, "allow more"),
    "a size of no bytes": (["{src}", "--split-max-size", "0.0001K"], 2, "0.0001K"),
    "bad size": (["{src}", "--split-max-size", "big"], 2, "big"),
    "layer that is not there": (["{src}", "--prune-layers", "7"], 2, "7"),
    "several types into one file": (["{src}", "{out}/x.gguf", "-q", "Q8_0,Q4_0"], 2, "folder"),
    "folder that is not there": (["{src}", "{out}/no/such/x.gguf"], 12, "no such folder"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(case: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    arguments, code, word = ARGUMENTS[case]
    done = invoke(
        "quantize", *(a.format(src=SMALL, wide=MODELS["tinystories-656k-wide256"], out=tmp_path) for a in arguments)
    )
    assert done.code == code, done.err
    assert word in done.err.splitlines()[-2 if "\n  " in done.err else -1] or word in done.err
    assert not list(tmp_path.glob("**/*.gguf")) and not list(tmp_path.glob("**/*.part"))


def test_a_class_that_is_not_named_is_known_by_the_kind_of_model(
    checkpoint: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    edit_config(architectures=None)(checkpoint)
    done = invoke("quantize", checkpoint, tmp_path / "model.gguf", "-q", "Q8_0", "--kernel", "ggml")
    assert done.code == 0 and "· Llama 1-3.3" in done.err


def test_the_lfs_pointer_of_a_real_repository(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    folder = SHARED / "faults" / "lfs-pointer"
    if not folder.exists():
        pytest.skip("the larger fixtures are not here")
    done = invoke("quantize", folder, tmp_path)
    assert done.code == 9 and "Git LFS pointer" in done.err
    assert not list(tmp_path.glob("*.gguf"))


def test_an_existing_output_stays_unless_forced(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    target = tmp_path / "model.gguf"
    target.write_text("mine")
    done = invoke("quantize", SMALL, target, "-q", "Q8_0", "--kernel", "ggml")
    assert done.code == 12 and "--force" in done.err and target.read_text() == "mine"
    done = invoke("quantize", SMALL, target, "-q", "Q8_0", "--kernel", "ggml", "--force")
    assert done.code == 0 and target.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("option", [("--calibrate", "builtin"), ("--target-bpw", "5")])
def test_an_existing_output_is_refused_before_long_work(
    option: tuple[str, str], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    target = tmp_path / "model.gguf"
    target.write_text("mine")
    done = invoke("quantize", SMALL, target, *option)
    assert done.code == 12 and "--force" in done.err and target.read_text() == "mine"
    assert "temporary" not in done.err and list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    done = invoke("quantize", tmp_path / "pipe.gguf", tmp_path / "model.gguf", "-q", "Q8_0")
    assert done.code == 11 and "no regular file" in done.err


@pytest.mark.parametrize("alias", ["itself", "symlink", "hardlink", "dots"])
def test_the_input_is_never_the_output(
    alias: str, tmp_path: Path, converted: Callable[..., Path], invoke: Callable[..., Result]
) -> None:
    source = tmp_path / "source.gguf"
    shutil.copy(converted("tinystories-656k-bf16", "BF16"), source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    target = {"itself": source, "dots": tmp_path / "sub" / ".." / "source.gguf"}.get(alias, tmp_path / "other.gguf")
    (tmp_path / "sub").mkdir()
    if alias == "symlink":
        target.symlink_to(source)
    if alias == "hardlink":
        os.link(source, target)
    done = invoke("quantize", source, target, "-q", "Q8_0", "--force", "--kernel", "ggml")
    assert done.code == 12 and "input" in done.err
    assert hashlib.sha256(source.read_bytes()).hexdigest() == digest


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    tmp_path.chmod(0o500)
    try:
        assert invoke("quantize", SMALL, tmp_path / "model.gguf").code == 12
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_told_before_anything_is_read(
    tmp_path: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    done = invoke("quantize", SMALL, tmp_path / "model.gguf", "-q", "Q8_0")
    assert done.code == 12 and "1,000" in done.err and list(tmp_path.glob("*.gguf")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits on file size are set as on Linux")
def test_a_disk_that_fills_up_while_writing(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000))\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from llamacli.cli.app import main\nmain()\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "quantize",
        str(SMALL),
        str(tmp_path / "m.gguf"),
        "-q",
        "Q8_0",
        "--kernel",
        "ggml",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 12, done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_a_corrupt_gguf_source(tmp_path: Path, converted: Callable[..., Path], invoke: Callable[..., Result]) -> None:
    source = tmp_path / "broken.gguf"
    source.write_bytes(converted("tinystories-656k-bf16", "BF16").read_bytes()[:-1000])
    done = invoke("quantize", source, tmp_path / "out.gguf", "-q", "Q8_0")
    assert done.code == 9 and "broken.gguf" in done.err and not (tmp_path / "out.gguf").exists()


def test_quantizing_twice_is_refused(
    tmp_path: Path, converted: Callable[..., Path], invoke: Callable[..., Result]
) -> None:
    done = invoke("quantize", converted("tinystories-656k-bf16", "Q8_0"), tmp_path / "out.gguf", "-q", "Q4_0")
    assert done.code == 11 and "already quantized" in done.err


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing(number: int, code: int, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "llamacli", "quantize", str(MODELS["tinystories-656k-wide256"]), str(tmp_path / "m.gguf"),
        "-q", "IQ3_S", "--kernel", "ggml", "-t", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while process.poll() is None and not list(tmp_path.glob(".*.part")):
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


class Writing(Silent):
    """Somebody else, who writes to a file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def advance(self, amount: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\x00\x3f")
        os.utime(self.path, ns=(1, 1))


@pytest.mark.parametrize("kind", ["checkpoint", "gguf"])
def test_a_source_that_changes_while_it_is_read(kind: str, tmp_path: Path, converted: Callable[..., Path]) -> None:
    if kind == "gguf":
        source = file = Path(shutil.copy(converted("tinystories-656k-bf16", "BF16"), tmp_path / "source.gguf"))
    else:
        source = Path(shutil.copytree(SMALL, tmp_path / "checkpoint"))
        file = source / "model.safetensors"
    model = open_model(source)
    plan = make_plan(model, recipe_named("Q8_0"), PlanOptions())
    with pytest.raises(CorruptFile, match="was changed while it was read"):
        quantize(model, [Output(plan, tmp_path / "out.gguf")], kernel_named("ggml"), threads=1, progress=Writing(file))
    assert not list(tmp_path.glob("*out.gguf*"))

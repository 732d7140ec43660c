"""`quantize` with a promise, a calibration or a check, as a user runs it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import MODELS, Result

from llamacli.errors import CorruptFile
from llamacli.formats.gguf_patch import patch_metadata, weights_digest
from llamacli.formats.gguf_reader import read_gguf
from llamacli.formats.gguf_values import f32, string

Invoke = Callable[..., Result]
MODEL = MODELS["tinystories-chat-2m"]
ONE = ("-t", 1, "--kernel", "ggml")


def test_a_size_is_kept_and_the_file_runs(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("quantize", MODEL, "--target-size", "1400K", *ONE)
    assert done.code == 0, done.err
    path = Path(done.out.strip())
    assert path == tmp_path / "tinystories-chat-2m-LQ1400K.gguf"
    assert 0.995 * 1_400_000 < path.stat().st_size <= 1_400_000
    assert "expected KL divergence" in done.err
    assert invoke("run", "-m", path, "Hello", "-n", 4, "-t", 1, "--allow-truncated").code == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".llamacli")] == []


def test_a_dry_run_tells_the_same_size_and_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("quantize", MODEL, "--target-bpw", 5.5, "--no-probe", "--dry-run", *ONE)
    assert done.code == 0, done.err
    weights = 2_229_504
    size = int(re.search(r"([\d,]+) bytes$", done.out, re.M)[1].replace(",", ""))  # type: ignore[index]
    assert size <= 5.5 * weights / 8 * 1.01
    assert not list(tmp_path.glob("*.gguf"))


def test_to_fit_this_machine_needs_no_more_words(invoke: Invoke) -> None:
    done = invoke("quantize", MODEL, "--fit", "--dry-run", *ONE)
    assert done.code == 0, done.err
    assert "the best that fits" in done.err


def test_a_divergence_is_expected_to_be_kept(invoke: Invoke) -> None:
    done = invoke("quantize", MODEL, "--max-kld", 0.05, "--no-probe", "--dry-run", *ONE)
    assert done.code == 0, done.err
    assert float(re.search(r"expected KL divergence ([\d.]+)", done.err)[1]) <= 0.05  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--target-bpw", 4, "--target-size", "1M"), "several promises"),
        (("--target-bpw", 4, "-q", "Q4_K_M"), "takes the place"),
        (("--target-bpw", 5, "--pure"), "--pure"),
        (("--target-size", "much"), "not a size"),
        (("--target-size", "100K"), "smallest file of these types takes"),
        (("--target-bpw", 2), "--calibrate builtin"),
        (("--fit", "somehow"), "not a way to fit"),
        (("--check", "often"), "none, quick, full"),
        (("-q", "Q8_0", "--calibrate", "no-such.txt"), "no such file"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_written(
    invoke: Invoke, tmp_path: Path, arguments: tuple[object, ...], told: str
) -> None:
    done = invoke("quantize", MODEL, *arguments, "--no-probe", *ONE)
    assert done.code in (2, 3) and told in done.err, done.err
    assert not list(tmp_path.glob("*.gguf"))


def test_a_checked_file_carries_a_receipt_that_can_be_verified(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("quantize", MODEL, "out.gguf", "-q", "Q4_K_M", *ONE, "--check")
    assert done.code == 0, done.err
    assert "same top token" in done.err
    path = tmp_path / "out.gguf"
    gguf = read_gguf(path)
    assert gguf.get("llamacli.check.tokens") == 4 * 255
    assert 0 < gguf.get("llamacli.check.kl_divergence") < 0.3
    assert gguf.get("llamacli.recipe") == "Q4_K_M"
    assert str(MODEL) not in str(gguf.get("llamacli.source"))
    shown = invoke("show", path).out
    assert "KL divergence" in shown and "model.safetensors" in shown
    proven = invoke("verify", path, "--source", MODEL, "--json").json["proven"]
    assert proven == ["weights as in the receipt", "source as in the receipt"]
    # The same numbers as `evaluate` finds.
    again = invoke("evaluate", path, "--against", MODEL, "--chunks", 4, "-t", 1, "--json").json[0]
    assert again["divergence"]["mean"]["value"] == pytest.approx(gguf.get("llamacli.check.kl_divergence"), rel=1e-3)


def test_weights_that_changed_after_the_check_are_found_out(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("quantize", MODEL, "out.gguf", "-q", "Q8_0", *ONE, "--check").code == 0
    path = tmp_path / "out.gguf"
    with path.open("r+b") as file:
        file.seek(-100_003, 2)
        byte = file.read(1)
        file.seek(-100_003, 2)
        file.write(bytes([byte[0] ^ 1]))
    done = invoke("verify", path)
    assert done.code == 9 and "receipt" in done.err
    other = tmp_path / "other"
    shutil.copytree(MODEL, other)
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert invoke("verify", path, "--header", "--source", other).code == 9


def test_a_file_without_a_receipt_proves_nothing(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("quantize", MODEL, "out.gguf", "-q", "Q8_0", *ONE).code == 0
    assert not any(key.startswith("llamacli.check") for key in read_gguf(tmp_path / "out.gguf").metadata)
    assert invoke("verify", "out.gguf", "--json").json["proven"] == []
    assert invoke("verify", "out.gguf", "--source", MODEL).code == 1


def test_only_values_of_the_same_size_can_be_patched(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "out.gguf"
    assert invoke("quantize", MODEL, path, "-q", "Q8_0", *ONE, "--override-kv", "a.b=float:1").code == 0
    before, size = weights_digest(read_gguf(path)), path.stat().st_size
    patch_metadata(path, {"a.b": f32(2.5)})
    after = read_gguf(path)
    assert after.get("a.b") == 2.5 and weights_digest(after) == before and path.stat().st_size == size
    for values in ({"a.b": string("longer")}, {"no.such": f32(1)}):
        with pytest.raises(ValueError, match="no room"):
            patch_metadata(path, values)
    assert read_gguf(path).get("a.b") == 2.5


def test_a_file_that_is_laid_out_in_another_way_is_left_alone(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "out.gguf", "llama")
    writer.add_float32("a.b", 1.0)
    writer.add_tensor("w", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path = tmp_path / "out.gguf"
    raw = bytearray(path.read_bytes())
    padding = raw.index(b"a.b")  # a byte of the padding before the data, if there is any, differs from ours
    assert padding > 0
    start = read_gguf(path).data_offsets[0]
    raw[start - 1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptFile):
        patch_metadata(path, {"a.b": f32(2.0)})

"""Standard streams as they are found: full disks, closed ends, other locales, and texts of other systems."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamacli.cli.plain_text import decoded, encoding_of, is_binary, lines_of
from llamacli.cli.streams import is_terminal, reader_is_gone

posix = pytest.mark.skipif(os.name == "nt", reason="a shell's way to close a stream")
TEXT = "naïve – “日本語” 🙂"
LOCALES: dict[str, dict[str, str]] = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
Llamacli = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def llamacli(tmp_path: Path) -> Llamacli:
    """Run the program as a shell would, with nothing of this process's environment."""
    own = {"LLAMACLI_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    own |= {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    own |= {name: os.environ[name] for name in ("SYSTEMROOT", "TEMP") if name in os.environ}

    def run(*arguments: str, env: dict[str, str] | None = None, **how: Any) -> subprocess.CompletedProcess[bytes]:
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        command = [sys.executable, "-m", "llamacli", *arguments]
        return subprocess.run(command, timeout=120, env={**own, **(env or {})}, cwd=tmp_path, check=False, **how)

    return run


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_behind_stdout_is_one_line_and_12(llamacli: Llamacli) -> None:
    with open("/dev/full", "wb") as full:
        done = llamacli("help", "exit-codes", stdout=full)
    assert done.returncode == 12
    assert done.stderr.decode().splitlines() == ["error: cannot write standard output: no space left on device"]


@posix
@pytest.mark.parametrize(("closed", "code"), [(0, 0), (1, 12), (2, 0)], ids=["stdin", "stdout", "stderr"])
def test_a_stream_that_was_closed_before_is_no_traceback(llamacli: Llamacli, closed: int, code: int) -> None:
    done = llamacli("help", "exit-codes", preexec_fn=lambda: os.close(closed))
    assert done.returncode == code
    assert b"Traceback" not in done.stderr and b"internal" not in done.stderr
    assert closed == 1 or done.stdout.startswith(b"code  meaning\n")


def test_the_home_of_nobody_is_a_name_like_any_other(llamacli: Llamacli) -> None:
    done = llamacli("map", "-m", "x", "-f", "~nobody-has-this-name/rows", "{line}", stdin=subprocess.DEVNULL)
    assert done.returncode == 3
    assert done.stderr.decode() == "error: no such file: ~nobody-has-this-name/rows\n"


def test_windows_words_for_a_reader_that_is_gone_are_known() -> None:
    pipe, name = OSError(errno.EINVAL, "Invalid argument"), OSError(errno.EINVAL, "Invalid argument", "a?b")
    assert reader_is_gone(pipe, "win32") and not reader_is_gone(name, "win32")
    assert not reader_is_gone(pipe, "linux") and reader_is_gone(BrokenPipeError(), "linux")


def test_no_stream_and_a_closed_one_are_no_terminals(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w") as file:
        assert not is_terminal(file)
    assert not is_terminal(file) and not is_terminal(None)


@pytest.mark.parametrize("env", LOCALES.values(), ids=LOCALES)
def test_the_locale_changes_no_byte(
    llamacli: Llamacli, env: dict[str, str], converted: Callable[..., Path], tmp_path: Path
) -> None:
    model = str(converted("tinystories-chat-2m", "Q8_0"))
    (tmp_path / "ü 日.txt").write_bytes(TEXT.encode())
    for arguments in (("tokens", model, "--show"), ("tokens", model, "-f", "ü 日.txt", "--json")):
        usual, other = (llamacli(*arguments, input=TEXT.encode(), env=e) for e in ({"PYTHONUTF8": "1"}, env))
        assert usual.returncode == other.returncode == 0, other.stderr.decode()
        assert other.stdout == usual.stdout


@pytest.mark.parametrize("env", LOCALES.values(), ids=LOCALES)
def test_the_locale_changes_no_text_that_is_learned_from(
    llamacli: Llamacli, env: dict[str, str], converted: Callable[..., Path], tmp_path: Path
) -> None:
    command = ("imatrix", str(converted("tinystories-chat-2m", "Q8_0")), "-", "-o", "m.gguf", "--force", "-c", "16")
    found = []
    for variables in ({"PYTHONUTF8": "1"}, env):
        assert llamacli(*command, input=TEXT.encode() * 4, env=variables).returncode == 0
        found.append((tmp_path / "m.gguf").read_bytes())
    assert found[0] == found[1]


NAMES = ["модель é 日本 [1].gguf", os.fsdecode(b"\xff\xc3.gguf")]


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="its names are UTF-8")
@pytest.mark.parametrize("name", NAMES, ids=["letters", "no letters"])
@pytest.mark.parametrize("env", [{"PYTHONUTF8": "1"}, LOCALES["C"]], ids=["UTF-8", "C"])
def test_names_of_any_bytes_reach_the_engine(
    llamacli: Llamacli, env: dict[str, str], name: str, converted: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / name).hardlink_to(converted("stories260K-hf", "F32"))
    fitting = llamacli("fit", f"./{name}", "--json", env=env)
    assert fitting.returncode == 0 and b'"fits": true' in fitting.stdout, fitting.stderr.decode()
    answer = llamacli("run", "-m", f"./{name}", "-n", "1", "--raw", "Once", "--allow-truncated", "-t", "1", env=env)
    assert answer.returncode == 0 and answer.stdout, answer.stderr.decode()


TEXTS = {"UTF-8": TEXT.encode(), "UTF-8 with a mark": TEXT.encode("utf-8-sig"), "UTF-16": TEXT.encode("utf-16")}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_texts_of_every_system_are_the_same_text(data: bytes, tmp_path: Path) -> None:
    assert decoded(data) == TEXT and not is_binary(data)
    path = tmp_path / "rows"
    path.write_bytes(data)
    with path.open(encoding="latin-1") as file:
        assert lines_of(file).read() == TEXT


def test_ends_of_lines_are_the_same_everywhere() -> None:
    assert decoded(b"a\r\nb\r\n") == decoded("a\r\nb\r\n".encode("utf-16")) == "a\nb\n"
    assert encoding_of(b"") == "utf-8-sig" and is_binary(b"GGUF\0\0")

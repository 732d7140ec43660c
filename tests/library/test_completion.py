"""What the shell offers for a model's name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, Result

from llamacli.cli.commands.completion import BASH
from llamacli.cli.completion import complete_type, names
from llamacli.cli.context import Context


def test_names_here_come_before_names_of_the_catalog(
    context: Callable[..., Context], tmp_path: Path, converted: Callable[..., Path]
) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--llama--Own-GGUF" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(converted("stories260K-hf", "Q8_0"), snapshot / "Own-Q8_0.gguf")
    found = names(context(), "LLAMA")
    assert found[0] == "llama/Own-GGUF:Q8_0" and "llama-3.1-8b" in found
    assert names(context(), "no-such-model") == []


def test_types_are_offered_one_after_the_other() -> None:
    assert complete_type("q4_k") == ["Q4_K_S", "Q4_K_M"]
    assert complete_type("Q8_0,iq4_x") == ["Q8_0,IQ4_XS"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_there_is_a_script_for_each_shell(shell: str, invoke: Callable[..., Result]) -> None:
    done = invoke("completion", shell)
    assert done.code == 0 and "_LLAMACLI_COMPLETE" in done.out
    if program := shutil.which(shell):
        checked = subprocess.run([program, "-n"], input=done.out, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_an_unknown_shell_is_told_which_there_are(invoke: Callable[..., Result]) -> None:
    done = invoke("completion", "tcsh")
    assert done.code == 2 and "bash, zsh, fish" in done.err


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="no bash here")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("llamacli do", ["download", "doctor"]),
        ("llamacli run -m maker/Own-GGUF:Q8", ["Q8_0"]),
        ("llamacli show maker/Ow", ["maker/Own-GGUF:Q8_0"]),
    ],
)
def test_bash_completes_names_with_a_colon_in_them(
    line: str, words: list[str], tmp_path: Path, converted: Callable[..., Path]
) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--maker--Own-GGUF" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(converted("stories260K-hf", "Q8_0"), snapshot / "Own-Q8_0.gguf")
    program = tmp_path / "llamacli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llamacli "$@"\n')
    program.chmod(0o755)
    env = {**os.environ, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "LLAMACLI_HOME": str(tmp_path)}
    env["PATH"] = f"{tmp_path}{os.pathsep}{env['PATH']}"
    script = BASH + f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _llamacli_completion\n"
    script += "printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(["bash", "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == words, done.stderr


def test_the_shell_gets_them(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "HF_HOME": str(tmp_path), "_LLAMACLI_COMPLETE": "complete_bash"}
    env |= {"COMP_WORDS": "llamacli show llama-3.1", "COMP_CWORD": "2", "LLAMACLI_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from llamacli.cli.app import main; main()"]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout
    assert "llama-3.1-8b" in out.split()

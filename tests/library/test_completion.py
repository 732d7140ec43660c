"""What the shell offers for a model's name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from llamacli.cli.completion import names
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


def test_the_shell_gets_them(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "HF_HOME": str(tmp_path), "_LLAMACLI_COMPLETE": "complete_bash"}
    env |= {"COMP_WORDS": "llamacli show llama-3.1", "COMP_CWORD": "2", "LLAMACLI_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from llamacli.cli.app import main; main()"]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout
    assert "llama-3.1-8b" in out.split()

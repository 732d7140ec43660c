"""`/schema` in a chat: answers of a form until it is switched off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support import ROOT


def said(model: Path, home: Path, *lines: str) -> tuple[str, str]:
    """What `llamacli chat` writes to stdout and stderr when these lines are typed into its pipe."""
    environment = {**os.environ, "LLAMACLI_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "llamacli", "chat", str(model), "-t", "1", "-s", "1", "-n", "40", "--no-save"],
        input="".join(f"{line}\n" for line in lines).encode(),
        capture_output=True,
        timeout=120,
        env=environment,
        cwd=home,
        check=False,
    )
    assert done.returncode == 0
    return done.stdout.decode(), done.stderr.decode()


def test_answers_have_the_form_until_it_is_switched_off(converted: Callable[..., Path], tmp_path: Path) -> None:
    model = converted("stories260K-hf")
    out, err = said(
        model, tmp_path, '/schema {"enum": ["red hat", "dog"]}', "Hello!", "Go on.", "/schema off", "/schema"
    )
    assert [json.loads(line) in ("red hat", "dog") for line in out.splitlines()] == [True, True]
    assert "held to a schema" in err and err.rstrip().endswith("answers are free")


def test_a_form_that_cannot_be_spelled_is_told(converted: Callable[..., Path], tmp_path: Path) -> None:
    out, err = said(converted("tinystories-chat-2m"), tmp_path, "/schema name, age int", "Hello!", "/schema off")
    assert out.strip() == "" and "vocabulary cannot spell" in err

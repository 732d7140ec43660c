"""What tests in every folder use: where things are, and what a command did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "fixtures"
"""Larger fixtures that may stand beside the project; tests that use them are skipped without them."""


MODELS = {
    "tinystories-chat-2m": ROOT / "demo" / "tinystories-chat-2m",
    **{
        name: ROOT / "tests" / "data" / "models" / name
        for name in ("tinystories-656k-bf16", "tinystories-656k-wide256", "stories260K-hf")
    },
}
"""Real trained checkpoints that ship with the project."""


@dataclass
class Result:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

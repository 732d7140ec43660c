"""The plain values that flow between the engine and whoever reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from llamacli.runtime.probabilities import TokenLikelihood

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "cancel", "grammar"]


@dataclass(frozen=True)
class Message:
    """One turn, in the form of OpenAI's chat format."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    name: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The form that chat templates and saved conversations use; empty fields are left out."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            out["reasoning_content"] = self.reasoning
        if self.tool_calls:
            out["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.name:
            out["name"] = self.name
        return out


@dataclass(frozen=True)
class Span:
    """A stretch of the rendered prompt: only `control` spans may contain control tokens."""

    text: str
    control: bool


Prompt = tuple[Span, ...]
"""A rendered prompt. User text never becomes a control token, whatever it says."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; field names and meanings are llama.cpp's.

    `logprobs` asks for the likelihood of every chosen token and of so many others beside it; None: of none. `top_k` 0
    means no limit; `seed` None means a fresh one for each answer; `predict` -1 means up to the context.
    """

    temp: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    predict: int = -1
    stop: tuple[str, ...] = ()
    grammar: str = ""
    ignore_eos: bool = False
    logprobs: int | None = None


@dataclass(frozen=True)
class Usage:
    """Token counts and wall times (seconds) of one answer; `cached` prompt tokens were not evaluated again."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0


@dataclass(frozen=True)
class Piece:
    """A bit of the answer. The last one has `finish` set and carries the usage.

    `text` is always whole characters; `kind` says whether it belongs to the answer or to the model's reasoning.
    """

    text: str = ""
    kind: Literal["answer", "reasoning"] = "answer"
    token: int | None = None
    probability: float | None = None
    likelihood: TokenLikelihood | None = None
    finish: Finish | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Reply:
    """A whole answer, collected from its pieces."""

    text: str
    reasoning: str
    finish: Finish
    usage: Usage
    seed: int = 0
    tool_calls: tuple[dict[str, Any], ...] = field(default=())

"""What came of one question: the parts of its answer, the object of --json, and where it was cut off."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from llamacli.errors import Truncated

if TYPE_CHECKING:
    from llamacli.runtime.llama import LlamaEngine
    from llamacli.runtime.messages import Finish, Sampling, Usage


@dataclass
class Answered:
    """What has come so far."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    calls: tuple[dict[str, Any], ...] = ()
    finish: Finish = "cancel"
    usage: Usage | None = None
    thinking: bool = False
    """Whether the answer ended in the middle of a thought."""
    first: float = 0.0
    """Seconds to the first piece."""


def answer_object(engine: LlamaEngine, chosen: Sampling, got: Answered, *, tools: bool) -> dict[str, Any]:
    """The object of --json; with `tools` it has the calls."""
    from llamacli.cli.answer_output import tokens_per_second

    usage = got.usage
    assert usage is not None
    read = usage.prompt - usage.cached
    timing = {
        "load_ms": round(1000 * engine.load_seconds, 1),
        "ttft_ms": round(1000 * got.first, 1),
        "pp_tps": round(read / usage.prompt_seconds, 2) if usage.prompt_seconds else 0.0,
        "tg_tps": round(tokens_per_second(usage), 2),
    }
    return {
        "text": "".join(got.text),
        "reasoning": "".join(got.reasoning).strip(),
        **({"tool_calls": list(got.calls)} if tools else {}),
        "finish": {"grammar": "schema"}.get(got.finish, got.finish),
        "model": identity(engine),
        "usage": {"prompt": usage.prompt, "cached": usage.cached, "completion": usage.completion},
        "timing": timing,
        "seed": engine.seed,
        **({"logprobs": got.logprobs} if chosen.logprobs is not None else {}),
        "params": _parameters(chosen),
    }


def where_cut(engine: LlamaEngine, chosen: Sampling, got: Answered) -> tuple[str, str]:
    """Where an answer that is cut off ended, and how to have more of it."""
    limit = chosen.predict
    if limit >= 0 and got.usage is not None and got.usage.completion >= limit:
        return f"at the limit of {limit} tokens", "-n N allows more"
    return f"because the context of {engine.context_size:,} tokens is full", engine.room_hint()


def truncated(engine: LlamaEngine, chosen: Sampling, got: Answered) -> Truncated:
    """The failure to be cut off."""
    where, hint = where_cut(engine, chosen, got)
    if got.thinking:
        return Truncated(
            f"stopped {where} while the model was still thinking; there is no answer yet",
            f"{hint}; --think off skips the thoughts, --show-thinking shows them",
        )
    return Truncated(f"the answer stopped {where}", f"{hint}; --allow-truncated makes this no failure")


def identity(engine: LlamaEngine) -> dict[str, Any]:
    """The model in --json. Its SHA-256 is known where the file lies in a store that is named by it."""
    name = engine.metadata.get("general.name") or engine.path.stem
    stored = engine.path.resolve().name.removeprefix("sha256-")
    known = re.fullmatch(r"[0-9a-f]{64}", stored)
    return {"name": name, "file": str(engine.path), "sha256": known[0] if known else None,
            "quant": engine.gguf.file_type_name}  # fmt: skip


def _parameters(chosen: Sampling) -> dict[str, Any]:
    """The sampling of --json, without what is empty."""
    return {key: value for key, value in asdict(chosen).items() if value not in ((), "", None) and key != "seed"}

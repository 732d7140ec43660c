"""`run --choices`: the likeliest of the given answers, its distribution, or yes and no as an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.answer_form import AnswerForm
from llamacli.cli.context import Context
from llamacli.errors import SchemaError, UsageError

if TYPE_CHECKING:
    from llamacli.runtime.choices import Choice
    from llamacli.runtime.llama import LlamaEngine
    from llamacli.runtime.messages import Prompt


def choose(here: Context, engine: LlamaEngine, prompt: Prompt, add_special: bool, form: AnswerForm) -> list[Choice]:
    """Score the choices of `form` as answers to `prompt`, likeliest first. Raises UsageError, SchemaError, ContextOverflow."""
    from llamacli.runtime.choices import answer_tokens, choices_of, score

    texts = choices_of(form.choices)
    if form.true and form.true not in texts:
        raise UsageError(f"--true {form.true}: not one of the choices", f"they are: {', '.join(texts)}")

    def tokens_of(spans: Prompt) -> list[int]:
        return engine.tokens(spans, add_special=add_special)

    answers = [(text, answer_tokens(tokens_of, prompt, text)) for text in texts]
    for text, tokens in answers:
        if any(map(engine.vocab.is_unknown, tokens)):  # all such would be equally likely
            raise SchemaError(
                f"this model's vocabulary cannot spell the choice {text!r}", "try another model, or other words"
            )
    return score(engine.logits_after, tokens_of(prompt), answers, engine.vocab.end_tokens())


def described(found: Sequence[Choice], form: AnswerForm, more: dict[str, Any]) -> dict[str, Any]:
    """The winner, the distribution and, with --true, whether it is that one."""
    winner = found[0]
    data: dict[str, Any] = {
        "text": winner.text,
        "choices": [
            {"text": c.text, "probability": c.probability, "log_probability": c.log_probability} for c in found
        ],
        **more,
    }
    if form.true:
        probability = next(choice.probability for choice in found if choice.text == form.true)
        data["true"] = winner.text == form.true if form.min is None else probability >= form.min
    return data


def show(here: Context, answer: dict[str, Any]) -> None:
    """The winner, or with --json everything. Raises Exit(1) for the no to --true."""
    here.console.result(answer["text"], answer)
    if not answer.get("true", True):
        raise typer.Exit(1)

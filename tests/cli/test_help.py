"""`llamacli help`: its topics, and that they tell what is so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import Result

from llamacli.errors import EXIT_CODES
from llamacli.library.names import ModelName

Invoke = Callable[..., Result]


def test_every_exit_code_is_explained(invoke: Invoke) -> None:
    assert [row["code"] for row in invoke("help", "exit-codes", "--json").json] == [code for code, _ in EXIT_CODES]


@pytest.mark.parametrize("topic", ["exit", "env", "models", "privacy", "run", ""])
def test_a_topic_is_shown(invoke: Invoke, topic: str) -> None:
    done = invoke("help", topic)
    assert done.code == 0 and len(done.out.splitlines()) > 5 and done.err == ""


def test_the_names_of_models_are_those_that_are_read(invoke: Invoke) -> None:
    kinds = {"user/repo": "hub", "./model.gguf": "path", "ollama:llama3.2:3b": "ollama", "lms:publisher/model": "lms"}
    shown = [row["name"].split(",")[0] for row in invoke("help", "models", "--json").json]
    for name, kind in kinds.items():
        assert name in shown and ModelName.parse(name).kind == kind


def test_an_unknown_topic_names_those_there_are(invoke: Invoke) -> None:
    done = invoke("help", "nonsense")
    assert done.code == 3 and "exit-codes, env, models, privacy" in done.err

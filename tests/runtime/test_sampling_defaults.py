"""What a model's metadata asks for, and what is asked for otherwise."""

from __future__ import annotations

import pytest

from llamacli.errors import SchemaError, UsageError
from llamacli.runtime.defaults import described, sampling_defaults
from llamacli.runtime.grammar import MAX_NESTING
from llamacli.runtime.messages import Sampling
from llamacli.runtime.sampler import check


def test_without_wishes_the_contract_holds() -> None:
    sampling = sampling_defaults({})
    assert (sampling.temp, sampling.top_k, sampling.top_p, sampling.min_p) == (0.8, 40, 0.95, 0.05)


def test_the_models_own_wishes_are_taken() -> None:
    found = sampling_defaults(
        {
            "general.sampling.temp": "0.6000000238418579",
            "general.sampling.top_k": "20",
            "general.sampling.penalty_repeat": "1.05",
        }
    )
    assert found.temp == pytest.approx(0.6, abs=1e-6)
    assert (found.top_k, found.repeat_penalty, found.min_p) == (20, 1.05, 0.05)


@pytest.mark.parametrize(
    ("key", "value"), [("temp", "nan"), ("temp", "-1"), ("top_p", "7"), ("top_k", "x"), ("top_k", "0")]
)
def test_nonsense_in_a_file_is_ignored(key: str, value: str) -> None:
    assert sampling_defaults({f"general.sampling.{key}": value}) == Sampling()


def test_the_description_is_one_line() -> None:
    assert described(Sampling()) == "temp 0.8, top-k 40, top-p 0.95, min-p 0.05"
    assert described(Sampling(temp=0)) == "greedy"


@pytest.mark.parametrize(
    "changes",
    [{"temp": float("nan")}, {"top_p": float("inf")}, {"repeat_penalty": 0.0}, {"seed": -5}, {"seed": 1 << 32}],
)
def test_values_that_the_engine_would_take_badly_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        check(Sampling(**changes))  # type: ignore[arg-type]


def test_a_grammar_too_deep_for_the_engines_parser_is_refused() -> None:
    deep = "root ::= " + "(" * (MAX_NESTING + 1) + '"a"' + ")" * (MAX_NESTING + 1)
    with pytest.raises(SchemaError, match="nests deeper"):
        check(Sampling(grammar=deep))

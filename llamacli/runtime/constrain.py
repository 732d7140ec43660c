"""What an answer is held to while it is written, and how it is judged when it is complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llamacli.errors import SchemaError, UsageError
from llamacli.runtime.grammar import check_grammar
from llamacli.runtime.json_grammar import schema_grammar
from llamacli.runtime.json_schema import read_schema
from llamacli.runtime.json_validate import fault_of
from llamacli.runtime.messages import Finish
from llamacli.runtime.regex_grammar import regex_grammar


@dataclass(frozen=True)
class Constraint:
    """`grammar` (GBNF) steers; `fault` names what is wrong with a complete answer, empty for nothing."""

    grammar: str
    name: str
    fault: Callable[[str], str] | None = None

    def judge(self, text: str, finish: Finish, longer: str = "-n N or a larger -c allows more") -> None:
        """Raise SchemaError unless the answer is complete and right; `longer` says how to have more of it.

        An answer that reached its limit is right all the same if it happens to be complete.
        """
        if finish == "grammar":
            raise SchemaError(
                f"the answer cannot go on: no token of this model fits the {self.name}",
                "its vocabulary cannot spell what is asked for; try another model",
            )
        wrong = self.fault(text) if self.fault is not None else ""
        if wrong and finish == "length":
            raise SchemaError(f"the answer ended before its {self.name} was complete", longer)
        if wrong:
            raise SchemaError(f"the answer does not satisfy its {self.name}: {wrong}")


def by_schema(text: str) -> Constraint:
    """For a JSON Schema or its concise form. Raises UsageError."""
    root = read_schema(text)
    return Constraint(schema_grammar(root), "schema", lambda answer: fault_of(answer, root))


def by_regex(expression: str) -> Constraint:
    """For a regular expression that all of the answer matches. Raises UsageError, SchemaError."""
    import re

    grammar = regex_grammar(expression)
    check_grammar(grammar)
    whole = re.compile(expression)

    def fault(answer: str) -> str:
        return "" if whole.fullmatch(answer) else f"{answer[:60]!r} does not match"

    return Constraint(grammar, "expression", fault)


def by_grammar(text: str) -> Constraint:
    """For a GBNF grammar of the user's. Raises UsageError."""
    try:
        check_grammar(text)
    except SchemaError as error:
        raise UsageError(error.message, error.hint) from None
    return Constraint(text, "grammar")

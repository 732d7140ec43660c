"""The flags of `run` about what an answer may be and in which form it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.context import Context, located
from llamacli.cli.shared_options import SharedOptions, add_options
from llamacli.errors import NotFound, UsageError

if TYPE_CHECKING:
    from llamacli.runtime.constrain import Constraint

_FLAGS = SharedOptions("answer_form")
_option = _FLAGS.option
_ANY = "*"
"""The value of --extract without one."""


@dataclass(frozen=True)
class AnswerForm:
    """What was asked for; empty or False is: not."""

    schema: str = ""
    regex: str = ""
    choices: str = ""
    true: str = ""
    min: float | None = None
    extract: str = ""
    jsonl: bool = False
    tools: str = ""
    receipt: str = ""

    @property
    def whole(self) -> bool:
        """Whether the answer is shown only when it is complete."""
        return bool(self.extract or self.tools or self.choices)

    @property
    def language(self) -> str:
        """Of the code block to extract; empty for any."""
        return "" if self.extract == _ANY else self.extract


def add_answer_form(command: Any) -> None:
    """Give `command` these flags; `answer_form` reads them."""
    add_options(command, _options)
    parse = command.parse_args

    def parse_args(ctx: Any, args: list[str]) -> Any:
        words = args.index("--") if "--" in args else len(args)
        # The language stands behind `=` only, so that a prompt may follow.
        args[:words] = [f"--extract={_ANY}" if word in ("-x", "--extract") else word for word in args[:words]]
        args[:words] = [f"--extract={word[3:]}" if word.startswith("-x=") else word for word in args[:words]]
        return parse(ctx, args)

    command.parse_args = parse_args


def answer_form(context: typer.Context) -> AnswerForm:
    """The flags as one value. Raises UsageError for what contradicts itself."""
    form = AnswerForm(**_FLAGS.given(context))
    held = [f"--{name}" for name in ("schema", "regex", "choices") if getattr(form, name)]
    if len(held) > 1:
        raise UsageError(f"{' and '.join(held)} at once: an answer can be held to one of them")
    if (form.true or form.min is not None) and not form.choices:
        raise UsageError("--true and --min go with --choices")
    if form.min is not None and not form.true:
        raise UsageError("--min goes with --true", "for example: --choices yes,no --true yes --min 0.8")
    if form.jsonl and form.whole:
        raise UsageError("--jsonl shows an answer while it comes; it does not go with --extract, --tools or --choices")
    return form


def constraint(here: Context, form: AnswerForm, grammar: Path | None) -> Constraint | None:
    """What the answer is held to. Raises UsageError, SchemaError, NotFound."""
    if grammar is not None and (form.schema or form.regex or form.choices):
        raise UsageError("--grammar does not go with --schema, --regex or --choices")
    if not (form.schema or form.regex or grammar):
        return None
    from llamacli.runtime import constrain

    if form.schema:
        return constrain.by_schema(schema_text(here, form.schema))
    if form.regex:
        return constrain.by_regex(form.regex)
    assert grammar is not None
    return constrain.by_grammar(read_file(here, str(grammar)))


def tools_in(here: Context, name: str) -> list[dict[str, Any]]:
    """The tools of a file, each as `{"type": "function", "function": {...}}`. Raises UsageError, NotFound."""
    import json

    try:
        value = json.loads(read_file(here, name))
    except ValueError as error:
        raise UsageError(f"--tools {name}: not JSON: {error}") from None
    listed = value.get("tools", [value]) if isinstance(value, dict) else value
    out = []
    for tool in listed if isinstance(listed, list) else [None]:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UsageError(
                f"--tools {name}: a list of tools is expected",
                'each {"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}',
            )
        out.append({"type": "function", "function": function})
    return out


def schema_text(here: Context, value: str) -> str:
    """The schema in a file, or the value itself where it is JSON or fields."""
    if value.lstrip()[:1] == "{":
        return value
    try:
        is_file = located(here.cwd, value).is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file:
        return read_file(here, value)
    if value.endswith(".json"):
        raise NotFound(f"no such file: {value}")
    return value


def read_file(here: Context, name: str) -> str:
    """The text of a file that a flag names. Raises NotFound, UsageError."""
    from llamacli.cli.screen.attach import text_of

    path = located(here.cwd, name)
    if not path.is_file():
        raise NotFound(f"no such file: {name}")
    return text_of(path)


def _options(
    schema: str | None = _option(
        "schema",
        "--schema",
        metavar="FILE|FIELDS",
        text="JSON of this form: a JSON Schema, or: name, age int, tags[]",
        filled=True,
    ),
    regex: str | None = _option("regex", "--regex", metavar="RE", text="An answer that matches.", filled=True),
    choices: str | None = _option(
        "choices",
        "--choices",
        metavar="A,B,...",
        text="The likeliest of these answers, by exact probabilities.",
        filled=True,
    ),
    true: str | None = _option(
        "true", "--true", metavar="A", text="With --choices: exit 0 if it is A, else 1.", filled=True
    ),
    least: float | None = _option(
        "min", "--min", metavar="P", text="With --true: only if its probability is at least P.", min=0, max=1
    ),
    extract: str | None = _option(
        "extract", "-x", "--extract", metavar="[=LANG]", text="Only the first code block (of a language).", filled=True
    ),
    jsonl: bool | None = _option("jsonl", "--jsonl", text="One JSON object per piece of the answer."),
    tools: str | None = _option(
        "tools", "--tools", metavar="FILE", text="Tools that may be called; calls as JSON.", filled=True
    ),
    receipt: str | None = _option(
        "receipt",
        "--receipt",
        metavar="FILE",
        text="Write down what was asked, answered and with which model.",
        filled=True,
    ),
) -> None:
    """What the answer may be, and how it is shown."""

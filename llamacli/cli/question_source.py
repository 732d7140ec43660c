"""The flags of `run` about where the question comes from: a template, a saved conversation; and a question too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.context import Context
from llamacli.cli.prompt_input import STDIN
from llamacli.cli.prompt_templates import PromptTemplate, find_template
from llamacli.cli.shared_options import SharedOptions, add_options
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.library.chats import Journal

_FLAGS = SharedOptions("question_source")
_option = _FLAGS.option
OVERFLOWS = ("error", "head", "tail", "middle", "map-reduce")


@dataclass(frozen=True)
class QuestionSource:
    """`template` and its `values`, whether the last conversation goes on, what is done with too much input, and pictures."""

    template: PromptTemplate | None
    values: Mapping[str, str]
    continued: bool
    overflow: str
    images: tuple[str, ...] = ()
    projector: str = ""


def add_question_source(command: Any) -> None:
    """Give `command` these flags; `question_source` reads them."""
    add_options(command, _options)


def question_source(context: typer.Context) -> QuestionSource:
    """The flags as one value. Raises UsageError, NotFound."""
    here: Context = context.obj
    given = _FLAGS.given(context)
    overflow = given.get("overflow", "error")
    if overflow not in OVERFLOWS:
        raise UsageError(f"--overflow {overflow}: one of {', '.join(OVERFLOWS)}")
    values: dict[str, str] = {}
    for pair in given.get("values", ()):
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"-P {pair}: NAME=VALUE")
        values[name] = value
    template = find_template(here.config_dir / "templates", given["template"]) if "template" in given else None
    if values and template is None:
        raise UsageError("-P goes with a prompt template", "-T NAME, or --template-arg for values of the chat template")
    images, projector = tuple(given.get("images", ())), given.get("projector", "")
    if projector and not images and not given.get("continued"):
        raise UsageError("--mmproj goes with --image")
    return QuestionSource(template, values, bool(given.get("continued")), overflow, images, projector)


@dataclass(frozen=True)
class Input:
    """What was given: `instruction` are the words, `document` all that follows them."""

    instruction: str
    document: str
    source: QuestionSource

    @classmethod
    def of(cls, words: Sequence[str], text: str, source: QuestionSource) -> Input:
        """`text` is the whole input, which begins with the words."""
        instruction = " ".join(word for word in words if word != STDIN)
        place = len(instruction) if text.startswith(instruction) else 0
        return cls(text[:place], text[place:], source)

    def compose(self, document: str) -> str:
        """The question with another document. Raises UsageError for missing values of the template."""
        text = self.instruction + document
        return self.source.template.filled(self.source.values, text)[0] if self.source.template else text

    @property
    def text(self) -> str:
        """The whole question."""
        return self.compose(self.document)

    @property
    def system(self) -> str:
        """The template's system prompt, if it has one."""
        if self.source.template is None:
            return ""
        return self.source.template.filled(self.source.values, self.instruction + self.document)[1]


def last_conversation(here: Context) -> Journal:
    """The conversation used last. Raises NotFound."""
    from llamacli.library.chats import Chats

    return Chats(here.data_dir / "chats").last()


def _options(
    continued: bool | None = _option("continued", "-C", "--continue", text="Go on with the last conversation."),
    prompt_template: str | None = _option(
        "template", "-T", "--template", metavar="NAME", text="A prompt template of yours."
    ),
    values: list[str] | None = _option("values", "-P", "--param", metavar="K=V", text="A value for it (repeatable)."),
    images: list[str] | None = _option(
        "images", "--image", metavar="FILE", text="A picture before the prompt (repeatable)."
    ),
    projector: str | None = _option(
        "projector", "--mmproj", metavar="FILE", text="The model's projector, if it is not beside it."
    ),
    overflow: str | None = _option(
        "overflow", "--overflow", metavar="|".join(OVERFLOWS), text="What is done with input that is too long."
    ),
) -> None:
    """Where the question comes from."""

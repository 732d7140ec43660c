"""`llamacli map PROMPT`: one prompt for every row of the input, with the model loaded once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llamacli.cli.answer_form import AnswerForm, add_answer_form, answer_form, constraint
from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context, located
from llamacli.cli.engine_options import add_engine_options, engine_settings, sampling
from llamacli.cli.rows import INPUTS, OUTPUTS, Answer, Row, RowOutput, filled, rows_done, rows_from
from llamacli.cli.text_rows import checked, source
from llamacli.errors import CannotWrite, EngineError, LlamacliError, SchemaError, UsageError

if TYPE_CHECKING:
    from llamacli.runtime.constrain import Constraint
    from llamacli.runtime.jobs import Job, Outcome
    from llamacli.runtime.llama import LlamaEngine
    from llamacli.runtime.messages import Prompt, Sampling
    from llamacli.runtime.parallel import Parallel
    from llamacli.runtime.template import ChatTemplate

EXTRA_OPTIONS = (add_engine_options, add_answer_form)

SEQUENCES = 16
"""Rows at a time unless told otherwise; fewer where memory is short."""


def map_command(
    context: typer.Context,
    words: list[str] = typer.Argument(..., metavar="[MODEL] PROMPT", help="{line} or {field} stand for the row."),
    named: str = typer.Option(
        "",
        "-m",
        "--model",
        "-hf",
        metavar="MODEL",
        help="The model; all words are the prompt.",
        autocompletion=complete_model,
    ),
    file: str = typer.Option("", "-f", "--file", metavar="FILE", help="The rows, instead of standard input."),
    kind: str = typer.Option("lines", "--in", metavar="|".join(INPUTS), help="What the rows are."),
    out: str = typer.Option("", "--out", metavar="|".join(OUTPUTS), help="What the answers are."),
    field: str = typer.Option("", "--field", metavar="F", help="The field that {line} stands for."),
    parallel: int = typer.Option(0, "-np", "--parallel", metavar="N", min=0, help="Rows at a time; 0: as it suits."),
    matching: bool = typer.Option(False, "--filter", help="Print the rows that the model says yes to; 1 if none."),
    resume: Path | None = typer.Option(None, "--resume", metavar="FILE", help="Answers go on in FILE (JSON lines)."),
    keep_going: bool = typer.Option(False, "--keep-going", help="Rows that fail are no failure of the whole."),
    exact: bool = typer.Option(False, "--exact", help="Row by row: the answers of single runs, to the bit."),
    system: str = typer.Option("", "-sys", "--system", metavar="TEXT", help="The system prompt."),
    template: str = typer.Option("", "--chat-template", metavar="FILE|NAME", help="Instead of the model's own."),
    raw: bool = typer.Option(False, "--raw", help="No template: go on with the text as it is."),
    think: str = typer.Option("off", "--think", metavar="on|off|auto", help="Whether the model thinks first."),
) -> None:
    """One prompt for every row: answers in the order of the rows, each as soon as it can be told.

    \b
    llamacli map -m MODEL "language of: {line}" --choices en,de,fr < lines.txt
    llamacli map -m MODEL "sentiment of {review}" --in csv --out csv -n 5 < reviews.csv
    llamacli map -m MODEL "is this a complaint? {line}" --filter < mails.txt
    """
    from llamacli.cli.loading import load_model
    from llamacli.cli.prompt_input import request
    from llamacli.runtime.open_template import template_for

    here: Context = context.obj
    if kind not in INPUTS or (out and out not in OUTPUTS):
        raise UsageError(f"--in is one of {', '.join(INPUTS)}; --out one of {', '.join(OUTPUTS)}")
    if resume and (matching or out not in ("", "jsonl")):
        raise UsageError("--resume writes JSON lines; it does not go with --filter or another --out")
    form = answer_form(context)
    if matching and not form.choices:
        form = replace(form, choices="yes,no", true=form.true or "yes")
    wanted = request(here, words, named or None, 0)
    if not wanted.words:
        raise UsageError("no prompt", 'for example: llamacli map -m MODEL "language of: {line}" < lines.txt')
    held = constraint(here, form, None)
    with contextlib.ExitStack() as stack:
        rows = rows_from(source(here, file, stack, "no rows"), kind, field)
        console_json = here.console.json_output
        output, done = _target(here, resume, out or ("jsonl" if console_json or resume else "text"), stack)
        settings = engine_settings(context, here.env)
        engine = stack.enter_context(load_model(here, wanted.model, settings))
        from llamacli.runtime.defaults import sampling_defaults

        chosen = sampling(context, sampling_defaults(engine.metadata))
        if held is not None:
            chosen = replace(chosen, grammar=held.grammar)
        asked = Asked(
            prompt=checked(" ".join(wanted.words), "the prompt"),
            system=checked(system, "the system prompt"),
            template=None if raw else template_for(engine, template),
            think=think,
            sampling=chosen,
            held=held,
            form=form,
        )
        for _ in zip(range(done), rows, strict=False):
            pass
        slots = 1 if exact or _precise(engine) else parallel or SEQUENCES
        mapping = Mapping(here, engine, asked, slots, exact=slots == 1)
        mapping.run(rows, _filtering(here, kind) if matching else output.answer)
    mapping.judge(keep_going, matching)


@dataclass(frozen=True)
class Asked:
    """What every row is asked; `template` None: the text goes to the model as it is."""

    prompt: str
    system: str
    template: ChatTemplate | None
    think: str
    sampling: Sampling
    held: Constraint | None
    form: AnswerForm


class Mapping:
    """All rows through one model."""

    def __init__(self, here: Context, engine: LlamaEngine, asked: Asked, slots: int, *, exact: bool) -> None:
        self.here, self.engine, self.asked, self.slots, self.exact = here, engine, asked, slots, exact
        self.failed = self.cut = self.matched = self.count = 0
        self.stopped = False
        self._running: Parallel | None = None
        self._prompt_end = ""
        """How the prompt of every row ends: a template may open thoughts there."""

    def run(self, rows: Iterator[Row], show: Callable[[Row, Answer], None]) -> None:
        """Answer every row and hand it to `show`, in order."""
        from llamacli.cli.screen.interrupt import stop_on_interrupt

        answers = self._chosen(rows) if self.asked.form.choices else self._generated(rows)
        with stop_on_interrupt(self._stop):
            for row, answer in answers:
                self.count += 1
                self.failed += bool(answer.error)
                self.cut += answer.finish == "length"
                self.matched += bool(answer.more.get("true"))
                show(row, answer)

    def _stop(self) -> None:
        self.stopped = True
        self.engine.stop()
        if self._running is not None:
            self._running.stop()

    def judge(self, keep_going: bool, matching: bool) -> None:
        """Say what the rows came to, and raise what the exit code should be."""
        console, asked = self.here.console, self.asked
        if self.stopped:
            raise typer.Exit(130)
        if self.cut and asked.held is None:
            limit, size = asked.sampling.predict, self.engine.context_size
            where = f"at the limit of {limit} tokens" if limit >= 0 else f"in a full context of {size:,} tokens"
            console.status(f"{self.cut} of {self.count} answers stopped {where}")
        if self.failed and not keep_going:
            raise EngineError(f"{self.failed} of {self.count} rows failed", "--keep-going makes this no failure")
        if matching and not self.matched:
            raise typer.Exit(1)

    # -- one row -----------------------------------------------------------------------------------------------

    def _prompt(self, row: Row) -> Prompt:
        from llamacli.cli.screen.model import thinking_of
        from llamacli.runtime.messages import Message, Span
        from llamacli.runtime.session import closed, prompt_end
        from llamacli.runtime.template import check_shown

        asked = self.asked
        if row.fault:
            raise UsageError(row.fault)
        text = filled(asked.prompt, row)
        if asked.template is None:
            return (Span(f"{asked.system}\n\n{text}" if asked.system else text, False),)
        messages = [Message("system", asked.system)] if asked.system else []
        thinking = thinking_of(asked.think)
        messages.append(Message("user", text))
        prompt = asked.template.render(messages, arguments=thinking.arguments())
        check_shown(prompt, messages)
        prompt = closed(prompt, asked.template) if thinking.on is False else prompt
        self._prompt_end = prompt_end(prompt)
        return prompt

    def _chosen(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Answer]]:
        """The likeliest of the choices for each row, by exact probabilities, one row after the other."""
        from llamacli.cli.choosing import choose

        form = self.asked.form
        for row in rows:
            if self.stopped:
                return
            try:
                found = choose(self.here, self.engine, self._prompt(row), self.asked.template is None, form)
            except LlamacliError as error:
                yield row, Answer(error=error.message)
                continue
            winner, more = found[0], {"probability": round(found[0].probability, 6)}
            if form.true:
                share = {choice.text: choice.probability for choice in found}[form.true]
                more = {**more, "true": winner.text == form.true if form.min is None else share >= form.min}
            yield row, Answer(winner.text, more=more)

    def _generated(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Answer]]:
        """Answers of several rows at a time, put back into the order of the rows."""
        from llamacli.runtime.parallel import Parallel
        from llamacli.runtime.reasoning import marker_names

        waiting: dict[int, Row] = {}
        ready: dict[int, Answer] = {}
        visible = self.engine.control_tokens(marker_names())
        with Parallel(self.engine, self.slots, visible=visible, exact=self.exact) as parallel:
            self._running = parallel
            first: int | None = None
            for outcome in parallel.run(self._jobs(rows, waiting, ready)):
                ready[outcome.number] = self._answer(outcome)
                first = min(waiting) if first is None else first
                while first in ready:
                    yield waiting.pop(first), ready.pop(first)
                    first += 1
                if self.stopped:
                    return
            for number in sorted(waiting):
                if number in ready:
                    yield waiting[number], ready[number]

    def _jobs(self, rows: Iterator[Row], waiting: dict[int, Row], ready: dict[int, Answer]) -> Iterator[Job]:
        """Rows as jobs; one that cannot be asked is answered with its fault at once."""
        from llamacli.runtime.jobs import Job

        for row in rows:
            if self.stopped:
                return
            waiting[row.number] = row
            try:
                tokens = self.engine.tokens(self._prompt(row), add_special=self.asked.template is None)
                yield Job(row.number, tokens, self.asked.sampling)
            except LlamacliError as error:
                ready[row.number] = Answer(error=error.message)

    def _answer(self, outcome: Outcome) -> Answer:
        if outcome.error is not None:
            return Answer(error=outcome.error.message)
        text, held = self._without_thoughts(outcome.text), self.asked.held
        if held is None:
            return Answer(text, outcome.finish)
        try:
            held.judge(text, outcome.finish)
        except SchemaError as error:
            return Answer(error=error.message)
        return Answer(text, "stop", value=json.loads(text) if self.asked.form.schema else None)

    def _without_thoughts(self, text: str) -> str:
        from llamacli.runtime.reasoning import splitter_for

        if self.asked.template is None:
            return text
        splitter = splitter_for(self.asked.template.source, self._prompt_end)
        parts = [*splitter.feed(text), *splitter.finish()]
        return "".join(part for kind, part in parts if kind != "reasoning").strip()


def _precise(engine: LlamaEngine) -> bool:
    """Whether the file keeps every bit, so that the answers should too: rows are then decoded one by one."""
    return engine.gguf.file_type_name == "F32"


def _target(here: Context, resume: Path | None, kind: str, stack: contextlib.ExitStack) -> tuple[RowOutput, int]:
    """Where answers go, and how many are there already."""
    if resume is None:
        return RowOutput(kind, here.console.write), 0
    path = located(here.cwd, resume)
    if path.exists() and not path.is_file():
        raise CannotWrite(f"cannot write {resume}: it is no regular file")
    try:
        file = stack.enter_context(path.open("a+", encoding="utf-8", errors="surrogateescape", newline="\n"))
        file.seek(0)
        text = file.read()
        whole = text[: text.rfind("\n") + 1]  # a line that was being written when the process died is written again
        done = rows_done(whole.split("\n")[:-1], text[len(whole) :])
        file.truncate(len(whole.encode(errors="surrogateescape")))
    except OSError as error:
        raise CannotWrite(f"cannot write {resume}: {(error.strerror or '').lower()}") from None

    def write(line: str) -> None:
        file.write(line)
        file.flush()

    return RowOutput("jsonl", write), done


def _filtering(here: Context, kind: str) -> Callable[[Row, Answer], None]:
    """Shows the rows that match, as they stood in the input."""
    headed = False

    def show(row: Row, answer: Answer) -> None:
        nonlocal headed
        if answer.error:
            here.console.warn(f"row {row.number}: {answer.error}")
        if not answer.more.get("true"):
            return
        if kind == "csv" and not headed:
            here.console.write(",".join(row.fields) + "\n")
            headed = True
        here.console.write(row.raw + ("\0" if kind == "nul" else "\n"))

    return show

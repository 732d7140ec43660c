"""One answer of `run`: from the question to the exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.answer_form import AnswerForm
from llamacli.cli.answered import Answered, answer_object, identity, truncated, where_cut
from llamacli.cli.context import Context
from llamacli.cli.deadline import Deadline
from llamacli.cli.question_source import Input
from llamacli.errors import Interrupted, SchemaError

if TYPE_CHECKING:
    from llamacli.cli.answer_output import AnswerOutput, EventOutput, ThoughtOutput
    from llamacli.cli.images import Gallery
    from llamacli.library.chats import Journal, PictureFile
    from llamacli.runtime.constrain import Constraint
    from llamacli.runtime.llama import LlamaEngine
    from llamacli.runtime.messages import Piece, Prompt, Sampling
    from llamacli.runtime.session import Session
    from llamacli.runtime.template import ChatTemplate


@dataclass(frozen=True)
class Work:
    """What is done besides asking: the form of the answer, what it is held to, what is written down.

    `pictures` go with the question, and with those of the conversation they hang in the gallery.
    """

    form: AnswerForm
    held: Constraint | None
    tools: tuple[dict[str, Any], ...]
    receipt: Path | None
    journal: Journal | None
    given: Input
    gallery: Gallery
    pictures: tuple[PictureFile, ...] = ()


@dataclass(frozen=True)
class Question:
    """What is asked, and how it is put to the model; `template` None: the text goes to the model as it is.

    `pictures` are the marks that stand for them before the text.
    """

    text: str
    pictures: str
    system: str
    template: ChatTemplate | None
    arguments: dict[str, Any]
    think: str
    prefill: str
    special: bool


@dataclass(frozen=True)
class Shown:
    """What is shown beside the answer, and what counts as a failure."""

    stats: bool
    thinking: bool
    newline: bool
    truncated_is_fine: bool


class Run:
    """One answer, from the question to the exit code."""

    def __init__(
        self,
        here: Context,
        engine: LlamaEngine,
        question: Question,
        chosen: Sampling,
        shown: Shown,
        deadline: Deadline,
        work: Work,
    ) -> None:
        self.here, self.engine, self.question, self.sampling = here, engine, question, chosen
        self.shown, self.deadline, self.work = shown, deadline, work
        self.session: Session | None = None
        self.got = Answered()

    def answer(self) -> None:
        """Generate, show, and raise what the exit code should be."""
        from llamacli.cli.screen.interrupt import stop_on_interrupt
        from llamacli.cli.screen.reading import ReadingLine

        console = self.here.console
        if console.verbose:
            self._describe()
        timer = self.deadline.timer(self.engine.stop)
        reading = ReadingLine(console) if console.err_is_terminal and not console.quiet else None
        self.engine.on_reading = reading
        try:
            with stop_on_interrupt(self.engine.stop):
                self._make_fit()
                if self.work.form.choices:
                    self._choose()
                    return
                self._generate()
        except Interrupted:
            raise (self.deadline.error() if self.deadline.passed else typer.Exit(130)) from None
        finally:
            if reading is not None:
                reading.end()
            if timer is not None:
                timer.cancel()
        self._report()
        self._keep()
        self._judge()

    def _generate(self) -> None:
        from llamacli.cli.answer_output import AnswerOutput, EventOutput, ThoughtOutput

        console, form = self.here.console, self.work.form
        silent = console.json_output or form.whole or form.jsonl
        out = AnswerOutput(console, silent=silent, newline=self.shown.newline)
        events = EventOutput(console) if form.jsonl else None
        self._show(out, ThoughtOutput(console, show=self.shown.thinking), events)
        if events is not None:
            events.end(self._object())
        elif form.whole:
            self._deliver()

    def _show(self, out: AnswerOutput, thoughts: ThoughtOutput, events: EventOutput | None) -> None:
        from llamacli.cli.answer_output import likelihood_object

        start = time.perf_counter()
        # A script that asks for an object needs the text collected, a pipe needs it at once.
        try:
            for piece in self._pieces():
                if piece.finish is not None:
                    self.got.finish, self.got.usage = piece.finish, piece.usage
                    self.got.thinking = piece.kind == "reasoning"
                if not self.got.first:
                    self.got.first = time.perf_counter() - start
                if events is not None:
                    events.write(piece)
                if piece.likelihood is not None:
                    self.got.logprobs.append(likelihood_object(self.engine.vocab, piece))
                if piece.kind == "reasoning":
                    self.got.reasoning.append(piece.text)
                    thoughts.write(piece, time.perf_counter() - start)
                elif piece.text:
                    thoughts.end()
                    self.got.text.append(piece.text)
                    out.write(piece.text)
        finally:
            thoughts.end()
            out.end()

    def _pieces(self) -> Iterator[Piece]:
        if self.question.template is None:
            return self.engine.generate(self.engine.tokens(self._raw(self.question.text)), self.sampling)
        self.session = self._session()
        return self.session.ask(
            self.question.pictures + self.question.text, self.sampling, prefill=self.question.prefill
        )

    def _session(self) -> Session:
        from llamacli.cli.conversation import seen
        from llamacli.cli.screen.model import thinking_of
        from llamacli.runtime.session import Session

        question, work = self.question, self.work
        assert question.template is not None
        return Session(
            self.engine,
            question.template,
            system="" if work.journal else question.system,
            messages=seen(work.journal.chat, work.gallery, question.system) if work.journal else (),
            tools=work.tools or None,
            arguments=question.arguments,
            thinking=thinking_of(question.think),
        )

    def _raw(self, text: str) -> Prompt:
        """The prompt without a template."""
        from llamacli.runtime.messages import Span

        start = f"{self.question.system}\n\n" if self.question.system else ""
        whole = start + self.question.pictures + text + self.question.prefill
        return (Span(whole, self.question.special),)

    # -- other ways to an answer -------------------------------------------------------------------------------

    def _make_fit(self) -> None:
        """Cut the input, or read it in parts, if it is too long and --overflow says what to do then."""
        how = self.work.given.source.overflow
        if how == "error":
            return
        from llamacli.cli.long_input import LongInput

        session = self._session() if self.question.template else None

        def count(text: str) -> int:
            return session.count(self.question.pictures + text) if session else len(self.engine.tokens(self._raw(text)))

        given = self.work.given
        long = LongInput(given.document, given.compose, count, self.engine.context_size, self.sampling.predict)
        if long.fits:
            return
        console = self.here.console
        text = long.map_reduce(self._part, console) if how == "map-reduce" else long.cut(how, console)
        self.question = replace(self.question, text=text)

    def _part(self, text: str, limit: int) -> str:
        """The answer to a question about one part of the input."""
        chosen = replace(self.sampling, predict=limit, grammar="")
        if self.question.template:
            pieces = self._session().ask(self.question.pictures + text, chosen)
        else:
            pieces = self.engine.generate(self.engine.tokens(self._raw(text)), chosen)
        out = []
        for piece in pieces:
            if piece.finish == "cancel":
                raise Interrupted("stopped")
            if piece.kind == "answer":
                out.append(piece.text)
        return "".join(out)

    def _choose(self) -> None:
        """Score the given answers instead of writing one."""
        from llamacli.cli import choosing

        asked = self.question.pictures + self.question.text
        if self.question.template is None:
            prompt, beginning = self._raw(self.question.text), True
        else:
            prompt, beginning = self._session().prompt_for(asked, self.question.prefill), False
        found = choosing.choose(self.here, self.engine, prompt, beginning, self.work.form)
        answer = choosing.described(found, self.work.form, {"model": identity(self.engine)})
        self._write_receipt(answer)
        choosing.show(self.here, answer)

    def _deliver(self) -> None:
        """Show of the finished answer what was asked for: the calls of tools, or a block of code."""
        import json

        text, form = "".join(self.got.text), self.work.form
        if self.work.tools:
            from llamacli.runtime.tool_calls import tool_calls

            written = "".join(self.session.written) if self.session else text
            found = tool_calls(written, [tool["function"]["name"] for tool in self.work.tools])
            self.got.calls = tuple(call.as_dict() for call in found.calls)
            text = found.text if self.got.calls else text
        if form.extract:
            text = self._block(text)
        self.got.text = [text]
        if not self.here.console.json_output:
            product = json.dumps(list(self.got.calls), ensure_ascii=False) if self.got.calls else text.rstrip("\n")
            self.here.console.write(product + ("\n" if self.shown.newline else ""))

    def _block(self, text: str) -> str:
        from llamacli.runtime.fenced import first_block

        language = self.work.form.language
        block = first_block(text, language)
        if block is None and language:
            raise SchemaError(f"the answer has no block of {language} code", "without =LANG any block will do")
        if block is None:
            self.here.console.status("the answer has no block of code; all of it is shown")
        return text if block is None else block

    def _keep(self) -> None:
        """Save the turn in the conversation it goes on with, and write the receipt."""
        journal, text = self.work.journal, "".join(self.got.text)
        if journal is not None and (text or self.got.reasoning):
            from llamacli.library.chats import with_pictures
            from llamacli.runtime.messages import Message

            asked = with_pictures(Message("user", self.question.text).as_dict(), self.work.pictures)
            journal.say(asked, created=self.here.now())
            answer = Message("assistant", text, reasoning="".join(self.got.reasoning).strip())
            journal.say(answer.as_dict(), created=self.here.now(), finish=self.got.finish)
        if self.work.receipt is not None:
            self._write_receipt(self._object())

    def _write_receipt(self, answer: dict[str, Any]) -> None:
        """Write down what was asked and answered, if that is wanted."""
        if self.work.receipt is not None:
            from llamacli.cli.run_receipt import write_receipt

            question = {"text": self.question.text, "system": self.question.system, "prefill": self.question.prefill}
            write_receipt(self.here, self.work.receipt, question, answer)

    # -- afterwards --------------------------------------------------------------------------------------------

    def _describe(self) -> None:
        from llamacli.cli.sizes import human_count
        from llamacli.runtime.defaults import described

        engine = self.engine
        way = "its chat template" if self.question.template else "no chat template: the text is continued"
        threads = "/".join(map(str, dict.fromkeys(engine.threads)))
        what = f"{human_count(engine.parameters)} weights, {engine.gguf.file_type_name}"
        self.here.console.status(f"{engine.path.name}: {what}, {threads} threads, {way}")
        self.here.console.status(f"sampling: {described(self.sampling)}")

    def _report(self) -> None:
        from llamacli.cli.answer_output import statistics

        console = self.here.console
        if console.json_output and not self.work.form.jsonl:  # whose last line is this object
            console.result("", self._object())
        if self.shown.stats and self.got.usage is not None:
            console.status(statistics(self.got.usage, self.engine.load_seconds, self.got.first))

    def _object(self) -> dict[str, Any]:
        return answer_object(self.engine, self.sampling, self.got, tools=bool(self.work.tools))

    def _judge(self) -> None:
        if self.deadline.passed:
            raise self.deadline.error()
        if self.got.finish == "cancel":
            raise typer.Exit(130)
        if self.work.held is not None:
            self.work.held.judge(
                "".join(self.got.text), self.got.finish, where_cut(self.engine, self.sampling, self.got)[1]
            )
            if self.work.held.fault is not None:
                return
        if self.got.finish == "length" and not self.shown.truncated_is_fine:
            raise truncated(self.engine, self.sampling, self.got)

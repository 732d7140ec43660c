"""One answer of `run`: from the question to the exit code."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.answer_form import AnswerForm
from llamacli.cli.context import Context
from llamacli.cli.question_source import Input
from llamacli.errors import Interrupted, SchemaError, TimedOut, Truncated

if TYPE_CHECKING:
    from llamacli.cli.answer_output import AnswerOutput, EventOutput, ThoughtOutput
    from llamacli.cli.images import Gallery
    from llamacli.library.chats import Journal, PictureFile
    from llamacli.runtime.constrain import Constraint
    from llamacli.runtime.llama import LlamaEngine
    from llamacli.runtime.messages import Finish, Piece, Prompt, Sampling, Usage
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


class Deadline:
    """A time limit for everything from the start on."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.start = time.monotonic()
        self.passed = False

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return bool(self.limit) and time.monotonic() - self.start >= self.limit

    def timer(self, stop: Any) -> threading.Timer | None:
        """A running timer that calls `stop` when the time is up, or None without a limit."""
        if not self.limit:
            return None

        def fire() -> None:
            self.passed = True
            stop()

        timer = threading.Timer(max(0.0, self.limit - (time.monotonic() - self.start)), fire)
        timer.daemon = True
        timer.start()
        return timer

    def error(self) -> TimedOut:
        """The time is up."""
        return TimedOut(f"stopped after {self.limit:g} s (--timeout)")


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
        self.calls: tuple[dict[str, Any], ...] = ()
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish: Finish = "cancel"
        self.usage: Usage | None = None
        self.thinking = False
        """Whether the answer ended in the middle of a thought."""
        self.first = 0.0

    def answer(self) -> None:
        """Generate, show, and raise what the exit code should be."""
        from llamacli.cli.screen.interrupt import stop_on_interrupt

        if self.here.console.verbose:
            self._describe()
        timer = self.deadline.timer(self.engine.stop)
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

        start = time.monotonic()
        # A script that asks for an object needs the text collected, a pipe needs it at once.
        try:
            for piece in self._pieces():
                if piece.finish is not None:
                    self.finish, self.usage = piece.finish, piece.usage
                    self.thinking = piece.kind == "reasoning"
                if not self.first:
                    self.first = time.monotonic() - start
                if events is not None:
                    events.write(piece)
                if piece.likelihood is not None:
                    self.logprobs.append(likelihood_object(self.engine.vocab, piece))
                if piece.kind == "reasoning":
                    self.reasoning.append(piece.text)
                    thoughts.write(piece, time.monotonic() - start)
                elif piece.text:
                    thoughts.end()
                    self.text.append(piece.text)
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
        choosing.show(self.here, found, self.work.form, {"model": _identity(self.engine)})

    def _deliver(self) -> None:
        """Show of the finished answer what was asked for: the calls of tools, or a block of code."""
        import json

        text, form = "".join(self.text), self.work.form
        if self.work.tools:
            from llamacli.runtime.tool_calls import tool_calls

            written = "".join(self.session.written) if self.session else text
            found = tool_calls(written, [tool["function"]["name"] for tool in self.work.tools])
            self.calls = tuple(call.as_dict() for call in found.calls)
            text = found.text if self.calls else text
        if form.extract:
            text = self._block(text)
        self.text = [text]
        if not self.here.console.json_output:
            product = json.dumps(list(self.calls), ensure_ascii=False) if self.calls else text.rstrip("\n")
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
        journal, text = self.work.journal, "".join(self.text)
        if journal is not None and (text or self.reasoning):
            from llamacli.library.chats import with_pictures
            from llamacli.runtime.messages import Message

            asked = with_pictures(Message("user", self.question.text).as_dict(), self.work.pictures)
            journal.say(asked, created=self.here.now())
            answer = Message("assistant", text, reasoning="".join(self.reasoning).strip())
            journal.say(answer.as_dict(), created=self.here.now(), finish=self.finish)
        if self.work.receipt is not None:
            from llamacli.cli.run_receipt import write_receipt

            question = {"text": self.question.text, "system": self.question.system, "prefill": self.question.prefill}
            write_receipt(self.here, self.work.receipt, question, self._object())

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
        if self.shown.stats and self.usage is not None:
            console.status(statistics(self.usage, self.engine.load_seconds, self.first))

    def _object(self) -> dict[str, Any]:
        from llamacli.cli.answer_output import tokens_per_second

        usage = self.usage
        assert usage is not None
        read = usage.prompt - usage.cached
        timing = {
            "load_ms": round(1000 * self.engine.load_seconds, 1),
            "ttft_ms": round(1000 * self.first, 1),
            "pp_tps": round(read / usage.prompt_seconds, 2) if usage.prompt_seconds else 0.0,
            "tg_tps": round(tokens_per_second(usage), 2),
        }
        return {
            "text": "".join(self.text),
            "reasoning": "".join(self.reasoning).strip(),
            **({"tool_calls": list(self.calls)} if self.work.tools else {}),
            "finish": {"grammar": "schema"}.get(self.finish, self.finish),
            "model": _identity(self.engine),
            "usage": {"prompt": usage.prompt, "cached": usage.cached, "completion": usage.completion},
            "timing": timing,
            "seed": self.engine.seed,
            **({"logprobs": self.logprobs} if self.sampling.logprobs is not None else {}),
            "params": _parameters(self.sampling),
        }

    def _judge(self) -> None:
        if self.deadline.passed:
            raise self.deadline.error()
        if self.finish == "cancel":
            raise typer.Exit(130)
        if self.work.held is not None:
            self.work.held.judge("".join(self.text), self.finish)
            if self.work.held.fault is not None:
                return
        if self.finish == "length" and not self.shown.truncated_is_fine:
            raise self._truncated()

    def _truncated(self) -> Truncated:
        count = self.usage.completion if self.usage else 0
        if self.sampling.predict >= 0 and count >= self.sampling.predict:
            where, hint = f"at the limit of {self.sampling.predict} tokens", "-n N allows more"
        else:
            where, hint = f"because the context of {self.engine.context_size:,} tokens is full", "try a larger -c"
        if self.thinking:
            return Truncated(
                f"stopped {where} while the model was still thinking; there is no answer yet",
                f"{hint}; --think off skips the thoughts, --show-thinking shows them",
            )
        return Truncated(f"the answer stopped {where}", f"{hint}; --allow-truncated makes this no failure")


def _identity(engine: LlamaEngine) -> dict[str, Any]:
    """The model in --json. Its SHA-256 is known where the file lies in a store that is named by it."""
    name = engine.metadata.get("general.name") or engine.path.stem
    stored = engine.path.resolve().name.removeprefix("sha256-")
    known = re.fullmatch(r"[0-9a-f]{64}", stored)
    return {"name": name, "file": str(engine.path), "sha256": known[0] if known else None,
            "quant": engine.gguf.file_type_name}  # fmt: skip


def _parameters(chosen: Sampling) -> dict[str, Any]:
    """The sampling of --json, without what is empty."""
    return {key: value for key, value in asdict(chosen).items() if value not in ((), "", None) and key != "seed"}

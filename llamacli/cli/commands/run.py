"""`llamacli run [MODEL] [PROMPT...]`: one prompt, one answer; for shells and pipes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.answer_form import AnswerForm, add_answer_form, answer_form, constraint, tools_in
from llamacli.cli.context import Context
from llamacli.cli.engine_options import add_engine_options, engine_settings, sampling
from llamacli.cli.prompt_cache import add_cache_option, prompt_cache
from llamacli.cli.question_source import Input, add_question_source, last_conversation, messages_of, question_source
from llamacli.errors import DoesNotFit, Interrupted, NotFound, SchemaError, TimedOut, Truncated, UsageError

if TYPE_CHECKING:
    from llamacli.cli.answer_output import AnswerOutput, EventOutput, ThoughtOutput
    from llamacli.library.chats import Journal
    from llamacli.runtime.constrain import Constraint
    from llamacli.runtime.llama import LlamaEngine
    from llamacli.runtime.messages import Finish, Piece, Prompt, Sampling, Usage
    from llamacli.runtime.session import Session
    from llamacli.runtime.template import ChatTemplate

_LITERAL = "llamacli.run.literal"


def _note_literal_words(command: Any) -> None:
    """Remember how many words stood after `--`: none of them is taken for a model."""
    parse = command.parse_args

    def parse_args(ctx: Any, args: list[str]) -> Any:
        ctx.meta[_LITERAL] = len(args) - args.index("--") - 1 if "--" in args else 0
        return parse(ctx, args)

    command.parse_args = parse_args


EXTRA_OPTIONS = (_note_literal_words, add_engine_options, add_cache_option, add_answer_form, add_question_source)


def run_command(
    context: typer.Context,
    words: list[str] = typer.Argument(None, metavar="[MODEL] [PROMPT]...", help="`-` is standard input."),
    named: str = typer.Option("", "-m", "--model", "-hf", metavar="MODEL", help="The model; all words are the prompt."),
    prompt: str | None = typer.Option(None, "-p", "--prompt", metavar="TEXT", help="The prompt, before other words."),
    files: list[str] = typer.Option([], "-f", "--file", metavar="FILE", help="A file after the prompt (repeatable)."),
    system: str = typer.Option("", "-sys", "--system", metavar="TEXT", help="The system prompt."),
    system_file: Path | None = typer.Option(None, "-sysf", "--system-file", metavar="FILE", help="It from a file."),
    template: str = typer.Option("", "--chat-template", metavar="FILE|NAME", help="Instead of the model's own."),
    template_args: list[str] = typer.Option([], "--template-arg", metavar="K=V", help="A value for the template."),
    raw: bool = typer.Option(False, "--raw", help="No template: go on with the text as it is."),
    special: bool = typer.Option(False, "--special", help="With --raw: read control tokens in the prompt."),
    prefill: str = typer.Option("", "--prefill", metavar="TEXT", help="The answer begins with this."),
    think: str = typer.Option("", "--think", metavar="on|off|auto|N", help="Whether the model thinks first."),
    show_thinking: bool = typer.Option(False, "--show-thinking", help="All thoughts on stderr."),
    grammar: Path | None = typer.Option(None, "--grammar", metavar="FILE", help="A GBNF grammar for the answer."),
    stats: bool = typer.Option(False, "--stats", help="Counts and speeds on stderr."),
    no_newline: bool = typer.Option(False, "--no-newline", help="No newline of our own at the end."),
    timeout: str = typer.Option("", "--timeout", metavar="DUR", help="Stop after 90, 60s, 2m or 1h; exit 124."),
    allow_truncated: bool = typer.Option(False, "--allow-truncated", help="Reaching -n is no failure."),
    require_gpu: bool = typer.Option(False, "--require-gpu", help="Fail where no GPU can be used."),
) -> None:
    """Answer one prompt on stdout. The prompt is the words, then the files, then standard input.

    \b
    llamacli run ./model.gguf "Why is the sky blue?"
    git diff | llamacli run -m MODEL "one-line commit message" -n 40
    llamacli run -m MODEL -f report.txt "Summarize:" --temp 0 --json | jq -r .text
    """
    from llamacli.cli.prompt_input import prompt_text, request
    from llamacli.cli.run_receipt import check_receipt

    here: Context = context.obj
    deadline = Deadline(seconds(timeout))
    form, source = answer_form(context), question_source(context)
    journal = last_conversation(here) if source.continued else None
    saved = journal.chat.model if journal and not named else ""
    wanted = request(here, words or [], named or saved or None, context.meta.get(_LITERAL, 0))
    asked = (*((prompt,) if prompt is not None else ()), *wanted.words)
    text = prompt_text(here, asked, files, exact=raw)
    if text is None and source.template is None:
        raise UsageError("no prompt", "say something after the model, pipe it in, or talk: llamacli chat")
    given = Input.of(asked, text or "", source)
    if source.continued and raw:
        raise UsageError("--raw does not go with -C: a conversation needs a chat template")
    settings = engine_settings(context, here.env)
    work = Work(
        form=form,
        held=constraint(here, form, grammar),
        tools=tuple(tools_in(here, form.tools)) if form.tools else (),
        receipt=check_receipt(here, form.receipt) if form.receipt else None,
        journal=journal,
        given=given,
    )
    if require_gpu:
        _require_gpu()
    with _opened(here, wanted.model, settings, deadline) as engine, prompt_cache(context, engine):
        from llamacli.cli.images import marks_of
        from llamacli.runtime.defaults import sampling_defaults

        chosen = sampling(context, sampling_defaults(engine.metadata))
        if work.held is not None:
            chosen = replace(chosen, grammar=work.held.grammar)
        own_system = _text(here, system_file).strip() if system_file else system
        question = Question(
            text=given.text,
            pictures=marks_of(here, engine, source),
            system=own_system or given.system or (journal.chat.system if journal else ""),
            template=None if raw else _template(here, engine, template),
            arguments=_arguments(template_args),
            think=think or ("off" if work.held or form.choices else ""),
            prefill=prefill,
            special=special,
        )
        shown = Shown(stats, show_thinking, not no_newline, allow_truncated)
        Run(here, engine, question, chosen, shown, deadline, work).answer()


@dataclass(frozen=True)
class Work:
    """What is done besides asking: the form of the answer, what it is held to, what is written down."""

    form: AnswerForm
    held: Constraint | None
    tools: tuple[dict[str, Any], ...]
    receipt: Path | None
    journal: Journal | None
    given: Input


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
        from llamacli.cli.screen.model import thinking_of
        from llamacli.runtime.session import Session

        question, work = self.question, self.work
        assert question.template is not None
        return Session(
            self.engine,
            question.template,
            system=question.system,
            messages=messages_of(work.journal) if work.journal else (),
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
            from llamacli.runtime.messages import Message

            journal.say(Message("user", self.question.text).as_dict(), created=self.here.now())
            answer = Message("assistant", text, reasoning="".join(self.reasoning).strip())
            journal.say(answer.as_dict(), created=self.here.now(), finish=self.finish)
        if self.work.receipt is not None:
            from llamacli.cli.run_receipt import write_receipt

            question = {"text": self.question.text, "system": self.question.system, "prefill": self.question.prefill}
            write_receipt(self.here, self.work.receipt, question, self._object())

    # -- afterwards --------------------------------------------------------------------------------------------

    def _describe(self) -> None:
        from llamacli.runtime.defaults import described

        engine = self.engine
        way = "its chat template" if self.question.template else "no chat template: the text is continued"
        threads = "/".join(map(str, dict.fromkeys(engine.threads)))
        self.here.console.status(f"{engine.path.name}: {engine.description}, {threads} threads, {way}")
        self.here.console.status(f"sampling: {described(self.sampling)}")

    def _report(self) -> None:
        from llamacli.cli.answer_output import statistics

        console = self.here.console
        if console.json_output:
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


def seconds(text: str) -> float:
    """A duration: 90, 60s, 1.5m, 2h; nothing is 0. Raises UsageError."""
    if not text:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"--timeout {text}: a duration such as 90, 60s, 2m or 1h")
    return float(found[1]) * {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}[found[2]]


def _opened(here: Context, name: str | None, settings: Any, deadline: Deadline) -> LlamaEngine:
    from llamacli.cli.loading import load_model
    from llamacli.runtime import bindings

    if here.console.verbose >= 2:
        bindings.load()
        bindings.listen(here.console.status)

    def watch(fraction: float) -> None:
        if deadline.over:
            raise deadline.error()

    return load_model(here, name, settings, watch)


def _template(here: Context, engine: LlamaEngine, choice: str) -> ChatTemplate | None:
    from llamacli.runtime.open_template import template_for

    path = here.cwd / Path(choice).expanduser() if choice else None
    return template_for(engine, str(path) if path is not None and path.is_file() else choice)


def _text(here: Context, path: Path) -> str:
    from llamacli.cli.screen.attach import text_of

    full = here.cwd / path.expanduser()
    if not full.is_file():
        raise NotFound(f"no such file: {path}")
    return text_of(full)


def _arguments(pairs: list[str]) -> dict[str, Any]:
    """`enable_thinking=false` and the like; values are read as JSON where they are JSON."""
    import json

    out: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--template-arg {pair}: NAME=VALUE")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


def _require_gpu() -> None:
    from llamacli.runtime.backends import engine_info

    info = engine_info()
    if not info.gpus:
        raise DoesNotFit(f"no GPU can be used: the engine has {info.acceleration}", "llamacli doctor tells why")


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

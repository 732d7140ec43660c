"""`llamacli run [MODEL] [PROMPT...]`: one prompt, one answer; for shells and pipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.answer_form import AnswerForm, add_answer_form, answer_form, constraint, tools_in
from llamacli.cli.completion import complete_model
from llamacli.cli.context import Context, located
from llamacli.cli.deadline import Deadline, seconds
from llamacli.cli.engine_options import add_engine_options, engine_settings, given_engine_options, sampling
from llamacli.cli.one_answer import Question, Run, Shown, Work
from llamacli.cli.prompt_cache import add_cache_option, prompt_cache
from llamacli.cli.question_source import Input, add_question_source, last_conversation, question_source
from llamacli.errors import DoesNotFit, NotFound, UsageError

if TYPE_CHECKING:
    from llamacli.runtime.llama import LlamaEngine
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
    words: list[str] = typer.Argument(
        None, metavar="[MODEL] [PROMPT]...", help="`-` is standard input.", autocompletion=complete_model
    ),
    named: str = typer.Option(
        "",
        "-m",
        "--model",
        "-hf",
        metavar="MODEL",
        help="The model; all words are the prompt.",
        autocompletion=complete_model,
    ),
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
    from llamacli.cli.text_rows import checked

    here: Context = context.obj
    deadline = Deadline(seconds(timeout))
    form, source = answer_form(context), question_source(context)
    journal = last_conversation(here) if source.continued else None
    saved = journal.chat.model if journal and not named else ""
    wanted = request(here, words or [], named or saved or None, context.meta.get(_LITERAL, 0))
    asked = [*([prompt] if prompt is not None else []), *wanted.words]
    system, prefill, *asked = (checked(part, "the prompt") for part in (system, prefill, *asked))
    text = prompt_text(here, asked, files, exact=raw)
    if text is None and source.template is None:
        raise UsageError("no prompt", "say something after the model, pipe it in, or talk: llamacli chat")
    other = asked or files or source.template is not None or source.images or prefill or system or system_file
    if not (text or other or raw):
        raise UsageError("no prompt: standard input is empty", "say something after the model, or pipe it in")
    given = Input.of(asked, text or "", source)
    _refuse_vain_flags(context, form, raw=raw, special=special, continued=source.continued)
    if raw:
        _refuse_beside_raw(
            {"--tools": form.tools, "--chat-template": template, "--template-arg": template_args, "--think": think}
        )
    settings = engine_settings(context, here.env)
    held = constraint(here, form, grammar)
    tools = tuple(tools_in(here, form.tools)) if form.tools else ()
    receipt = check_receipt(here, form.receipt) if form.receipt else None
    if require_gpu:
        _require_gpu()
    with _opened(here, wanted.model, settings, deadline) as engine, prompt_cache(context, engine):
        from llamacli.cli.images import Gallery
        from llamacli.runtime.defaults import sampling_defaults

        gallery = Gallery(here, engine, source.projector)
        pictures = tuple(map(gallery.take, source.images))
        work = Work(form, held, tools, receipt, journal, given, gallery, pictures)
        chat_template, stop = (None, ()) if raw else _template(here, engine, template, source.continued)
        chosen = sampling(context, replace(sampling_defaults(engine.metadata), stop=stop))
        if work.held is not None:
            chosen = replace(chosen, grammar=work.held.grammar)
        own_system = _text(here, system_file).strip() if system_file else system
        question = Question(
            text=given.text,
            pictures="".join(map(gallery.mark, pictures)),
            system=own_system or given.system or (journal.chat.system if journal else ""),
            template=chat_template,
            arguments=_arguments(template_args),
            think=think or ("off" if work.held or form.choices else ""),
            prefill=prefill,
            special=special,
        )
        shown = Shown(stats, show_thinking, not no_newline, allow_truncated)
        Run(here, engine, question, chosen, shown, deadline, work).answer()


def _refuse_vain_flags(context: typer.Context, form: AnswerForm, *, raw: bool, special: bool, continued: bool) -> None:
    """Raise UsageError for flags that would do nothing, or that contradict each other."""
    if "logprobs" in given_engine_options(context) and not (context.obj.console.json_output or form.jsonl):
        raise UsageError("--logprobs goes with --json or --jsonl")
    if "logprobs" in given_engine_options(context) and form.choices:
        raise UsageError("--logprobs does not go with --choices: --json shows their probabilities")
    if special and not raw:
        raise UsageError("--special goes with --raw: with a chat template no text of yours is read as control tokens")
    if continued and raw:
        raise UsageError("--raw does not go with -C: a conversation needs a chat template")


def _refuse_beside_raw(flags: Mapping[str, object]) -> None:
    """Raise UsageError for flags that speak to a chat template, where there is none."""
    given = [flag for flag, value in flags.items() if value]
    if given:
        raise UsageError(
            f"{' and '.join(given)} beside --raw would do nothing: without a template the text goes on as it is"
        )


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


def _template(
    here: Context, engine: LlamaEngine, choice: str, continued: bool
) -> tuple[ChatTemplate | None, tuple[str, ...]]:
    """The template and what ends an answer under it. A conversation needs one, so base models write a dialogue on."""
    from llamacli.runtime.builtin_templates import PLAIN, PLAIN_STOP
    from llamacli.runtime.open_template import template_for

    path = located(here.cwd, choice) if choice else None
    found = template_for(engine, str(path) if path is not None and path.is_file() else choice)
    if choice == PLAIN or (found is None and continued):
        return template_for(engine, PLAIN), (PLAIN_STOP,)
    return found, ()


def _text(here: Context, path: Path) -> str:
    from llamacli.cli.screen.attach import text_of

    full = located(here.cwd, path)
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

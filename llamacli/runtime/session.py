"""A conversation with a model: its messages, and how the next answer is made from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamacli.runtime.engine import Engine
from llamacli.runtime.messages import Finish, Message, Piece, Prompt, Reply, Sampling, Span, Usage
from llamacli.runtime.reasoning import Plain, Splitter, Tagged, marker_names, splitter_for
from llamacli.runtime.template import ChatTemplate, check_shown


@dataclass(frozen=True)
class ContextUsage:
    """How many tokens of the context the conversation takes."""

    used: int
    size: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.used / self.size) if self.size else 0.0


@dataclass(frozen=True)
class Thinking:
    """Whether a model may think first: `on` None leaves it to the model; `budget` is its limit in tokens."""

    on: bool | None = None
    budget: int | None = None

    def arguments(self) -> dict[str, Any]:
        """What the templates of thinking models ask for."""
        if self.on is None:
            return {}
        return {"enable_thinking": self.on, "thinking": self.on}


class Session:
    """A conversation. `messages` is the truth, kept in step with what was shown: an interrupted answer stays in it.

    `ask` and `regen` are iterators: the conversation changes as they are read. When one ends early, by an error before
    the first word, the conversation is as it was before.
    """

    def __init__(
        self,
        engine: Engine,
        template: ChatTemplate,
        *,
        system: str = "",
        messages: Sequence[Message] = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
        thinking: Thinking | None = None,
    ) -> None:
        self.engine, self.template = engine, template
        self.messages: list[Message] = list(messages)
        self.tools = tools
        self.arguments = dict(arguments or {})
        self.thinking = thinking or Thinking()
        self.reply: Reply | None = None
        """The last answer, complete once its iterator has ended."""
        self._used = 0
        self.written: list[str] = []
        """The last answer as the model wrote it, piece by piece, with the marks of thoughts and tools."""
        self._visible = engine.control_tokens(marker_names())
        if tools:
            from llamacli.runtime.tool_calls import MARKS

            self._visible |= engine.control_tokens(MARKS)
        if system:
            self.replace_system(system)

    # -- the conversation --------------------------------------------------------------------------------------

    def ask(self, text: str, sampling: Sampling, *, prefill: str = "") -> Iterator[Piece]:
        """Say something and yield the answer, which begins with `prefill`.

        Raises ContextOverflow, EngineError, Unsupported (the template).
        """
        before = list(self.messages)
        self.messages.append(Message("user", text))
        yield from self._answer(sampling, before, prefill)

    def regen(self, sampling: Sampling) -> Iterator[Piece]:
        """Another answer to the last message of the user."""
        before = list(self.messages)
        while self.messages and self.messages[-1].role != "user":
            self.messages.pop()
        if not self.messages:
            self.messages = before
            return
        yield from self._answer(sampling, before)

    def undo(self, count: int = 1) -> str:
        """Take back the last `count` exchanges; the text of the earliest one taken back, or nothing."""
        text = ""
        for _ in range(count):
            places = [i for i, message in enumerate(self.messages) if message.role == "user"]
            if not places:
                break
            text = self.messages[places[-1]].content
            del self.messages[places[-1] :]
        return text

    def clear(self) -> None:
        """Forget everything but the system message."""
        self.messages = [message for message in self.messages if message.role == "system"]
        self._used = 0

    @property
    def system(self) -> str:
        """The system message, or nothing."""
        first = self.messages[0] if self.messages else None
        return first.content if first and first.role == "system" else ""

    def replace_system(self, text: str) -> None:
        """Set the system message; an empty text removes it."""
        rest = self.messages[1:] if self.system else self.messages
        self.messages = [Message("system", text), *rest] if text else list(rest)

    def usage(self) -> ContextUsage:
        """How full the context was after the last answer."""
        return ContextUsage(self._used, self.engine.context_size)

    def count(self, extra: str = "") -> int:
        """Tokens of the conversation as it stands, with a further message of the user if there is one."""
        messages = [*self.messages, Message("user", extra)] if extra else self.messages
        return len(self.engine.tokens(self._render(messages), add_special=False)) if messages else 0

    def prompt_for(self, text: str, prefill: str = "") -> Prompt:
        """What the model would read if `text` were asked now, up to where its answer begins.

        Thoughts that the template opens are closed: nothing will be thought.
        """
        prompt = self._render([*self.messages, Message("user", text)], prefill)
        splitter = Plain() if prefill else splitter_for(self.template.source, prompt_end(prompt))
        return (*prompt, *_control(splitter.close())) if splitter.thinking else prompt

    # -- an answer ---------------------------------------------------------------------------------------------

    def _render(self, messages: Sequence[Message], prefill: str = "") -> Prompt:
        arguments = {**self.thinking.arguments(), **self.arguments}
        if prefill:
            messages = [*messages, Message("assistant", prefill)]
        prompt = self.template.render(
            messages, tools=self.tools, arguments=arguments, continue_final_message=bool(prefill)
        )
        check_shown(prompt, messages)
        return prompt

    def _answer(self, sampling: Sampling, before: list[Message], prefill: str = "") -> Iterator[Piece]:
        answer = Answer()
        self.reply = None
        self.written.clear()
        try:
            prompt = self._render(self.messages, prefill)
            if self.thinking.on is False and not prefill:
                prompt = closed(prompt, self.template)
            splitter = Plain() if prefill else splitter_for(self.template.source, prompt_end(prompt))
            if prefill:
                answer.add(Piece(prefill))
                self.written.append(prefill)
                yield Piece(prefill)
            tokens = self.engine.tokens(prompt, add_special=False)
            for piece in self._stream(tokens, sampling, splitter):
                answer.add(piece)
                yield piece
        finally:
            self._keep(answer, before)

    def _keep(self, answer: Answer, before: list[Message]) -> None:
        """Put what was said into the conversation; if nothing was, put the conversation back."""
        if not answer.text and not answer.reasoning:
            self.messages = before
        else:
            self.messages.append(Message("assistant", answer.text, reasoning=answer.reasoning))
            self._used = answer.usage.prompt + answer.usage.completion
        self.reply = answer.reply(getattr(self.engine, "seed", 0))

    def _stream(self, tokens: list[int], sampling: Sampling, splitter: Splitter) -> Iterator[Piece]:
        # A grammar holds for the answer: a model that thinks first does so freely.
        free = bool(sampling.grammar) and (splitter.thinking or self.thinking.on is True)
        thoughts = bool(splitter.thinking)
        budget = self.thinking.budget
        told: list[int] = []
        for piece in self._pieces(tokens, replace(sampling, grammar="") if free else sampling):
            if piece.finish is not None:
                yield from _split_end(piece, splitter)
                return
            if piece.token is not None:
                told.append(piece.token)
            parts = list(_split(piece, splitter))
            if free and not splitter.thinking and (thoughts or any(part.kind == "answer" for part in parts)):
                yield from (part for part in parts if part.kind == "reasoning")
                yield from self._go_on(tokens, told if thoughts else [], sampling, Plain())
                return
            thoughts = thoughts or splitter.thinking
            yield from parts
            if budget is not None and splitter.thinking and len(told) >= budget:
                break
        bridge = self.engine.tokens(_control(splitter.close()), add_special=False)
        yield from self._go_on(tokens, told, sampling, splitter, bridge)

    def _pieces(self, tokens: list[int], sampling: Sampling) -> Iterator[Piece]:
        for piece in self.engine.generate(tokens, sampling, visible=self._visible):
            self.written.append(piece.text)
            yield piece

    def _go_on(
        self, tokens: list[int], told: list[int], sampling: Sampling, splitter: Splitter, bridge: Sequence[int] = ()
    ) -> Iterator[Piece]:
        """Go on after what was told so far; `bridge` are tokens put in the model's mouth, such as the end of thoughts."""
        left = sampling.predict - len(told) if sampling.predict >= 0 else -1
        follow = replace(sampling, predict=max(left, 0) if left >= 0 else -1)
        for piece in self._pieces([*tokens, *told, *bridge], follow):
            if piece.finish is not None and piece.usage is not None:
                usage = replace(piece.usage, prompt=len(tokens), completion=piece.usage.completion + len(told))
                yield from _split_end(replace(piece, usage=usage), splitter)
            else:
                yield from _split(piece, splitter)


class Answer:
    """An answer being collected from its pieces."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self.usage = Usage()
        self.finish: Finish = "cancel"

    def add(self, piece: Piece) -> None:
        """Take one piece in."""
        (self._reasoning if piece.kind == "reasoning" else self._text).append(piece.text)
        if piece.usage is not None:
            self.usage = piece.usage
        if piece.finish is not None:
            self.finish = piece.finish

    @property
    def text(self) -> str:
        """What the model said."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """What it thought."""
        return "".join(self._reasoning).rstrip()

    def reply(self, seed: int) -> Reply:
        """The answer as one value."""
        return Reply(self.text, self.reasoning, self.finish, self.usage, seed)


def _split(piece: Piece, splitter: Splitter) -> Iterator[Piece]:
    parts = list(splitter.feed(piece.text))
    if not parts and piece.likelihood is not None:  # a token counts, whether it has text yet or not
        parts = [("reasoning" if splitter.thinking else "answer", "")]
    likelihood = piece.likelihood
    for kind, text in parts:
        yield Piece(text, kind, piece.token, piece.probability, likelihood)
        likelihood = None


def _split_end(piece: Piece, splitter: Splitter) -> Iterator[Piece]:
    """The last piece, after everything that was held back."""
    for kind, text in (*splitter.feed(piece.text), *splitter.finish()):
        yield Piece(text, kind)
    yield Piece(kind="reasoning" if splitter.thinking else "answer", finish=piece.finish, usage=piece.usage)


def closed(prompt: Prompt, template: ChatTemplate) -> Prompt:
    """The same prompt, thoughts that the template opens whatever it is told closed again."""
    splitter = splitter_for(template.source, prompt_end(prompt))
    return (*prompt, *_control(splitter.close())) if isinstance(splitter, Tagged) and splitter.thinking else prompt


def prompt_end(prompt: Prompt) -> str:
    """The template's text after the last word of a person."""
    return prompt[-1].text if prompt and prompt[-1].control else ""


def _control(text: str) -> Prompt:
    return (Span(text, True),)

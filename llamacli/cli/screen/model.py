"""The model on the other side of a chat: engine, template and settings that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from llamacli.cli.images import Gallery
from llamacli.cli.sizes import human_size
from llamacli.errors import UsageError
from llamacli.runtime.builtin_templates import PLAIN, PLAIN_STOP
from llamacli.runtime.defaults import sampling_defaults
from llamacli.runtime.llama import LlamaEngine
from llamacli.runtime.messages import Message, Piece, Sampling
from llamacli.runtime.open_template import template_for
from llamacli.runtime.session import Session, Thinking


class ChatModel:
    """A loaded model that can be talked to. `base`: it brings no chat template, so it only writes a dialogue on."""

    def __init__(
        self, engine: LlamaEngine, gallery: Gallery, *, template: str = "", thinking: Thinking | None = None
    ) -> None:
        self.engine, self.gallery = engine, gallery
        own = template_for(engine, template)
        self.base = own is None
        chosen = own or template_for(engine, PLAIN)
        assert chosen is not None
        self.session = Session(engine, chosen, thinking=thinking)
        stop = (PLAIN_STOP,) if self.base or template == PLAIN else ()
        self.defaults: Sampling = replace(sampling_defaults(engine.metadata), stop=stop)

    @property
    def name(self) -> str:
        """What finds this model again."""
        return str(self.engine.path.absolute())

    @property
    def size(self) -> int:
        """Tokens that the context holds."""
        return self.engine.context_size

    @property
    def thinking(self) -> str:
        """Whether the model thinks first, in the words of `/think`."""
        thinking = self.session.thinking
        if thinking.budget is not None:
            return f"on, at most {thinking.budget} tokens"
        return {None: "auto", True: "on", False: "off"}[thinking.on]

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Piece]:
        """The answer to a conversation that ends with the user. Raises ContextOverflow, EngineError, Unsupported."""
        self.session.messages = list(messages)
        return self.session.regen(sampling)

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of a conversation."""
        self.session.messages = list(messages)
        return self.session.count()

    def stop(self) -> None:
        """End the running answer soon."""
        self.engine.stop()

    def describe(self) -> list[str]:
        """Name and size, for the first line of a chat."""
        name = self.engine.metadata.get("general.name") or self.engine.path.stem
        return [name, self.engine.gguf.file_type_name, human_size(self.engine.model_bytes)]

    def use_template(self, choice: str) -> None:
        """Another chat template from now on. Raises UsageError if it is not known."""
        template = template_for(self.engine, choice)
        if template is not None:
            self.session.template = template

    def close(self) -> None:
        """Free the model."""
        self.engine.close()


def thinking_of(text: str) -> Thinking:
    """`on`, `off`, `auto`, or the most tokens to think. Raises UsageError."""
    words = {"": Thinking(), "auto": Thinking(), "on": Thinking(on=True), "off": Thinking(on=False)}
    if text.lower() in words:
        return words[text.lower()]
    if text.isdecimal():
        return Thinking(on=True, budget=int(text)) if int(text) else Thinking(on=False)
    raise UsageError(f"think {text}: on, off, auto, or a number of tokens")

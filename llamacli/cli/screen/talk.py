"""A chat in progress: what is said goes through the model, the screen and the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from llamacli.cli.console import Console
from llamacli.cli.context import Context
from llamacli.cli.conversation import seen, unseen
from llamacli.cli.screen.answer import Answer, LiveAnswer
from llamacli.cli.screen.attach import Attached
from llamacli.cli.screen.interrupt import stop_on_interrupt
from llamacli.cli.screen.look import Look
from llamacli.cli.screen.model import ChatModel
from llamacli.cli.screen.reader import Reader
from llamacli.cli.screen.reading import ReadingLine
from llamacli.cli.screen.room import make_room
from llamacli.cli.screen.sanitize import sanitize
from llamacli.cli.screen.slash.table import parse
from llamacli.cli.screen.status import share_of, status_line
from llamacli.cli.screen.wrap import Wrap
from llamacli.errors import CannotWrite, ContextOverflow, LlamacliError
from llamacli.library.chats import Chat, Chats, Journal, Node, PictureFile
from llamacli.runtime.messages import Message, Piece, Sampling

_NEARLY_FULL = 85


@dataclass
class Talk:
    """Everything that a message or a slash command can act on."""

    context: Context
    look: Look
    chats: Chats
    journal: Journal
    model: ChatModel
    open_model: Callable[[str], ChatModel]
    sampling: Sampling
    overflow: str = "stop"
    """What a full context does, one of `OVERFLOWS`."""
    person: bool = True
    """Whether somebody is there to be asked."""
    last: Answer | None = None
    used: int = 0
    """Tokens of the context in use after the last answer."""
    hidden: int = 0
    """Messages at the beginning that were left out, because the context was full."""
    undone: list[str | None] = field(default_factory=list)
    ended: bool = False
    reader: Reader | None = None
    attached: Attached = field(default_factory=Attached)
    """What goes with the next message."""
    _warned: bool = False

    @property
    def console(self) -> Console:
        """Where everything is written."""
        return self.context.console

    @property
    def chat(self) -> Chat:
        """The tree of all that was said."""
        return self.journal.chat

    @property
    def path(self) -> list[Node]:
        """The messages from the beginning to here."""
        return self.chat.path() if self.chat.head is not None else []

    # -- talk on the screen ------------------------------------------------------------------------------------

    def say(self, text: str, *, dim: bool = False) -> None:
        """A line beside the conversation, on stderr."""
        text = self.fitted(sanitize(text))
        self.write((self.look.dim(text) if dim else text) + "\n")

    def fitted(self, text: str) -> str:
        """`text` with its lines broken between words, where the terminal is one that we may lay out."""
        if not self.look.wrapped:
            return text
        wrap = Wrap(self.look.width)
        return wrap.feed(text) + wrap.flush()

    def write(self, text: str) -> None:
        """Text of our own for the terminal, with its styles."""
        self.console.err.write(text)
        self.console.err.flush()

    # -- one message after the other ---------------------------------------------------------------------------

    def loop(self, reader: Reader) -> None:
        """Until the user leaves: read, hear, answer. What goes wrong is told, and the chat goes on.

        Without a person the first thing that goes wrong ends it. Raises LlamacliError.
        """
        self.reader = reader
        while not self.ended:
            try:
                self.hear(reader.read())
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self.person:
                    raise
                self.say("Ctrl-D to leave")
            except LlamacliError as error:
                if not self.person:
                    raise
                self.console.error(error)

    def hear(self, text: str) -> None:
        """A slash command or a message."""
        command = parse(text)
        if command is not None:
            command[0].run(self, command[1])
        elif text.strip():
            self.ask(text)

    def attach(self, name: str, text: str) -> None:
        """Keep `text` for the next message."""
        self.attached.texts.append(text)
        self.say(f"{name}: {len(text):,} characters go with your next message")

    def attach_picture(self, name: str) -> None:
        """Keep the picture in a file for the next message. Raises LlamacliError for what this model cannot see."""
        self.show(self.model.gallery.take(name))

    def show(self, picture: PictureFile) -> None:
        """Keep a picture, which the gallery has, for the next message."""
        self.attached.pictures.append(picture)
        self.say(f"{picture.name}: the picture goes with your next message")

    def ask(self, text: str) -> None:
        """Send a message, with what is attached to it, and show the answer.

        If no answer can be made, the conversation stands where it stood before. Raises LlamacliError.
        """
        before, attached = self.chat.head, self.attached
        self.attached = Attached()
        self.undone.clear()
        self._record(lambda: self.journal.say(attached.message(text), created=self.context.now()))
        try:
            self.answer()
        except LlamacliError:
            self.attached = attached
            self.go_to(before)
            if attached and self.person:
                self.say(f"attached to your next message: {attached}  (/file off drops it)", dim=True)
            raise

    def answer(self, *, temp: float | None = None) -> None:
        """Let the model answer what was said last, show it, keep it. Raises ContextOverflow if it does not fit."""
        sampling = self.sampling if temp is None else replace(self.sampling, temp=temp)
        if sampling.seed is not None:  # the same question again must not give the same answer again
            others = sum(node.parent == self.chat.head for node in self.chat.nodes.values())
            sampling = replace(sampling, seed=(sampling.seed + others) % (1 << 32))
        while True:
            try:
                answer = self._generate(sampling)
                break
            except ContextOverflow as error:
                make_room(self, error)
        self.last = answer
        if answer.usage:
            self.used = answer.usage.prompt + answer.usage.completion
        self._keep(answer)
        self._tell(answer)

    def seen(self) -> list[Message]:
        """What the model sees of the conversation."""
        return seen(self.chat, self.model.gallery, self.chat.system, self.hidden)

    @property
    def unseen(self) -> int:
        """How many messages at the beginning the model no longer sees."""
        return unseen(self.chat, self.hidden)

    def _generate(self, sampling: Sampling) -> Answer:
        reading = ReadingLine(self.console) if self.look.redraw and not self.console.quiet else None
        self.model.engine.on_reading = reading
        try:
            return LiveAnswer(self.console, self.look).show(self.silently(self.seen(), sampling))
        finally:
            self.model.engine.on_reading = None
            if reading is not None:
                reading.end()

    def silently(self, messages: list[Message], sampling: Sampling) -> Iterator[Piece]:
        """The pieces of an answer, which Ctrl-C ends; nothing is shown or kept."""
        with stop_on_interrupt(self.model.stop) as presses:
            for piece in self.model.answer(messages, sampling):
                yield piece
                if presses.count:  # pressed before the engine had begun
                    self.model.stop()

    def summarize(self, place: str, text: str) -> None:
        """From the message `place` on, let `text` stand for all that came before."""
        self._record(lambda: self.journal.record({"type": "summary", "id": place, "value": text}))

    def _keep(self, answer: Answer) -> None:
        if not answer.text and not answer.reasoning:
            return
        message = Message("assistant", answer.text, reasoning=answer.reasoning).as_dict()
        stopped = {"stopped": True} if answer.finish == "cancel" else {}
        self._record(lambda: self.journal.say(message, created=self.context.now(), finish=answer.finish, **stopped))

    def _record(self, save: Callable[[], object]) -> None:
        """A conversation that cannot be saved goes on all the same; the user is told each time."""
        try:
            save()
        except CannotWrite as error:
            self.console.error(error)

    def _tell(self, answer: Answer) -> None:
        """What is to be known beside the answer."""
        if answer.finish == "cancel":
            begun = answer.text or answer.reasoning
            self.say("[stopped]" if begun else "[stopped before the first word; /regen asks again]", dim=True)
        if self.look.live and not self.console.quiet:
            self.write(self.look.dim(status_line(answer, self.used, self.model.size, self.look)) + "\n")
        if answer.finish == "grammar":
            self.console.warn("the answer cannot go on: this model's vocabulary cannot spell what the schema asks for")
        full = self.used >= self.model.size - 1
        if answer.finish == "length" and full:
            self.console.warn(
                f"the context of {self.model.size:,} tokens is full: the answer was cut  (/ctx, /undo, /new)"
            )
        elif answer.finish == "length":
            self.say(f"[cut after {self.sampling.predict} tokens, as set]", dim=True)
        share = share_of(self.used, self.model.size)
        if share >= _NEARLY_FULL and not full and not self._warned:
            self.console.warn(f"the context is {share} % full  (/ctx says what happens then)")
        self._warned = share >= _NEARLY_FULL

    # -- going back and forth ----------------------------------------------------------------------------------

    def go_to(self, head: str | None) -> None:
        """Go on from another message."""
        self._record(lambda: self.journal.move(head))
        self.hidden = self.hidden if self.hidden < len(self.path) else 0

    def go_back(self, head: str | None) -> None:
        """As `go_to`, and `go_forward` returns."""
        self.undone.append(self.chat.head)
        self.go_to(head)

    def go_forward(self) -> None:
        """Return from the last `go_back`."""
        self.go_to(self.undone.pop())

    def confirm(self, question: str) -> bool:
        """Whether a person says yes."""
        return self.reader is not None and not self.console.no_input and self.reader.confirm(question)

    def edited(self, text: str) -> str:
        """`text` as the user changes it."""
        self.say("edit the message; Ctrl-C leaves it as it is" if self.look.redraw else f"was: {text}", dim=True)
        try:
            return self.reader.read(default=text) if self.reader else ""
        except (EOFError, KeyboardInterrupt):
            return ""

    # -- settings ----------------------------------------------------------------------------------------------

    def begin(self, title: str = "") -> None:
        """Another conversation with the same model and system prompt."""
        system = self.chat.system
        self.journal = self.chats.new(
            self.model.name, self.context.now(), title=title, save=self.journal.path is not None
        )
        self.undone.clear()
        self.attached = Attached()
        self.used = self.hidden = 0
        self.last = None
        if system:
            self.set_system(system)

    def set_system(self, text: str) -> None:
        """The system prompt from now on; empty for none."""
        self._record(lambda: self.journal.record({"type": "system", "value": text}))

    def change_model(self, name: str) -> None:
        """Go on with another model; if it cannot be opened, with the one we have. Raises LlamacliError."""
        model = self.open_model(name)
        self.model.close()
        self.model, self.used = model, 0
        self.sampling = model.defaults
        self._record(lambda: self.journal.record({"type": "model", "value": name}))

    def headline(self) -> str:
        """The model, the context and the conversation."""
        dot = self.look.pick(" · ", " - ")
        parts = [*self.model.describe(), f"ctx {self.model.size:,}"]
        label = self.chat.label()
        session = f"session {self.chat.id}" + (f' "{label}"' if label else "")
        return dot.join([*parts, session if self.journal.path else "not saved"])

"""A model's thoughts and its answer, told apart while they stream.

Models mark their thoughts in a few ways: a block in tags before the answer, which the template may already have opened
at the end of the prompt, or named channels (gpt-oss). A block counts only at the start of an answer, so that an answer
about `<think>` stays an answer.
"""

from __future__ import annotations

from typing import Literal, Protocol

from llamacli.runtime.text import overlap

Kind = Literal["answer", "reasoning"]
Part = tuple[Kind, str]

TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<thinking>", "</thinking>"),
)
"""How families open and close a block of thoughts."""

CHANNELS = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>")
"""Control tokens of gpt-oss's format."""


class Splitter(Protocol):
    """Takes an answer in any cuts and says which parts are thoughts."""

    thinking: bool
    """Whether the model is in the middle of its thoughts."""

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain."""

    def finish(self) -> list[Part]:
        """What was held back."""

    def close(self) -> str:
        """What a model would have to write to end its thoughts now; the splitter takes it as written."""


class Plain:
    """Everything is the answer."""

    thinking = False

    def feed(self, text: str) -> list[Part]:
        """The text as it is."""
        return [("answer", text)] if text else []

    def finish(self) -> list[Part]:
        """Nothing."""
        return []

    def close(self) -> str:
        """Nothing."""
        return ""


class Tagged:
    """A block of thoughts between tags, then the answer. Space around both is dropped at their start."""

    def __init__(self, tags: tuple[tuple[str, str], ...], opened: str = "") -> None:
        self._tags = dict(tags)
        self._held = ""
        self._end = self._tags.get(opened, "")
        self._fresh = True
        """Whether nothing but space has come in this block so far."""
        self._undecided = not opened
        self.thinking = bool(opened)

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain; text that may be the beginning of a tag waits."""
        if not (self._undecided or self._fresh or self.thinking):
            return [("answer", text)] if text else []
        self._held += text
        out: list[Part] = []
        while self._held and self._advance(out):
            pass
        return out

    def _advance(self, out: list[Part]) -> bool:
        """One step; whether another may be possible."""
        if self._fresh:
            self._held = self._held.lstrip()
        if self._undecided:
            return self._decide()
        if self.thinking:
            return self._think(out)
        if self._held:
            self._put(out, "answer", self._held)
            self._held = ""
        return False

    def _decide(self) -> bool:
        for start, end in self._tags.items():
            if self._held.startswith(start):
                self._held, self._end = self._held[len(start) :], end
                self._undecided, self.thinking = False, True
                return True
        if any(start.startswith(self._held) for start in self._tags):
            return False
        self._undecided = False
        return True

    def _think(self, out: list[Part]) -> bool:
        before, found, after = self._held.partition(self._end)
        if found:
            self._put(out, "reasoning", before)
            self._held, self.thinking, self._fresh = after, False, True
            return True
        cut = len(self._held) - overlap(self._held, self._end)
        self._put(out, "reasoning", self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _put(self, out: list[Part], kind: Kind, text: str) -> None:
        if text:
            out.append((kind, text))
            self._fresh = False

    def finish(self) -> list[Part]:
        """What was held back: the beginning of a tag that did not come is text after all."""
        text, self._held = self._held, ""
        return [("reasoning" if self.thinking else "answer", text)] if text else []

    def close(self) -> str:
        """The closing tag on a line of its own."""
        self._held, self.thinking, self._fresh = "", False, True
        return f"\n{self._end}\n\n"


class Channeled:
    """gpt-oss: messages with a header that names a channel; `final` is the answer, the others are thoughts."""

    def __init__(self) -> None:
        self._held = ""
        self._in_header = True
        self._kind: Kind = "reasoning"
        self.thinking = True

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain; headers are dropped."""
        self._held += text
        out: list[Part] = []
        while self._header() if self._in_header else self._body(out):
            pass
        return out

    def _header(self) -> bool:
        header, found, rest = self._held.partition("<|message|>")
        if not found:
            return False
        self._held, self._in_header = rest, False
        self._kind = "answer" if "<|channel|>final" in header or "<|channel|>" not in header else "reasoning"
        self.thinking = self._kind == "reasoning"
        return True

    def _body(self, out: list[Part]) -> bool:
        ends = ("<|end|>", "<|start|>", "<|channel|>", "<|call|>", "<|return|>")
        places = {place: end for end in ends if (place := self._held.find(end)) >= 0}
        if places:
            place = min(places)
            self._put(out, self._held[:place])
            self._held = self._held[place + len(places[place]) * (places[place] != "<|channel|>") :]
            self._in_header = True
            return True
        cut = len(self._held) - max(overlap(self._held, end) for end in ends)
        self._put(out, self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _put(self, out: list[Part], text: str) -> None:
        if text:
            out.append((self._kind, text))

    def finish(self) -> list[Part]:
        """What was held back; text without any header is the answer."""
        text, self._held = self._held, ""
        if self._in_header and ("<|" in text or not self.thinking):
            return []
        return [("answer" if self._in_header else self._kind, text)] if text else []

    def close(self) -> str:
        """The header of the answer's channel."""
        self._held, self._in_header, self._kind, self.thinking = "", False, "answer", False
        return "<|end|><|start|>assistant<|channel|>final<|message|>"


def splitter_for(source: str, prompt_end: str) -> Splitter:
    """The splitter for a template, given the text that it put at the end of the prompt."""
    if "<|channel|>" in source and "<|message|>" in source:
        return Channeled()
    end = prompt_end.rstrip()
    opened = next((start for start, _ in TAGS if end.endswith(start)), "")
    return Tagged(TAGS, opened)


def marker_names() -> tuple[str, ...]:
    """Texts that a splitter must see even where the vocabulary calls them control tokens."""
    tags = tuple(tag.removesuffix("thought") for pair in TAGS for tag in pair)
    return (*tags, *CHANNELS)

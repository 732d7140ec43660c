"""Chat templates: messages to a prompt in which the template's own text and everybody else's stay apart.

Where does a character of the rendered prompt come from? The template is rendered twice: with the messages as they are,
and with their visible ASCII characters moved to a private plane of Unicode. If moving them back gives the first
rendering, the second one shows the origin of every character. If it does not, the template looks into the messages
(splits them at `</think>`, compares them): then the messages are rendered with a mark inside every control token they
spell, which breaks it, and all other text stays exact. Either way no message can spell a control token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from llamacli.errors import Unsupported
from llamacli.runtime.messages import Message, Prompt, Span

_PLANE = 0xF0000
_KEPT = '"\\'
"""Visible ASCII that is not moved, so that JSON escapes it as before; no control token is made of it alone."""

_MOVED = {code: _PLANE + code for code in range(0x21, 0x7F) if chr(code) not in _KEPT}
_BACK = {moved: code for code, moved in _MOVED.items()}
_IN_PLANE = f"{chr(_PLANE + 0x21)}-{chr(_PLANE + 0x7E)}"
_USER_TEXT = re.compile(rf'[{_IN_PLANE}]+(?:[\s"\\]+[{_IN_PLANE}]+)*')
_PRIVATE = re.compile(f"[{_IN_PLANE}]")

_STRUCTURE = frozenset({"role", "type"})
"""Keys of messages whose values are words of the format, not of a person."""


class ChatTemplate:
    """One template. `specials` are the token texts that it may ask for (bos_token, ...); `controls` gives the texts of
    all control tokens of the vocabulary when they are needed.
    """

    def __init__(
        self,
        source: str,
        *,
        specials: Mapping[str, str] | None = None,
        controls: Callable[[], Sequence[str]] = tuple,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self._specials = dict(specials or {})
        self._controls = controls
        self._now = now

    @cached_property
    def _compiled(self) -> Any:
        from llamacli.runtime.sandbox import Sandbox  # Jinja takes a tenth of a second to import

        moment = self._now()
        sandbox = Sandbox(now=lambda: moment)
        return sandbox, sandbox.compiled(self.source)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """The prompt for a conversation, as transformers' `apply_chat_template` makes it.

        With `continue_final_message` it ends where the last message ends, so that the model goes on with it.
        `arguments` are values of the template's own, such as enable_thinking. Raises Unsupported.
        """
        values: dict[str, Any] = {
            "messages": [message.as_dict() for message in messages],
            "tools": [dict(tool) for tool in tools] if tools else None,
            "documents": [dict(document) for document in documents] if documents else None,
        }
        settings = {
            **self._specials,
            **(arguments or {}),
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        prompt = self._spans(values, settings)
        return _cut_after(prompt, messages[-1].content) if continue_final_message else prompt

    def _spans(self, values: dict[str, Any], settings: Mapping[str, Any]) -> Prompt:
        texts = list(_texts(values))
        plain = self._text(values, settings)
        if not any(_PRIVATE.search(text) for text in (*texts, self.source)):
            moved = self._try(_mapped(values, lambda text: text.translate(_MOVED)), settings)
            if moved.translate(_BACK) == plain:
                return _by_origin(moved)
        return self._by_breaking(values, settings, texts)

    def _text(self, values: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        sandbox, template = self._compiled
        given = sum(map(len, _texts(values)))
        text: str = sandbox.rendered(template, {**values, **settings}, given)
        return text

    def _try(self, values: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """As `_text`; a template that fails on moved text (it wanted a certain word) gives nothing."""
        try:
            return self._text(values, settings)
        except Unsupported:
            return ""

    def _by_breaking(self, values: dict[str, Any], settings: Mapping[str, Any], texts: Sequence[str]) -> Prompt:
        mark = _unused([*texts, self.source])
        names = sorted({name for name in self._controls() if len(name) > 1}, key=len, reverse=True)
        if names:
            start = re.compile(f"(?=(?:{'|'.join(map(re.escape, names))}))(.)", re.DOTALL)
            values = _mapped(values, lambda text: start.sub(rf"\1{mark}", text))
        return _around_marks(self._text(values, settings), mark)


def _texts(value: Any, key: str = "") -> list[str]:
    """Every text of a person within messages, tools and documents."""
    if isinstance(value, str):
        return [] if key in _STRUCTURE else [value]
    if isinstance(value, Mapping):
        return [text for k, v in value.items() for text in _texts(v, k)]
    if isinstance(value, (list, tuple)):
        return [text for v in value for text in _texts(v)]
    return []


def _mapped(value: Any, change: Callable[[str], str], key: str = "") -> Any:
    """The same structure with every text of a person changed."""
    if isinstance(value, str):
        return value if key in _STRUCTURE else change(value)
    if isinstance(value, Mapping):
        return {k: _mapped(v, change, k) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(v, change) for v in value]
    return value


def _by_origin(moved: str) -> Prompt:
    """Spans of a rendering with moved text."""
    spans: list[Span] = []
    end = 0
    for found in _USER_TEXT.finditer(moved):
        if found.start() > end:
            spans.append(Span(moved[end : found.start()], True))
        spans.append(Span(found.group().translate(_BACK), False))
        end = found.end()
    if end < len(moved):
        spans.append(Span(moved[end:], True))
    return tuple(spans)


def _around_marks(text: str, mark: str) -> Prompt:
    """Spans of a rendering with marks: the character before each mark is a person's, so its token stays broken."""
    spans: list[Span] = []
    parts = text.split(mark)
    for part in parts[:-1]:
        spans += [Span(part[:-1], True), Span(part[-1:], False)]
    spans.append(Span(parts[-1], True))
    return tuple(span for span in spans if span.text)


def check_shown(prompt: Prompt, messages: Sequence[Message]) -> None:
    """Raise Unsupported if the template passes over what was said last, or the system prompt, in silence."""
    text = "".join(span.text for span in prompt)
    asked = next((message for message in reversed(messages) if message.role == "user"), None)
    if asked is not None and not _is_in(asked.content, text):
        raise Unsupported("the chat template leaves out what was said", "try another one: --chat-template FILE")
    for message in messages[:1]:
        if message.role == "system" and not _is_in(message.content, text):
            raise Unsupported(
                "the chat template leaves out the system prompt", "say it in the message, or try another template"
            )


def _is_in(content: object, text: str) -> bool:
    """Whether a template that may have cut or trimmed a message has put any of its words into the prompt."""
    words = content.split() if isinstance(content, str) else []
    return not words or any(word in text for word in (words[0], words[-1]))


def _unused(texts: Sequence[str]) -> str:
    """A character that stands in none of the texts."""
    used = set().union(*texts)
    return next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in used)


def _cut_after(prompt: Prompt, content: str) -> Prompt:
    """The prompt up to the end of the last message.

    Space at the message's end is kept only where the template kept it. Raises Unsupported if the template does not
    show the message.
    """
    text = "".join(span.text for span in prompt)
    core = content.strip()
    place = text.rfind(core)
    if place < 0:
        raise Unsupported("the chat template changes the message that is to be continued", "try --raw")
    tail = content.lstrip()
    keep = place + len(tail if text[place : place + len(tail)] == tail else core)
    spans: list[Span] = []
    for span in prompt:
        if keep <= 0:
            break
        spans.append(Span(span.text[:keep], span.control))
        keep -= len(span.text)
    return tuple(spans)

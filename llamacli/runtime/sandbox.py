"""Chat templates are programs from strangers: Jinja's immutable sandbox, with limits of time, memory and output.

Jinja's sandbox keeps a template from reaching anything outside; it does not keep it from looping for hours or from
building gigabytes. Here every loop step, call, filter and operator that can take long or grow looks at a clock and at
the size of what it makes. The dialect is that of transformers' `apply_chat_template`.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llamacli.errors import Unsupported

MAX_SOURCE = 256 << 10
MAX_SECONDS = 2.0
MAX_CHARACTERS = 16 << 20
"""Size of any text that a template may make, beyond a multiple of what it was given."""
MAX_ITEMS = 1 << 20
MAX_NUMBER = 1 << 20
MAX_BITS = 4096

_WIDTH = re.compile(r"\d{6}|\*")


class Limits:
    """What one rendering may still use. Not for use by several threads at once."""

    def __init__(self) -> None:
        self.start(0)

    def start(self, given: int) -> None:
        """Begin a rendering of `given` characters of messages."""
        self.deadline = time.monotonic() + MAX_SECONDS
        self.characters = MAX_CHARACTERS + 8 * given

    def tick(self) -> None:
        """Raise SecurityError when the time is up."""
        if time.monotonic() > self.deadline:
            raise SecurityError(f"it ran for more than {MAX_SECONDS:.0f} seconds")

    def allow(self, characters: int) -> None:
        """Raise SecurityError for a text of this size."""
        if characters > self.characters:
            raise SecurityError(f"it made a text of {characters:,} characters")

    def measure(self, value: Any) -> Any:
        """`value`, unless it is too big: long text, a huge number, or lists that unfold to too many items."""
        if isinstance(value, str):
            self.allow(len(value))
        elif isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise SecurityError("it made a huge number")
        elif isinstance(value, (list, tuple, dict)) and _unfolded(value, {}) > MAX_ITEMS:
            raise SecurityError(f"it made a list of more than {MAX_ITEMS:,} items")
        return value


def _unfolded(value: Any, known: dict[int, int]) -> int:
    """How many items a structure has when shared parts are counted each time they are met."""
    if not isinstance(value, (list, tuple, dict)):
        return 1
    if id(value) not in known:
        children = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_unfolded(child, known) for child in children)
    return known[id(value)]


class GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012 - the attribute that Jinja looks for

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body of the block, in its place."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment in which chat templates run."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, now: Callable[[], datetime] = datetime.now) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols])
        self.limits = Limits()
        setattr(self, "concat", self._concat)  # noqa: B010 - Jinja declares it as a method
        self.filters = {name: self._guarded(name, function) for name, function in self.filters.items()}
        self.filters["tojson"] = self._guarded("tojson", _tojson)
        self.filters["_each"] = self._each
        self.filters["_measured"] = self.limits.measure
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = lambda form: now().strftime(_portable(form))

    # -- compiling ---------------------------------------------------------------------------------------------

    def compiled(self, source: str) -> Template:
        """A template ready to render. Raises Unsupported."""
        if len(source) > MAX_SOURCE:
            raise Unsupported(f"the chat template has {len(source):,} characters; at most {MAX_SOURCE:,} are read")
        try:
            template = self.from_string(source)
            # The join of `a ~ b` is a plain import of the compiled code.
            template.root_render_func.__globals__["str_join"] = lambda parts: self._concat(
                [str(part) for part in parts]
            )
            return template
        except Exception as error:
            raise Unsupported(f"the chat template cannot be read: {_said(error)}", _OTHER) from error

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _watch(tree)
        return tree

    # -- rendering ---------------------------------------------------------------------------------------------

    def rendered(self, template: Template, values: Mapping[str, Any], given: int) -> str:
        """What the template makes of `values`. Raises Unsupported with the template's own words or ours."""
        self.limits.start(given)
        try:
            context = template.new_context(dict(values))
            parts, size = [], 0
            for part in template.root_render_func(context):
                self.limits.tick()
                size += len(part)
                self.limits.allow(size)
                parts.append(part)
            return "".join(parts)
        except Exception as error:
            raise Unsupported(f"the chat template fails: {_said(error)}", _OTHER) from error

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self._check_call(__obj, args, kwargs)
        return __self.limits.measure(super().call(__context, __obj, *args, **kwargs))

    def _check_call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.limits.tick()
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if not isinstance(owner, str):
            return
        name = function.__name__
        _check_numbers(args, kwargs)
        if name in ("format", "format_map") and _WIDTH.search(owner):
            raise SecurityError("it formats to a huge width")
        if name == "join" and args:
            self._check_join(owner, args[0])
        elif name == "replace" and len(args) >= 2:
            self._check_replace(owner, args[0], args[1])
        elif name == "translate":
            raise SecurityError("str.translate is not for templates")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Operators that can grow what they are given."""
        self.limits.tick()
        if operator == "*":
            self._check_product(left, right)
        elif operator == "**" and not _small(left, right):
            raise SecurityError("it raises to a huge power")
        elif operator == "%" and isinstance(left, str) and _WIDTH.search(left):
            raise SecurityError("it formats to a huge width")
        elif operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            self.limits.allow(len(left) + len(right))
        return self.limits.measure(super().call_binop(context, operator, left, right))

    def call_filter(self, *args: Any, **kwargs: Any) -> Any:
        """A filter called by another one, such as `map`."""
        self.limits.tick()
        return super().call_filter(*args, **kwargs)

    def call_test(self, *args: Any, **kwargs: Any) -> Any:
        """A test called by a filter, such as `select`."""
        self.limits.tick()
        return super().call_test(*args, **kwargs)

    def _check_product(self, left: Any, right: Any) -> None:
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
                self.limits.allow(len(sequence) * max(times, 0))

    def _check_join(self, separator: str, items: Any) -> None:
        if isinstance(items, (list, tuple, dict)):
            self.limits.allow(sum(len(item) if isinstance(item, str) else 1 for item in items))
            self.limits.allow(len(separator) * len(items))

    def _check_replace(self, text: str, old: Any, new: Any) -> None:
        count = text.count(str(old)) if str(old) else len(text) + 1
        self.limits.allow(len(text) + count * len(str(new)))

    def _concat(self, parts: Iterable[str]) -> str:
        parts = list(parts)
        self.limits.allow(sum(map(len, parts)))
        return "".join(parts)

    def _each(self, items: Any) -> Iterator[Any]:
        """The items of a loop, with an eye on the clock."""
        for item in items:
            self.limits.tick()
            yield item

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that cannot take long or grow beyond the limits."""

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.limits.tick()
            # Some filters are handed the environment or the context first.
            own = args[1:] if hasattr(function, "jinja_pass_arg") else args
            _check_numbers(own[1:], kwargs)
            if name == "join":
                items = own[0] if isinstance(own[0], (list, tuple, dict)) else list(self._each(own[0]))
                args = (*args[: len(args) - len(own)], items, *own[1:])
                self._check_join(str(own[1] if len(own) > 1 else kwargs.get("d", "")), items)
            elif name == "replace" and len(own) >= 3:
                self._check_replace(str(own[0]), own[1], own[2])
            elif name == "format" and _WIDTH.search(str(own[0])):
                raise SecurityError("it formats to a huge width")
            return self.limits.measure(function(*args, **kwargs))

        return guarded


_OTHER = "try another one: --chat-template FILE, or --raw for none"


def _watch(tree: nodes.Template) -> None:
    """Have every loop look at the clock, and every list that is written out be measured."""
    for loop in tree.find_all(nodes.For):
        loop.iter = _filtered(loop.iter, "_each")
    for assigned in tree.find_all(nodes.Assign):
        if any(True for _ in assigned.find_all((nodes.List, nodes.Tuple, nodes.Dict))):
            assigned.node = _filtered(assigned.node, "_measured")


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _check_numbers(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise SecurityError(f"it asks for {value:,}")


def _small(base: Any, power: Any) -> bool:
    return isinstance(base, float) or (
        isinstance(base, int) and isinstance(power, int) and abs(power) * base.bit_length() < MAX_BITS
    )


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as transformers writes it: nothing escaped for HTML, other scripts as they are."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _portable(form: str) -> str:
    """A form of time in this system's own signs: Windows has another one for numbers without a zero in front."""
    return form.replace("%-", "%#") if sys.platform == "win32" else form


def _said(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    return " ".join(str(error).split())[:300] or type(error).__name__

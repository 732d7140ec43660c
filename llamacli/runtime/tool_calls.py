"""Calls of tools, read from an answer in the model's own format.

Formats, by the marks that families were trained on: Qwen and Hermes (`<tool_call>` around JSON, or around Qwen3-Coder's
tags), Mistral (`[TOOL_CALLS]`), Llama 3 (JSON with `name` and `parameters`, `<|python_tag|>`, `<function=name>`),
Gemma 3 (a ```tool_code block with Python calls), gpt-oss (a message to `functions.name` on the commentary channel).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MARKS = (
    "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|eom_id|>",
    "<start_function_call>", "<end_function_call>", "<|tool_call|>", "<tool_response>",
)  # fmt: skip
"""Texts that must be seen even where the vocabulary calls them control tokens."""


@dataclass(frozen=True)
class ToolCall:
    """One call: the name of a tool and its arguments by name."""

    name: str
    arguments: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """`{"name": ..., "arguments": {...}}`"""
        return {"name": self.name, "arguments": self.arguments}


@dataclass(frozen=True)
class Found:
    """What an answer says beside its calls, and the calls in order."""

    text: str
    calls: tuple[ToolCall, ...]


def tool_calls(answer: str, names: Sequence[str] = ()) -> Found:
    """The calls in `answer`, all of it with control tokens visible.

    `names` are the tools that exist: only calls of these are believed where the format has no mark of its own. What is
    no complete call stays text.
    """
    for read in _FORMATS:
        found = read(answer, names)
        if found is not None and found.calls:
            return Found(found.text.strip(), found.calls)
    return Found(answer, ())


def _between(answer: str, pattern: re.Pattern[str], read: Callable[[str], list[ToolCall]]) -> Found | None:
    """Calls within marks; a mark around no call stays text."""
    calls: list[ToolCall] = []

    def take(match: re.Match[str]) -> str:
        inside = read(match[1])
        calls.extend(inside)
        return "" if inside else match[0]

    text = pattern.sub(take, answer)
    return Found(text, tuple(calls)) if calls else None


# -- Qwen, Hermes --------------------------------------------------------------------------------------------------

_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_CODER = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


def _qwen(answer: str, names: Sequence[str]) -> Found | None:
    return _between(answer, _TAGGED, lambda inside: _coder(inside) or _json_calls(inside))


def _coder(text: str) -> list[ToolCall]:
    """Qwen3-Coder: the function and each parameter in tags of their own."""
    return [
        ToolCall(call[1], {name: _value(value) for name, value in _PARAMETER.findall(call[2])})
        for call in _CODER.finditer(text)
        if _PARAMETER.search(call[2]) or not call[2].strip()
    ]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# -- Mistral -------------------------------------------------------------------------------------------------------

_MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*([\w.-]+)(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\])?\s*(?=\{)")


def _mistral(answer: str, names: Sequence[str]) -> Found | None:
    """A list of calls after the mark (older), or a mark, name and arguments for each call (newer)."""
    before, mark, after = answer.partition("[TOOL_CALLS]")
    if not mark:
        return None
    if after.lstrip().startswith(("[", "{")):
        value, rest = _leading_json(after)
        calls = _calls_in(value)
        return Found(before + rest, tuple(calls)) if calls else None
    out, text, at = [], before, len(before)
    while match := _MISTRAL.match(answer, at):
        value, rest = _leading_json(answer[match.end() :])
        if not isinstance(value, dict):
            break
        out.append(ToolCall(match[1], value))
        at = len(answer) - len(rest.lstrip())
    return Found(text + answer[at:], tuple(out)) if out else None


# -- Llama 3 -------------------------------------------------------------------------------------------------------


def _llama(answer: str, names: Sequence[str]) -> Found | None:
    """JSON objects at the start of the answer, perhaps after the tag; several are parted by semicolons."""
    text = answer.strip().removesuffix("<|eom_id|>").removesuffix("<|eot_id|>").rstrip()
    before, tag, after = text.partition("<|python_tag|>")
    if tag:
        calls = _json_calls(after) or _python_calls(after, names)
        return Found(before, tuple(calls)) if calls else None
    calls = [ToolCall(call[1], value) for call in _CODER.finditer(text) if isinstance(value := _value(call[2]), dict)]
    if calls:
        return Found(_CODER.sub("", text), tuple(calls))
    calls = [call for call in _json_calls(_unfenced(text)) if not names or call.name in names]
    return Found("", tuple(calls)) if calls else None


def _unfenced(text: str) -> str:
    found = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", text, re.DOTALL)
    return found[1] if found else text


# -- Gemma ---------------------------------------------------------------------------------------------------------

_TOOL_CODE = re.compile(r"```tool_code\s*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"<start_function_call>\s*call:([\w.-]+)\s*(\{.*?\})\s*<end_function_call>", re.DOTALL)


def _gemma(answer: str, names: Sequence[str]) -> Found | None:
    """A block of Python calls, or a block of JSON; FunctionGemma's marks."""
    marked = [
        ToolCall(call[1], value)
        for call in _FUNCTION.finditer(answer)
        if (value := _gemma_arguments(call[2])) is not None
    ]
    if marked:
        return Found(_FUNCTION.sub("", answer), tuple(marked))
    return _between(answer, _TOOL_CODE, lambda code: _json_calls(code) or _python_calls(code, names))


def _gemma_arguments(text: str) -> dict[str, Any] | None:
    """`{place:<escape>Rome<escape>,days:3}`"""
    quoted = re.sub(r"<escape>(.*?)<escape>", lambda match: json.dumps(match[1]), text, flags=re.DOTALL)
    named = re.sub(r"([{,]\s*)([A-Za-z_]\w*)\s*:", r'\1"\2":', quoted)
    value = _value(named)
    return value if isinstance(value, dict) else None


def _python_calls(code: str, names: Sequence[str]) -> list[ToolCall]:
    """Calls written in Python, with literal arguments by name; nothing is executed."""
    import ast

    try:
        tree = ast.parse(code.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _dotted(node.func)) and (not names or name in names):
            try:
                arguments = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
                positions = {str(index): ast.literal_eval(value) for index, value in enumerate(node.args)}
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
            out.append((node.lineno, node.col_offset, ToolCall(name, {**positions, **arguments})))
    return [call for _, _, call in sorted(out, key=lambda found: found[:2])]


def _dotted(node: Any) -> str:
    """The name of what is called, such as `calendar.add`; empty if it is no plain name."""
    if hasattr(node, "id"):
        return str(node.id)
    before = _dotted(node.value) if hasattr(node, "attr") else ""
    return f"{before}.{node.attr}" if before else ""


# -- gpt-oss -------------------------------------------------------------------------------------------------------

_HARMONY = re.compile(
    r"to=functions\.([\w.-]+)[^{]*?<\|message\|>(.*?)(?:<\|call\|>|<\|end\|>|(?=<\|start\|>)|\Z)",
    re.DOTALL,
)


def _harmony(answer: str, names: Sequence[str]) -> Found | None:
    calls = []
    for match in _HARMONY.finditer(answer):
        value = _value(match[2].strip() or "{}")
        if isinstance(value, dict):
            calls.append(ToolCall(match[1], value))
    if not calls:
        return None
    final = re.findall(r"<\|channel\|>final[^<]*<\|message\|>(.*?)(?:<\||\Z)", answer, re.DOTALL)
    return Found("".join(final), tuple(calls))


# -- JSON ----------------------------------------------------------------------------------------------------------


def _json_calls(text: str) -> list[ToolCall]:
    """All calls in a run of JSON values, which commas, semicolons or space may part; nothing if other text is there."""
    out: list[ToolCall] = []
    rest = text.strip()
    while rest:
        value, rest = _leading_json(rest)
        calls = _calls_in(value)
        if not calls:
            return []
        out += calls
        rest = rest.lstrip(" \t\r\n;,")
    return out


def _leading_json(text: str) -> tuple[Any, str]:
    """The JSON value at the beginning, and what follows it; (None, text) if there is none."""
    body = text.lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(body)
    except (ValueError, RecursionError):
        return None, text
    return value, body[end:]


def _calls_in(value: Any) -> list[ToolCall]:
    return list(_each(value)) if isinstance(value, (dict, list)) else []


def _each(value: Any) -> Iterator[ToolCall]:
    if isinstance(value, list):
        for part in value:
            yield from _each(part)
        return
    if not isinstance(value, dict):
        return
    inner = value.get("function")
    body = inner if isinstance(inner, dict) else value
    name = body.get("name") if not isinstance(inner, str) else inner
    arguments = next((body[key] for key in ("arguments", "parameters", "args") if key in body), None)
    if isinstance(arguments, str):
        arguments = _value(arguments)
    if isinstance(name, str) and name and (isinstance(arguments, dict) or arguments is None):
        yield ToolCall(name, arguments or {})


_FORMATS: tuple[Callable[[str, Sequence[str]], Found | None], ...] = (_harmony, _mistral, _qwen, _gemma, _llama)

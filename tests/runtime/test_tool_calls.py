"""Calls of tools in the formats that families write, as published answers of these models have them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacli.runtime.fenced import first_block
from llamacli.runtime.tool_calls import tool_calls

NAMES = ("get_weather", "add", "now")
ROME = ("get_weather", {"place": "Rome", "days": 3})
SUM = ("add", {"a": 1, "b": -2.5})
ROME_JSON = '{"place": "Rome", "days": 3}'

RECORDED: dict[str, tuple[str, list[tuple[str, dict[str, Any]]], str]] = {
    "qwen": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Rome", "days": 3}}\n</tool_call>',
        [ROME],
        "",
    ),
    "hermes, two and a word before": (
        'Let me look.\n<tool_call>\n{"arguments": {"place": "Rome", "days": 3}, "name": "get_weather"}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": -2.5}}\n</tool_call>',
        [ROME, SUM],
        "Let me look.",
    ),
    "qwen after thoughts": (
        '<think>\nI need the weather.\n</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        [("now", {})],
        "<think>\nI need the weather.\n</think>",
    ),
    "qwen without an end": ('<tool_call>\n{"name": "now", "arguments": {}}', [("now", {})], ""),
    "qwen coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=place>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        [ROME],
        "",
    ),
    "llama 3.1": ('{"name": "get_weather", "parameters": {"place": "Rome", "days": 3}}', [ROME], ""),
    "llama 3.1, two": (
        f'{{"name": "get_weather", "parameters": {ROME_JSON}}}; {{"name": "add", "parameters": {{"a": 1, "b": -2.5}}}}',
        [ROME, SUM],
        "",
    ),
    "llama 3.1, python tag": (
        f'<|python_tag|>{{"name": "get_weather", "parameters": {ROME_JSON}}}<|eom_id|>',
        [ROME],
        "",
    ),
    "llama 3.1, python tag and code": ('<|python_tag|>get_weather(place="Rome", days=3)', [ROME], ""),
    "llama 3, custom": (f"<function=get_weather>{ROME_JSON}</function>", [ROME], ""),
    "mistral, a list": (f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ROME_JSON}}}]', [ROME], ""),
    "mistral, with an id": (
        f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {ROME_JSON}, "id": "9Ae3bDc2F"}}]',
        [ROME],
        "",
    ),
    "mistral, names": (
        f'Sure.[TOOL_CALLS]get_weather{ROME_JSON}[TOOL_CALLS]add{{"a": 1, "b": -2.5}}',
        [ROME, SUM],
        "Sure.",
    ),
    "mistral, marked arguments": (f"[TOOL_CALLS]get_weather[ARGS]{ROME_JSON}", [ROME], ""),
    "mistral, marked id": (f"[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{ROME_JSON}", [ROME], ""),
    "gemma 3": ('```tool_code\nget_weather(place="Rome", days=3)\n```', [ROME], ""),
    "gemma 3, printed": ('```tool_code\nprint(get_weather(place="Rome", days=3))\n```', [ROME], ""),
    "gemma 3, JSON": (f'```json\n{{"name": "get_weather", "parameters": {ROME_JSON}}}\n```', [ROME], ""),
    "function gemma": (
        "<start_function_call>call:get_weather{place:<escape>Rome<escape>,days:3}<end_function_call>",
        [ROME],
        "",
    ),
    "gpt-oss": (
        "<|channel|>analysis<|message|>Need the weather.<|end|><|start|>assistant<|channel|>commentary "
        f"to=functions.get_weather <|constrain|>json<|message|>{ROME_JSON}<|call|>",
        [ROME],
        "",
    ),
    "gpt-oss, the name first": (
        f"<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{ROME_JSON}",
        [ROME],
        "",
    ),
    "openai's form": (
        '<tool_call>{"type": "function", "function": {"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": -2.5}"}}</tool_call>',
        [SUM],
        "",
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_answer_is_read(name: str) -> None:
    answer, calls, text = RECORDED[name]
    found = tool_calls(answer, NAMES)
    assert [(call.name, call.arguments) for call in found.calls] == calls
    assert found.text == text


@pytest.mark.parametrize(
    "answer",
    [
        "The weather in Rome is fine.",
        '{"name": "Anna", "age": 3}',
        '{"name": "unknown_tool", "parameters": {}}',
        "<tool_call>\nnot JSON\n</tool_call>",
        "```python\nget_weather(place='Rome')\n```",
        "```tool_code\nget_weather(place=open('x'))\n```",
        "Call get_weather(place='Rome') yourself.",
        "[TOOL_CALLS]get_weather",
        "[TOOL_CALLS][1, 2]",
        "",
        "<|python_tag|>" + "(" * 3000,
        "<tool_call>" + "[" * 100_000,
    ],
)
def test_what_is_no_call_stays_text(answer: str) -> None:
    assert tool_calls(answer, NAMES).calls == ()
    assert tool_calls(answer, NAMES).text == answer


@given(st.lists(st.sampled_from([answer for answer, _, _ in RECORDED.values()]), min_size=1, max_size=2), st.data())
def test_no_cut_of_an_answer_is_a_fault(answers: list[str], data: st.DataObject) -> None:
    text = "".join(answers)
    cut = text[data.draw(st.integers(0, len(text))) : data.draw(st.integers(0, len(text)))]
    for call in tool_calls(cut, NAMES).calls:
        json.dumps(call.as_dict())


def test_the_first_block_of_code_is_found() -> None:
    answer = "Two:\n```sh\nls\n```\nand\n\n~~~python title\nprint('```')\n~~~\n"
    assert first_block(answer) == "ls"
    assert first_block(answer, "python") == "print('```')"
    assert first_block(answer, "Rust") is None and first_block("no block") is None
    assert first_block("```\nopen\nend") == "open\nend"
    assert first_block("  ```py\n  if x:\n      y\n  ```") == "if x:\n    y"
    assert first_block("```\n```") == ""
    assert first_block("````md\n```\ninner\n```\n````") == "```\ninner\n```"

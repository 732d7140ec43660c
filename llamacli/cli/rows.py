"""Rows for `map`: from lines, NUL-separated text, JSON lines or CSV to prompts, and from answers to rows again."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from llamacli.cli.text_rows import is_text
from llamacli.errors import UsageError

INPUTS = ("lines", "jsonl", "csv", "nul")
OUTPUTS = ("text", "jsonl", "csv")
_PLACE = re.compile(r"\{([A-Za-z_][\w-]*)\}")
LINE = "line"
LARGEST_FIELD = 16 << 20
"""Characters; more text than any context holds."""


@dataclass(frozen=True)
class Row:
    """One row: `raw` as it stood in the input, `text` for {line}, `fields` by name; `fault` says why it is unusable."""

    number: int
    raw: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


def rows_from(stream: TextIO, kind: str, key: str) -> Iterator[Row]:
    """The rows of a stream as they come; empty lines are no rows. `key` is the field that {line} stands for.

    A row whose bytes are no UTF-8 has a fault. Raises UsageError for CSV that cannot be told apart.
    """
    for row in _rows(stream, kind, key):
        yield row if row.fault or is_text(row.raw) else replace(row, fault="it is not UTF-8 text")


def _rows(stream: TextIO, kind: str, key: str) -> Iterator[Row]:
    if kind == "csv":
        yield from _csv_rows(stream, key)
        return
    parts = _pieces(stream, "\0") if kind == "nul" else (line.rstrip("\r\n") for line in stream)
    for number, raw in enumerate((part for part in parts if part.strip()), 1):
        yield _json_row(number, raw, key) if kind == "jsonl" else Row(number, raw, raw)


def _pieces(stream: TextIO, end: str) -> Iterator[str]:
    rest = ""
    while block := stream.read(1 << 16):
        *whole, rest = (rest + block).split(end)
        yield from whole
    yield rest


def _json_row(number: int, raw: str, key: str) -> Row:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return Row(number, raw, raw, fault="this line is not JSON")
    if not isinstance(value, dict):
        return Row(number, raw, _plain(value), fault=f"there is no field {key}: it is no object" if key else "")
    return _with_key(number, raw, value, key)


def _csv_rows(stream: TextIO, key: str) -> Iterator[Row]:
    csv.field_size_limit(LARGEST_FIELD)
    reader = csv.DictReader(stream)
    try:
        names = list(reader.fieldnames or ())
        if twice := next((name for index, name in enumerate(names) if name in names[:index]), None):
            raise UsageError(f"the column {twice!r} comes twice", "give each a name of its own")
        yield from _records(reader, key)
    except csv.Error as error:
        raise UsageError(f"the CSV cannot be read near line {reader.line_num}: {error}") from None


def _records(reader: csv.DictReader[str], key: str) -> Iterator[Row]:
    for number, record in enumerate(reader, 1):
        values = {str(name): value or "" for name, value in record.items() if name is not None}
        raw = _csv_line([str(value) for value in values.values()])
        row = _with_key(number, raw, values, key)
        yield Row(number, raw, row.text, values, "more columns than headings" if None in record else row.fault)


def _with_key(number: int, raw: str, values: Mapping[str, Any], key: str) -> Row:
    if key and key not in values:
        return Row(number, raw, raw, values, f"there is no field {key}")
    return Row(number, raw, _plain(values[key]) if key else raw, values)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def filled(prompt: str, row: Row) -> str:
    """The prompt for a row: {line} and {field} replaced, or the row behind it where it names neither.

    Braces around anything else stay as they are. Raises UsageError for a field that the row does not have.
    """
    named = False

    def replaced(found: re.Match[str]) -> str:
        nonlocal named
        name = found[1]
        if name != LINE and not row.fields:
            return found[0]
        named = True
        if name == LINE and LINE not in row.fields:
            return row.text
        if name not in row.fields:
            raise UsageError(f"there is no field {name}")
        return _plain(row.fields[name])

    text = _PLACE.sub(replaced, prompt)
    return text if named else f"{prompt}\n\n{row.text}"


@dataclass(frozen=True)
class Answer:
    """What came of a row; `value` where the answer is JSON by a schema."""

    text: str = ""
    finish: str = "stop"
    error: str = ""
    value: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)


class RowOutput:
    """Writes answers in one of the three forms, one line (or record) each."""

    def __init__(self, kind: str, write: Any) -> None:
        self._kind, self._write = kind, write
        self._headed = False

    def answer(self, row: Row, answer: Answer) -> None:
        """One row's answer, or its error."""
        if self._kind == "jsonl":
            self._write(json.dumps(_object(row, answer), ensure_ascii=False) + "\n")
        elif self._kind == "csv":
            self._csv(row, answer)
        else:
            text = json.dumps({"error": answer.error}, ensure_ascii=False) if answer.error else one_line(answer.text)
            self._write(text + "\n")

    def _csv(self, row: Row, answer: Answer) -> None:
        names, values = list(row.fields) or [LINE], [_plain(v) for v in row.fields.values()] or [row.text]
        text = ""
        if not self._headed:
            text = _csv_line([*names, "answer", "error"]) + "\n"
            self._headed = True
        self._write(text + _csv_line([*values, answer.text, answer.error]) + "\n")


def one_line(text: str) -> str:
    """A text without line breaks, so that answers stay beside their rows."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip())


def _object(row: Row, answer: Answer) -> dict[str, Any]:
    if answer.error:
        return {"row": row.number, "error": answer.error}
    body = {"value": answer.value} if answer.value is not None else {"text": answer.text}
    return {"row": row.number, **body, "finish": answer.finish, **answer.more}


def _csv_line(values: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()


def rows_done(lines: list[str], torn: str = "") -> int:
    """How many rows a file of `--out jsonl` holds; its lines must be whole and in order. Raises UsageError.

    `torn` is the beginning of a further line: it may be lost only if it is ours.
    """
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)["row"]
        except (ValueError, KeyError, TypeError):
            found = None
        if found != number:
            raise UsageError(f"line {number} of the file to resume is not the answer to row {number}")
    begun = f'{{"row": {len(lines) + 1},'
    if not (torn.startswith(begun) or begun.startswith(torn)):
        raise UsageError("the end of the file to resume is not the beginning of an answer")
    return len(lines)

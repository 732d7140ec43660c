"""`llamacli show MODEL`: what a model file contains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from llamacli.cli.console import clean
from llamacli.cli.context import Context
from llamacli.cli.options import ModelArg
from llamacli.cli.remote import header_of
from llamacli.cli.screen.receipt import receipt_lines
from llamacli.errors import NotFound, PredicateFalse
from llamacli.formats.gguf_reader import GGUF
from llamacli.library.describe import chat_template, describe, plain, quantization_mix, readable

LICENSE_KEYS = ("general.license.name", "general.license", "general.license.link")


def show_command(
    context: typer.Context,
    model: ModelArg = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Every tensor with shape, type and size.")] = False,
    template: Annotated[bool, typer.Option("--template", help="The chat template as it is.")] = False,
    license_: Annotated[bool, typer.Option("--license", help="The licence.")] = False,
    kv: Annotated[str, typer.Option("--kv", metavar="KEY", help="One metadata value; KEY may begin with {arch}.")] = "",
    keys: Annotated[bool, typer.Option("--keys", help="All metadata keys with their types.")] = False,
) -> None:
    """Show what a model contains. Reads headers only, also of a model on the Hub; of a checkpoint, what it would be as GGUF.

    \b
    llamacli show model.gguf
    llamacli show model.gguf --kv llama.context_length
    llamacli show model.gguf --tensors --json
    llamacli show bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M
    llamacli show Qwen/Qwen3-8B
    """
    here: Context = context.obj
    with header_of(here, model) as gguf:
        _show(here, gguf, tensors, template, license_, kv, keys)


def _show(here: Context, gguf: GGUF, tensors: bool, template: bool, license_: bool, kv: str, keys: bool) -> None:
    if tensors:
        _show_tensors(here, gguf)
    elif template:
        _show_text(here, chat_template(gguf), "chat template")
    elif license_:
        lines = [readable(gguf.get(key)) for key in LICENSE_KEYS if gguf.get(key)]
        _show_text(here, "\n".join(dict.fromkeys(lines)), "licence")
    elif kv:
        _show_value(here, gguf, kv)
    elif keys:
        _show_keys(here, gguf)
    else:
        _show_summary(here, gguf)


def _show_summary(here: Context, gguf: GGUF) -> None:
    facts = describe(gguf)
    if here.console.json_output:
        here.console.result("", facts)
        return
    rows = [(name, value) for name, value in _summary(facts) if value]
    width = max(len(name) for name, _ in rows)
    here.console.write("".join(f"{name:<{width}}  {clean(value)}\n" for name, value in rows))
    shares = quantization_mix(gguf)
    if shares:
        here.console.write("\n")
        here.console.table(
            ("type", "tensors", "weights", "bytes", "share"),
            [
                (s.type, s.tensors, s.weights, s.size_bytes, f"{100 * s.size_bytes / gguf.size_bytes:.1f} %")
                for s in shares
            ],
        )


def _summary(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts in words, for people."""
    yield "model", facts["name"]
    yield "file", facts["files"][0] + (f" and {len(facts['files']) - 1} more" if len(facts["files"]) > 1 else "")
    bits = f"{facts['bits_per_weight']:.2f} bits per weight" if facts["parameters"] else "no weights"
    yield "size", f"{bytes_text(facts['size_bytes'])}, {bits}"
    yield "quantization", facts["file_type"] if facts["parameters"] else ""
    yield "parameters", count_text(facts["parameters"]) if facts["parameters"] else ""
    yield "architecture", _architecture(facts)
    yield "context", f"{_short(facts['context_length'])} tokens" if facts["context_length"] else ""
    pre = f", {facts['pre_tokenizer']}" if facts["pre_tokenizer"] else ""
    yield "vocabulary", f"{facts['vocabulary']:,} tokens ({facts['tokenizer']}{pre})" if facts["vocabulary"] else ""
    yield (
        "special",
        ", ".join(f"{name} {one['id']} {json.dumps(one['text'], ensure_ascii=False)}"
                  for name, one in facts["special_tokens"].items()),
    )  # fmt: skip
    yield "template", (", ".join(facts["template_features"]) or "plain turns") if facts["template"] else "none"
    yield "sampling", ", ".join(f"{name} {_short(value)}" for name, value in facts["sampling"].items())
    yield "licence", facts["license"]
    yield "source", facts["source"]
    yield from receipt_lines(facts["receipt"])


def _architecture(facts: dict[str, Any]) -> str:
    parts = [facts["architecture"]]
    if facts["blocks"]:
        parts.append(f"{_short(facts['blocks'])} blocks")
    if facts["embedding_length"]:
        parts.append(f"width {_short(facts['embedding_length'])}")
    if facts["heads"]:
        parts.append(f"heads {_short(facts['heads'])}/{_short(facts['heads_kv'])}")
    if facts["experts"]:
        parts.append(f"{_short(facts['experts_used'])} of {_short(facts['experts'])} experts")
    if facts["sliding_window"]:
        parts.append(f"window {_short(facts['sliding_window'])}")
    return ", ".join(parts)


def _show_tensors(here: Context, gguf: GGUF) -> None:
    rows = [(t.name, "x".join(map(str, t.shape)), t.type.name, t.size_bytes) for t in gguf.tensors]
    data = [
        {"name": t.name, "shape": list(t.shape), "type": t.type.name, "bytes": t.size_bytes, "offset": t.offset,
         "file": str(gguf.paths[t.part])}
        for t in gguf.tensors
    ]  # fmt: skip
    here.console.table(("name", "shape", "type", "bytes"), rows, data)


def _show_keys(here: Context, gguf: GGUF) -> None:
    rows = []
    for key, value in gguf.metadata.items():
        kind = value.type.name.lower()
        if value.element is not None:
            kind = f"{value.element.name.lower()}[{len(value.value)}]"
        rows.append((key, kind, _short(plain(value.value)) if value.element is None else ""))
    here.console.table(("key", "type", "value"), rows, [{"key": row[0], "type": row[1]} for row in rows])


def _show_value(here: Context, gguf: GGUF, key: str) -> None:
    value = gguf.get(key)
    if value is None:
        near = [other for other in gguf.metadata if key.rpartition(".")[2] in other][:5]
        raise NotFound(
            f"{gguf.path.name} has no key {key}", f"near: {', '.join(near)}" if near else "--keys lists the keys"
        )
    value = plain(value)
    if here.console.json_output:
        here.console.result("", value)
    elif isinstance(value, list):
        here.console.write("".join(clean(str(item)).replace("\n", "\\n") + "\n" for item in value))
    else:
        here.console.write(clean(str(value)) + "\n")


def _show_text(here: Context, text: str, what: str) -> None:
    if not text:
        raise PredicateFalse(f"the model has no {what}")
    if here.console.json_output:
        here.console.result("", text)
    else:
        here.console.write(clean(text) + ("" if text.endswith("\n") else "\n"))


def _short(value: Any) -> str:
    """One line of at most 60 characters."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return f"{min(value):,} to {max(value):,}"
    text = str(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."


def count_text(count: int) -> str:
    """A number of parameters as people say it: 656 K, 2.1 M, 8.03 B."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def bytes_text(count: int) -> str:
    """A size in powers of ten, as disks are sold and downloads are counted."""
    for size, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"

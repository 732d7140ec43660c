"""How the model answers: system prompt, sampling, thinking, template, model."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from llamacli.cli.screen.model import thinking_of
from llamacli.cli.screen.slash.command import Slash
from llamacli.errors import UsageError
from llamacli.runtime.messages import Sampling

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk

_NOT_SET_HERE = ("logit_bias", "grammar")
_LEAST = {"temp": 0.0, "top_k": 0, "top_p": 0.0, "min_p": 0.0, "typical_p": 0.0, "repeat_penalty": 0.0, "predict": -1}
_MOST = {"top_p": 1.0, "min_p": 1.0, "typical_p": 1.0, "xtc_probability": 1.0, "mirostat": 2}


def settable() -> tuple[str, ...]:
    """The names that `/set` knows."""
    return tuple(field.name for field in fields(Sampling) if field.name not in _NOT_SET_HERE)


def _system(talk: Talk, argument: str) -> None:
    if not argument:
        talk.say(f"system prompt: {talk.chat.system}" if talk.chat.system else "there is no system prompt")
        return
    text = "" if argument == '""' else argument
    talk.set_system(text)
    talk.say("system prompt set; the conversation goes on" if text else "system prompt removed")


def _set(talk: Talk, argument: str) -> None:
    name, _, value = argument.partition(" ")
    name, value = name.replace("-", "_"), value.strip()
    if not name:
        default = Sampling()
        for known in settable():
            now = getattr(talk.sampling, known)
            talk.say(f"{'*' if now != getattr(default, known) else ' '} {known} {_shown(now)}")
        return
    if name not in settable():
        raise UsageError(f"no setting {name!r}", f"settings: {' '.join(settable())}")
    if value:
        talk.sampling = replace(talk.sampling, **{name: _value(name, value)})
    talk.say(f"{name} {_shown(getattr(talk.sampling, name))}")


def _value(name: str, text: str) -> Any:
    """`text` as the type of the setting. Raises UsageError."""
    kind = next(str(field.type) for field in fields(Sampling) if field.name == name)
    if kind.startswith("tuple"):
        return () if text == '""' else (text.replace("\\n", "\n"),)
    if kind == "bool":
        return _switch(name, text)
    if kind.endswith("None") and text in ("none", "auto", "-1"):
        return None
    try:
        value = float(text) if kind == "float" else int(text)
    except ValueError:
        raise UsageError(f"/set {name} {text}: not a {'number' if kind == 'float' else 'whole number'}") from None
    if not math.isfinite(value) or not _LEAST.get(name, -math.inf) <= value <= _MOST.get(name, math.inf):
        raise UsageError(f"/set {name} {text}: out of range")
    return value


def _switch(name: str, text: str) -> bool:
    words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
    if text.lower() not in words:
        raise UsageError(f"/set {name} {text}: on or off")
    return words[text.lower()]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(repr(item) for item in value) or "none"
    return "auto" if value is None else f"{value}"


def _think(talk: Talk, argument: str) -> None:
    if argument == "show":
        thoughts = talk.last.reasoning if talk.last else ""
        talk.say(thoughts or "no thoughts were told", dim=True)
    elif argument:
        talk.model.session.thinking = thinking_of(argument)
        talk.say(f"thinking: {talk.model.thinking}")
    else:
        talk.say(f"thinking: {talk.model.thinking}  (/think on, off, auto, N tokens; /think show)")


def _schema(talk: Talk, argument: str) -> None:
    if argument.lower() in ("off", "none"):
        talk.sampling = replace(talk.sampling, grammar="")
    elif argument:
        from llamacli.cli.answer_form import schema_text
        from llamacli.runtime.constrain import by_schema

        talk.sampling = replace(talk.sampling, grammar=by_schema(schema_text(talk.context, argument)).grammar)
    talk.say("answers are held to a schema" if talk.sampling.grammar else "answers are free")


def _template(talk: Talk, argument: str) -> None:
    if argument:
        talk.model.use_template(argument)
        talk.say(f"template: {argument}")
    else:
        talk.say(talk.model.session.template.source)


def _model(talk: Talk, argument: str) -> None:
    if argument:
        talk.change_model(argument)
    talk.say(talk.headline())


COMMANDS = (
    Slash("system", '[TEXT|""]', "Show, set or remove the system prompt.", _system),
    Slash("set", "[NAME VALUE]", "Show or change how answers are sampled: /set temp 0.3", _set, completes="settings"),
    Slash("think", "[on|off|auto|N|show]", "Whether the model thinks first; show the last thoughts.", _think),
    Slash(
        "schema",
        "[FILE|FIELDS|off]",
        "Hold answers to JSON of a form: /schema name, age int",
        _schema,
        completes="files",
    ),
    Slash("template", "[NAME|FILE]", "Show or change the chat template.", _template, completes="files"),
    Slash("model", "[MODEL]", "Show the model, or go on with another one.", _model, completes="models"),
)

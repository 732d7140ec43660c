"""The flags of every command that talks to a model: how it is loaded, and how the next token is chosen.

A command takes them by naming `EXTRA_OPTIONS = (add_engine_options,)` in its module; their values wait in Click's
context, from which `engine_settings` and `sampling` make the runtime's own values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llamacli.cli.configuration import configured
from llamacli.cli.shared_options import SharedOptions, add_options
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.cli.context import Context
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.messages import Sampling

_FLAGS = SharedOptions("engine_options")
_option, _typed = _FLAGS.option, _FLAGS.choice


def add_engine_options(command: Any) -> None:
    """Give `command` the flags of loading and sampling; they do not reach its function."""
    add_options(command, _loading)
    add_options(command, _sampling)


def add_loading_options(command: Any) -> None:
    """Give `command` the flags of loading only; they do not reach its function."""
    add_options(command, _loading)


def given_engine_options(context: typer.Context) -> Mapping[str, Any]:
    """The flags that the user gave, by the names of EngineSettings and Sampling."""
    return _FLAGS.given(context)


def engine_settings(context: typer.Context, env: Mapping[str, str]) -> EngineSettings:
    """How the model is to be loaded. Raises UsageError for a value that makes no sense."""
    from llamacli.runtime.engine import EngineSettings

    values = _configured(context)
    values.update(_FLAGS.given(context))
    out: dict[str, Any] = {}
    for name in (field.name for field in fields(EngineSettings)):
        if name in values:
            out[name] = _LOADING.get(name, _same)(values[name])
    return EngineSettings(**out)


def show_engine_log(here: Context) -> None:
    """With -vv, the engine's own log from now on, line by line."""
    from llamacli.runtime import bindings

    if here.console.verbose >= 2:
        bindings.load()
        bindings.listen(here.console.status)


def sampling(context: typer.Context, default: Sampling) -> Sampling:
    """`default` (the model's own settings) with the flags that were given."""
    values = {**_configured(context), **_FLAGS.given(context)}
    names = {field.name for field in fields(default)}
    changes = {name: _SAMPLING.get(name, _same)(value) for name, value in values.items() if name in names}
    return replace(default, **changes)


def _configured(context: typer.Context) -> dict[str, Any]:
    """What variables and files of settings say."""
    found = configured(context.obj)
    for name, setting in found.items():
        check_setting(name, setting.value, setting.source)
    return {name: setting.value for name, setting in found.items()}


def check_setting(name: str, value: Any, where: str) -> None:
    """Raise UsageError for a setting that its flag would refuse."""
    _FLAGS.check(name, value, where)


def _same(value: Any) -> Any:
    return value


def _context_size(value: Any) -> int | None:
    if str(value).lower() == "auto":
        return None
    return _whole("--ctx-size", value, 0, "auto, or a number of tokens") or None


def _layers(value: Any) -> int | None:
    return _of_layers("--gpu-layers", value)


def _experts(value: Any) -> int | None:
    return _of_layers("--n-cpu-moe", value)


def _of_layers(flag: str, value: Any) -> int | None:
    from llamacli.runtime.engine import ALL_LAYERS

    words = {"auto": None, "all": ALL_LAYERS}
    word = str(value).lower()
    return words[word] if word in words else _whole(flag, value, 0, "auto, all, or a number of layers")


def _threads(value: Any) -> int:
    return _whole("--threads", value, 1)


def _whole(flag: str, value: Any, least: int, hint: str = "") -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise UsageError(f"{flag} {value}: not a whole number", hint) from None
    if number < least:
        raise UsageError(f"{flag} {value}: at least {least}", hint)
    return number


def _loras(values: list[str]) -> tuple[tuple[str, float], ...]:
    """`FILE` or `FILE:SCALE`."""
    out = []
    for value in values:
        path, _, scale = value.rpartition(":")
        try:
            pair = (path, float(scale)) if path else (value, 1.0)
        except ValueError:  # a colon of the path itself
            pair = (value, 1.0)
        if not Path(pair[0]).is_file():
            raise UsageError(f"--lora {value}: no such file")
        out.append(pair)
    return tuple(out)


def _logit_bias(values: list[str]) -> tuple[tuple[int, float], ...]:
    """`TOKEN+BIAS` or `TOKEN-BIAS`, as in llama.cpp."""
    out = []
    for value in values:
        cut = max(value.rfind("+"), value.rfind("-"))
        try:
            token, bias = int(value[:cut]), float(value[cut:])
        except ValueError:
            token, bias = -1, math.nan
        if token < 0 or math.isnan(bias):
            raise UsageError(f"--logit-bias {value}: a token id and a bias, such as 15043+1 or 15043-inf")
        out.append((token, bias))
    return tuple(out)


_LOADING: dict[str, Any] = {
    "ctx_size": _context_size,
    "gpu_layers": _layers,
    "cpu_moe": _experts,
    "threads": _threads,
    "loras": _loras,
    "devices": tuple,
}
_SAMPLING: dict[str, Any] = {"stop": tuple, "logit_bias": _logit_bias, "seed": lambda seed: None if seed < 0 else seed}


def _pull(context: typer.Context, value: bool | None) -> bool | None:
    if value:
        context.obj.console.pull = True
    return value


CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""Types that llama.cpp accepts for the KV cache."""


def _loading(
    ctx_size: str | None = _option(
        "ctx_size", "-c", "--ctx-size", metavar="N|auto", text="Tokens that the conversation may hold."
    ),
    gpu_layers: str | None = _option(
        "gpu_layers", "-ngl", "--gpu-layers", "--n-gpu-layers", metavar="auto|all|N", text="Layers kept on the GPU."
    ),
    cpu_moe: str | None = _option(
        "cpu_moe", "-ncmoe", "--n-cpu-moe", metavar="auto|all|N", text="Layers whose experts stay in main memory."
    ),
    threads: str | None = _option("threads", "-t", "--threads", metavar="N", text="Threads for generation."),
    threads_batch: int | None = _option(
        "threads_batch", "-tb", "--threads-batch", metavar="N", text="Threads for reading the prompt.", min=1
    ),
    batch: int | None = _option(
        "batch", "-b", "--batch-size", metavar="N", text="Tokens of a prompt read at once.", min=1
    ),
    ubatch: int | None = _option("ubatch", "-ub", "--ubatch-size", metavar="N", text="Of those, at a time.", min=1),
    flash_attn: str | None = _typed(
        "flash_attn",
        "-fa",
        "--flash-attn",
        metavar="on|off|auto",
        text="Flash attention.",
        allowed=("on", "off", "auto"),
    ),
    cache_type_k: str | None = _typed(
        "cache_type_k", "-ctk", "--cache-type-k", metavar="TYPE", text="Type of the K cache.", allowed=CACHE_TYPES
    ),
    cache_type_v: str | None = _typed(
        "cache_type_v", "-ctv", "--cache-type-v", metavar="TYPE", text="Type of the V cache.", allowed=CACHE_TYPES
    ),
    devices: list[str] | None = _option(
        "devices", "-dev", "--device", metavar="NAME", text="Devices to use (repeat for several)."
    ),
    power: int | None = _option(
        "power", "--power", metavar="1-100", text="Per cent of the time to compute in.", min=1, max=100
    ),
    draft: str | None = _typed(
        "draft",
        "--draft",
        metavar="auto|on|off",
        text="Guess tokens from the text before; auto: where measured to pay.",
        allowed=("auto", "on", "off"),
    ),
    mmap: bool | None = _option("mmap", "--mmap/--no-mmap", text="Map the file instead of reading it."),
    pull: bool | None = typer.Option(
        None, "--pull", help="Download the model if it is not here.", expose_value=False, callback=_pull
    ),
    loras: list[str] | None = _option("loras", "--lora", metavar="FILE[:SCALE]", text="A LoRA adapter in GGUF."),
) -> None:
    """How the model is loaded."""


def _sampling(
    predict: int | None = _option(
        "predict",
        "-n",
        "--predict",
        "--n-predict",
        metavar="N",
        text="Most tokens of an answer; -1: as it comes.",
        min=-1,
    ),
    temp: float | None = _option("temp", "--temp", metavar="T", text="Temperature; 0: always the best token.", min=0),
    top_k: int | None = _option("top_k", "--top-k", metavar="K", text="Choose among the K best; 0: all.", min=0),
    top_p: float | None = _option("top_p", "--top-p", metavar="P", text="Choose among the best with P.", min=0, max=1),
    min_p: float | None = _option(
        "min_p", "--min-p", metavar="P", text="Drop what is less likely than P times the best.", min=0, max=1
    ),
    top_n_sigma: float | None = _option(
        "top_n_sigma", "--top-n-sigma", metavar="N", text="Drop logits further than N deviations from the best.", min=0
    ),
    typical_p: float | None = _option("typical_p", "--typical", metavar="P", text="Locally typical.", min=0, max=1),
    repeat_penalty: float | None = _option(
        "repeat_penalty", "--repeat-penalty", metavar="X", text="Against repetition; 1: none.", min=0
    ),
    repeat_last_n: int | None = _option(
        "repeat_last_n", "--repeat-last-n", metavar="N", text="Tokens looked back for it.", min=-1
    ),
    presence_penalty: float | None = _option("presence_penalty", "--presence-penalty", metavar="X", text="As OpenAI."),
    frequency_penalty: float | None = _option(
        "frequency_penalty", "--frequency-penalty", metavar="X", text="As OpenAI."
    ),
    xtc_probability: float | None = _option(
        "xtc_probability", "--xtc-probability", metavar="P", text="Chance to exclude the top choices.", min=0, max=1
    ),
    xtc_threshold: float | None = _option(
        "xtc_threshold", "--xtc-threshold", metavar="P", text="What is a top choice.", min=0, max=1
    ),
    dry_multiplier: float | None = _option(
        "dry_multiplier", "--dry-multiplier", metavar="X", text="Don't repeat yourself; 0: off.", min=0
    ),
    dry_base: float | None = _option("dry_base", "--dry-base", metavar="X", text="How fast it grows."),
    dry_allowed_length: int | None = _option(
        "dry_allowed_length", "--dry-allowed-length", metavar="N", text="Repetition that is free.", min=0
    ),
    dry_penalty_last_n: int | None = _option(
        "dry_penalty_last_n", "--dry-penalty-last-n", metavar="N", text="Tokens looked back for it.", min=-1
    ),
    mirostat: int | None = _option(
        "mirostat", "--mirostat", metavar="0|1|2", text="Hold the perplexity.", min=0, max=2
    ),
    mirostat_tau: float | None = _option("mirostat_tau", "--mirostat-ent", metavar="X", text="Its target entropy."),
    mirostat_eta: float | None = _option("mirostat_eta", "--mirostat-lr", metavar="X", text="Its learning rate."),
    logit_bias: list[str] | None = _option(
        "logit_bias", "-l", "--logit-bias", metavar="TOKEN+BIAS", text="Make a token more or less likely."
    ),
    seed: int | None = _option("seed", "-s", "--seed", metavar="N", text="The same answer again; -1: a fresh one."),
    stop: list[str] | None = _option("stop", "--stop", metavar="TEXT", text="End the answer before TEXT."),
    logprobs: int | None = _option(
        "logprobs", "--logprobs", metavar="N", text="With --json: how likely each token was, and the N best.", min=0
    ),
    ignore_eos: bool | None = _option("ignore_eos", "--ignore-eos", text="Go on past the end of the answer."),
) -> None:
    """How the next token is chosen."""

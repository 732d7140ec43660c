"""`llamacli help TOPIC`: what is documented beside the commands."""

from __future__ import annotations

import typer

from llamacli.cli.context import Context
from llamacli.errors import EXIT_CODES, NotFound

ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("LLAMACLI_MODEL", "the model that commands use when none is named"),
    ("LLAMACLI_HOME", "one folder for settings, conversations and caches"),
    ("HF_TOKEN, HF_TOKEN_PATH", "token for gated models; sent to the Hub only"),
    ("HF_HOME, HF_HUB_CACHE", "where downloaded models live"),
    ("HF_ENDPOINT, MODEL_ENDPOINT", "another Hub"),
    ("HF_HUB_OFFLINE", "never use the network"),
    ("NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, TERM", "colour on the terminal"),
    ("LLAMA_ARG_CTX_SIZE, LLAMA_ARG_N_GPU_LAYERS, LLAMA_ARG_THREADS", "as llama.cpp reads them"),
    ("LLAMACLI_CONFIG", "another file instead of config.toml"),
    ("LLAMACLI_CACHE_SIZE", "how much the prompt cache may hold; 0 for none"),
    ("LLAMACLI_<FLAG>", "any flag of loading and sampling, such as LLAMACLI_TEMP=0.3; see llamacli config explain"),
)

MODELS: tuple[tuple[str, str], ...] = (
    ("user/repo", "a model on the Hub; the best quantization for this machine, once downloaded"),
    ("user/repo:Q5_K_M", "with this quantization; case does not matter"),
    ("user/repo:file.gguf", "exactly this file"),
    ("user/repo@rev:Q4_K_M", "at a branch, tag or commit"),
    ("./model.gguf, ~/x.gguf", "a file here; of a split model the first part"),
    ("ollama:llama3.2:3b", "a model that Ollama has on this computer"),
    ("lms:publisher/model", "a model that LM Studio has on this computer"),
    ("NAME", "an alias (llamacli alias), or a name of the catalog"),
    ("nothing, or -", "the default model (llamacli default, LLAMACLI_MODEL)"),
)

PRIVACY: tuple[tuple[str, str], ...] = (
    ("what is sent", "nothing but the downloads that you ask for: no telemetry, no check for updates"),
    ("doctor", "asks the Hub whether it is there and knows your token; not with --offline"),
    ("to whom", "the Hub (HF_ENDPOINT), and where it redirects downloads; --offline forbids it all"),
    ("your token", "goes to the Hub alone, never to a server it redirects to, never into messages"),
    ("conversations", "chat saves them on this computer, readable by you alone; --no-save keeps nothing"),
    (
        "prompts",
        "run keeps none; the beginnings of long ones are cached as states of the model (--cache off, cache clear)",
    ),
    ("models", "files are data: they are checked before use, and their templates run in a sandbox"),
)

TOPICS: dict[str, tuple[tuple[str, str], tuple[tuple[object, str], ...]]] = {
    "exit-codes": (("code", "meaning"), EXIT_CODES),
    "env": (("variable", "meaning"), ENVIRONMENT),
    "models": (("name", "means"), MODELS),
    "privacy": (("subject", "what is so"), PRIVACY),
}
_ALSO = {"exit": "exit-codes", "environment": "env", "model": "models"}


def help_command(
    context: typer.Context,
    topic: str = typer.Argument("", metavar="[TOPIC]", help="exit-codes, env, models, privacy, or a command."),
) -> None:
    """Explain exit codes, environment variables, names of models, privacy, or a command.

    \b
    llamacli help exit-codes
    llamacli help env
    llamacli help run
    """
    here: Context = context.obj
    name = _ALSO.get(topic, topic)
    if name in TOPICS:
        here.console.table(*TOPICS[name])
    else:
        _command_help(context, topic)


def _command_help(context: typer.Context, topic: str) -> None:
    here: Context = context.obj
    group = context.parent
    assert group is not None
    if not topic:
        here.console.write(group.get_help().rstrip() + "\n")
        return
    command = group.command.get_command(group, topic)  # type: ignore[attr-defined]
    if command is None:
        raise NotFound(f"no help on {topic!r}", f"topics: {', '.join(TOPICS)}, or any command of llamacli --help")
    with command.make_context(topic, [], parent=group, resilient_parsing=True) as inner:
        here.console.write(command.get_help(inner).rstrip() + "\n")

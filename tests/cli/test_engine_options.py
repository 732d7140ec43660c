"""The flags of loading and sampling: llama.cpp's names, checked values, one spelling for every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from llamacli.cli.context import Context
from llamacli.cli.engine_options import add_engine_options, engine_settings, sampling
from llamacli.errors import UsageError
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.messages import Sampling

Values = tuple[EngineSettings, Sampling]


@pytest.fixture
def parse(context: Callable[..., Context]) -> Callable[..., Values]:
    """The settings that a command line amounts to."""

    def run(*arguments: str, env: dict[str, str] | None = None, default: Sampling | None = None) -> Values:
        seen: list[Values] = []

        def command(here: typer.Context) -> None:
            seen.append((engine_settings(here, env or {}), sampling(here, default or Sampling())))

        app = typer.Typer(add_completion=False)
        app.command("x")(command)
        built: Any = typer.main.get_command(app)
        add_engine_options(built)
        built.main(list(arguments), standalone_mode=False, obj=context(**(env or {})))
        return seen[0]

    return run


def test_without_flags_nothing_is_chosen(parse: Callable[..., Values]) -> None:
    assert parse() == (EngineSettings(), Sampling())


def test_flags_are_spelled_as_in_llama_cpp(parse: Callable[..., Values]) -> None:
    line = "-ngl 99 -n32 -c 512 -t 3 -tb 4 -b 64 -ub 32 -fa on -ctk q8_0 -ctv q4_0 --no-mmap --temp 0 -s 7 --stop a --stop b"
    settings, chosen = parse(*line.split())
    assert settings == EngineSettings(
        ctx_size=512, gpu_layers=99, threads=3, threads_batch=4, batch=64, ubatch=32, flash_attn="on",
        cache_type_k="q8_0", cache_type_v="q4_0", mmap=False,
    )  # fmt: skip
    assert chosen == Sampling(temp=0.0, seed=7, stop=("a", "b"), predict=32)


def test_flags_win_over_the_environment_and_the_environment_over_nothing(parse: Callable[..., Values]) -> None:
    env = {"LLAMA_ARG_CTX_SIZE": "1024", "LLAMA_ARG_THREADS": "2", "LLAMA_ARG_N_GPU_LAYERS": "all"}
    settings, _ = parse("-t", "5", env=env)
    assert (settings.ctx_size, settings.threads) == (1024, 5)
    assert settings.gpu_layers is not None and settings.gpu_layers > 1000


def test_flags_win_over_the_models_own_sampling(parse: Callable[..., Values]) -> None:
    _, chosen = parse("--temp", "0.1", default=Sampling(temp=0.6, top_p=0.8))
    assert (chosen.temp, chosen.top_p) == (0.1, 0.8)


def test_auto_means_what_suits_the_machine(parse: Callable[..., Values]) -> None:
    assert parse("-c", "auto", "-ngl", "auto", "-s", "-1") == (EngineSettings(), Sampling())


def test_a_bias_names_a_token_and_a_sign(parse: Callable[..., Values]) -> None:
    _, chosen = parse("-l", "12-inf", "-l", "3+1.5")
    assert chosen.logit_bias == ((12, float("-inf")), (3, 1.5))


def test_an_adapter_may_have_a_scale(parse: Callable[..., Values], tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.touch()
    settings, _ = parse("--lora", str(file), "--lora", f"{file}:0.5")
    assert settings.loras == ((str(file), 1.0), (str(file), 0.5))


@pytest.mark.parametrize(
    "line",
    ["-c many", "-c -5", "-ngl some", "-t 0", "-t x", "-fa maybe", "-ctk q9", "--temp -1", "--temp nan", "--top-p 2",
     "--min-p inf", "--dry-base nan", "-l word", "-l 5+nan", "-l -5+1", "--lora nowhere.gguf", "--mirostat 3"],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(parse: Callable[..., Values], line: str) -> None:
    with pytest.raises((UsageError, typer.BadParameter)) as caught:
        parse(*line.split())
    assert getattr(caught.value, "exit_code", None) == 2

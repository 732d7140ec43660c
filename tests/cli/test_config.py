"""Settings in files and variables: their order, where a value comes from, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Result

from llamacli.cli.configuration import configured
from llamacli.cli.context import Context

Invoke = Callable[..., Result]


def test_set_get_explain_and_unset(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("config", "get", "ctx-size").code == 3 and invoke("config", "get", "ctxsize").code == 3
    assert invoke("config", "set", "ctx-size", "8192").code == 0
    assert invoke("config", "set", "temp", "0.3").code == 0
    own = tmp_path / "home" / "config.toml"
    assert own.read_text(encoding="utf-8") == 'ctx-size = "8192"\ntemp = 0.3\n'
    assert invoke("config", "path").out == f"{own}\n"
    assert invoke("config", "get", "temp").out == "0.3\n"
    explained = invoke("config", "explain", "ctx-size", "--json").json
    assert explained == [{"NAME": "ctx-size", "VALUE": "8192", "FROM": str(own)}]
    assert invoke("config", "set", "temp", "0.4").code == 0
    assert own.read_text(encoding="utf-8").count("temp") == 1
    assert invoke("config", "unset", "temp").code == 0 and "temp" not in own.read_text(encoding="utf-8")


def test_the_order_is_variable_project_user(context: Callable[..., Context], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("# mine\ntemp = 0.1\ntop_k = 5\nmin-p = 0\n", encoding="utf-8")
    (tmp_path / "llamacli.toml").write_text('temp = 0.2\ntop-k = 6\nstop = ["a", "b"]\n', encoding="utf-8")
    found = configured(context(LLAMACLI_TEMP="0.3", LLAMA_ARG_THREADS="2"))
    assert found["temp"].value == 0.3 and found["temp"].source == "LLAMACLI_TEMP"
    assert found["top_k"].value == 6 and found["top_k"].source.endswith("llamacli.toml")
    assert found["min_p"].value == 0.0 and found["min_p"].source.endswith("config.toml")
    assert found["threads"].value == "2" and found["stop"].value == ["a", "b"]
    assert configured(context(LLAMA_ARG_CTX_SIZE="1", LLAMACLI_CTX_SIZE="2"))["ctx_size"].value == "2"


@pytest.mark.parametrize(
    ("text", "says"), [("tmep = 1", "temp"), ('temp = "hot"', "temp"), ("mmap = 3", "mmap"), ("=", "")]
)
def test_a_wrong_file_is_named(invoke: Invoke, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "llamacli.toml").write_text(text, encoding="utf-8")
    done = invoke("config", "explain")
    assert done.code == 2 and "llamacli.toml" in done.err and says in done.err


def test_an_answer_obeys_the_files_and_a_flag_wins(
    invoke: Invoke, converted: Callable[..., Path], tmp_path: Path
) -> None:
    model = converted("stories260K-hf")
    (tmp_path / "llamacli.toml").write_text("predict = 3\ntemp = 0\nthreads = 1\n", encoding="utf-8")
    some = ("run", "-m", model, "--raw", "--json", "--allow-truncated", "-p", "Once")
    first = json.loads(invoke(*some).out)
    assert first["usage"]["completion"] == 3 and first["params"]["temp"] == 0
    assert json.loads(invoke(*some, "-n", "2", "--temp", "0.5").out)["usage"]["completion"] == 2
    assert invoke(*some, env={"LLAMACLI_PREDICT": "none"}).code == 2


@pytest.mark.parametrize(
    ("name", "value"), [("temp", "nan"), ("temp", "inf"), ("top-p", "8"), ("flash-attn", "maybe"), ("power", "0")]
)
def test_what_a_flag_would_refuse_is_no_setting_either(invoke: Invoke, tmp_path: Path, name: str, value: str) -> None:
    assert invoke("config", "set", name, value).code == 2
    assert not (tmp_path / "home" / "config.toml").exists()
    variable = f"LLAMACLI_{name.upper().replace('-', '_')}"
    refused = invoke("run", "-m", "none.gguf", "x", env={variable: value})
    assert refused.code == 2 and variable in refused.err

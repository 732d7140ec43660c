"""Shared by all tests: run a command in process, find the checkpoints."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from support import MODELS, Result

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.console import Console
from llamacli.cli.context import Context


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint as a GGUF made by our own converter, once per session: `converted("stories260K-hf", "F32")`."""
    folder = tmp_path_factory.mktemp("converted")

    def convert(name: str, kind: str = "F32") -> Path:
        from llamacli.quantize.kernels import kernel_named
        from llamacli.quantize.model import open_model
        from llamacli.quantize.plan import PlanOptions, make_plan
        from llamacli.quantize.recipes import recipe_named
        from llamacli.quantize.run import Output, quantize

        path = folder / f"{name}-{kind}.gguf"
        if not path.exists():
            model = open_model(MODELS[name])
            plan = make_plan(model, recipe_named(kind), PlanOptions())
            quantize(model, [Output(plan, path)], kernel_named("ggml"), threads=1)
        return path

    return convert


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """A Context of its own: empty home, no terminal, no network."""

    def make(**env: str) -> Context:
        environment = {"LLAMACLI_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), **env}
        environment.setdefault("HF_HUB_OFFLINE", "1")
        console = Console(io.StringIO(), io.StringIO(), environment)
        return Context(console=console, env=environment, home=tmp_path, cwd=tmp_path)

    return make


@pytest.fixture
def invoke(context: Callable[..., Context]) -> Callable[..., Result]:
    """Run `llamacli ARGS` in this process: `invoke("show", path, "--json").json`."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
        here = context(**(env or {}))
        code = invoke_app([str(a) for a in arguments], here)
        out, err = here.console.out, here.console.err
        assert isinstance(out, io.StringIO) and isinstance(err, io.StringIO)
        return Result(code, out.getvalue(), err.getvalue())

    return run

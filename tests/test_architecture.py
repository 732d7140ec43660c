"""Rules that are executed, not remembered: who imports whom, who owns which library, what starts at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "llamacli"
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "formats": {"formats"},
    "checkpoint": {"checkpoint", "formats"},
    "families": {"families", "formats"},
    "quantize": {"quantize", "families", "checkpoint", "formats"},
    "evaluate": {"evaluate", "runtime", "formats"},
    "runtime": {"runtime", "formats"},
    "bench": {"bench", "runtime", "formats"},
    "library": {"library", "formats"},
    "cli": {"cli", "library", "quantize", "evaluate", "runtime", "bench", "families", "checkpoint", "formats"},
}
EVERYONE = {"errors", "progress", "user_cache", "__init__"}

OWNERS = {
    "typer": ("cli/",),
    "rich": ("cli/",),
    "prompt_toolkit": ("cli/",),
    "llama_cpp": ("runtime/bindings.py", "runtime/llama.py", "quantize/ggml.py", "quantize/kernels.py"),
    "gguf": ("formats/gguf_writer.py", "families/"),
    "numba": ("quantize/fast/",),
    "llvmlite": ("quantize/fast/",),
    "jinja2": ("runtime/",),
}
NEVER = {"pickle", "torch", "transformers", "marshal", "shelve", "huggingface_hub"}


def imports(path: Path) -> list[tuple[str, int]]:
    """Every module that a file imports anywhere, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node.lineno))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_keep_their_direction_and_libraries_their_owner(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    part = name.split("/")[0].removesuffix(".py")
    for module, line in imports(path):
        root = module.split(".")[0]
        assert root not in NEVER, f"{name}:{line} imports {module}"
        if root in OWNERS:
            assert name.startswith(OWNERS[root]), f"{name}:{line} imports {module}, which {OWNERS[root]} own"
        if root == "llamacli" and part in MAY_IMPORT:
            target = [*module.split("."), "__init__"][1]
            assert target in MAY_IMPORT[part] | EVERYONE, f"{name}:{line} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_command_line_prints_reads_stdin_or_exits(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    if name.startswith(("cli/", "__main__")):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "input", "exit", "quit", "eval", "exec"), f"{name}:{node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in ("exit", "stdin", "stdout", "stderr"), f"{name}:{node.lineno}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["help", "exit-codes"]], ids=" ".join)
def test_quick_commands_import_neither_numpy_nor_the_engine(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom llamacli.cli.app import main\nsys.argv = ['llamacli', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'numpy', 'llama_cpp', 'gguf', 'numba', 'huggingface_hub', 'rich', 'prompt_toolkit'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {"LLAMACLI_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stderr

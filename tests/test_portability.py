"""What would break on a system that no test runs on, found in the source; mypy checks the rest (`make lint`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "llamacli"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

OF_ONE_SYSTEM = {"fcntl", "grp", "msvcrt", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty", "winreg"}
"""Modules that are missing on some system."""

OF_UNIX = {
    "os": "chown fchmod fchown fork getegid geteuid getgid getloadavg getuid kill killpg lchown mkfifo nice posix_fadvise "
          "posix_fallocate pread preadv pwrite pwritev sched_getaffinity sendfile setsid statvfs sync sysconf umask uname",
    "signal": "SIGALRM SIGHUP SIGKILL SIGPIPE SIGQUIT SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm pause setitimer sigwait",
    "mmap": "MADV_HUGEPAGE MAP_POPULATE MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
    "time": "clock_gettime tzset",
    "select": "epoll kqueue poll",
    "socket": "AF_UNIX",
}  # fmt: skip
"""What Windows lacks, or means otherwise (os.kill ends a process there, whatever the signal)."""

VARYING = {"c_long", "c_ulong", "c_longdouble", "c_wchar", "c_wchar_p", "c_time_t"}
"""Types of C that have another size on another system: a long has 32 bits on Windows."""


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def asks_for_the_system(test: ast.expr) -> bool:
    """Whether a condition is about the system: `sys.platform`, `os.name`, or `hasattr` of the thing itself."""
    text = ast.unparse(test)
    return "sys.platform" in text or "os.name" in text or "hasattr(" in text


def guarded_and_not(body: list[ast.stmt], guarded: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every expression and import, and whether it runs only after a look at the system."""
    for statement in body:
        if isinstance(statement, ast.If):
            inside = guarded or asks_for_the_system(statement.test)
            yield from ((node, inside) for node in ast.walk(statement.test))
            yield from guarded_and_not(statement.body, inside)
            yield from guarded_and_not(statement.orelse, inside)
            if inside and isinstance(statement.body[-1], (ast.Return, ast.Raise)):
                guarded = True  # what follows is for the other systems
        elif isinstance(getattr(statement, "body", None), list):
            for name in ("body", "orelse", "finalbody"):
                yield from guarded_and_not(getattr(statement, name, []), guarded)
            for handler in getattr(statement, "handlers", []):
                yield from guarded_and_not(handler.body, guarded)
        else:
            yield from ((node, guarded or conditional(statement)) for node in ast.walk(statement))


def conditional(statement: ast.stmt) -> bool:
    """Whether a conditional expression in it asks for the system."""
    return any(isinstance(node, ast.IfExp) and asks_for_the_system(node.test) for node in ast.walk(statement))


def unguarded(path: Path) -> Iterator[str]:
    for node, guarded in guarded_and_not(tree_of(path).body, False):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if not guarded and OF_ONE_SYSTEM.intersection(names):
            yield f"import {', '.join(names)}"
        of = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
        if not guarded and isinstance(node, ast.Attribute) and node.attr in OF_UNIX.get(of, "").split():
            yield ast.unparse(node)


@pytest.mark.parametrize("name", FILES)
def test_what_one_system_lacks_is_used_only_after_a_look_at_the_system(name: str) -> None:
    assert list(unguarded(FILES[name])) == []


def test_what_is_not_guarded_is_found(tmp_path: Path) -> None:
    source = """
import sys, os, signal
def a():
    import fcntl
    os.getuid()
    signal.signal(signal.SIGHUP, None)
def b():
    if sys.platform == "win32":
        return
    os.getuid()
def c():
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else 1
"""
    (tmp_path / "x.py").write_text(source, encoding="utf-8")
    assert list(unguarded(tmp_path / "x.py")) == ["import fcntl", "os.getuid", "signal.SIGHUP"]


@pytest.mark.parametrize("name", FILES)
def test_types_of_c_have_one_size_everywhere(name: str) -> None:
    for node in ast.walk(tree_of(FILES[name])):
        if isinstance(node, ast.Attribute):
            assert node.attr not in VARYING, f"{name}:{node.lineno} {ast.unparse(node)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("struct.pack", "struct.unpack", "struct.Struct"):
            form = ast.unparse(node.args[0])
            fixed = form.lstrip("f'\"")[:1] in "<>=!"
            assert fixed or form[:1] not in "f'\"" or "'B'" in form, f"{name}:{node.lineno} {form}"


MODES = {kind + plus + letter for kind in "rwax" for plus in ("", "+") for letter in ("", "b", "t")} | {"rb+", "wb+"}


def without_encoding(path: Path) -> Iterator[str]:
    """Text read or written in whatever encoding the system prefers."""
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call) or any(keyword.arg in ("encoding", None) for keyword in node.keywords):
            continue
        method = isinstance(node.func, ast.Attribute)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        modes = [str(a.value) for a in node.args if isinstance(a, ast.Constant) and str(a.value) in MODES]
        opens = called == "open" and ((not method and not modes) or any("b" not in mode for mode in modes))
        reads = (called == "read_text" and method and not node.args) or called == "write_text"
        decodes = called in ("run", "Popen", "check_output") and any(k.arg == "text" for k in node.keywords) and method
        if opens or reads or decodes:
            yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", FILES)
def test_text_has_an_encoding(name: str) -> None:
    assert list(without_encoding(FILES[name])) == []


def test_text_without_an_encoding_is_found(tmp_path: Path) -> None:
    bad = ('open("x")', 'path.open("w")', "path.read_text()", 'path.write_text("x")', "subprocess.run([], text=True)")
    good = ('open("f.bin", "rb")', 'path.open("wb")', "path.read_text(encoding='utf-8')", "source.open(name)")
    (tmp_path / "x.py").write_text("\n".join([*bad, *good]), encoding="utf-8")
    assert len(list(without_encoding(tmp_path / "x.py"))) == len(bad)

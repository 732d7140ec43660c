"""What a user of pipes and terminals would try first: the acceptance tests of the command line.

Real processes, real pipes, a pseudo-terminal. Three of the twelve have files of their own: interrupted and concurrent
downloads (tests/library/test_download.py), what start-up imports (tests/test_architecture.py), and the warning about
a graphics card that the engine cannot use (tests/runtime/test_backends.py).
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import MODELS, ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shells, signals and pseudo-terminals of POSIX")

if os.name != "nt":
    from terminal import CTRL_C, CTRL_D, ENTER, Terminal

HELLO = "Hello! Do you want to hear a story?"
LLAMACLI = f"{shlex.quote(sys.executable)} -m llamacli"
LIMIT = 60


@pytest.fixture(scope="module")
def chat(converted: Callable[..., Path]) -> str:
    return str(converted("tinystories-chat-2m", "F32"))


@pytest.fixture(scope="module")
def stories(converted: Callable[..., Path]) -> str:
    return str(converted("stories260K-hf", "F32"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    home = {"LLAMACLI_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
    return {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **home}


Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> Shell:
    """A line of bash; `llamacli` is a word that it knows."""

    def start(line: str, *, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        script = f'set -o pipefail\nllamacli() {{ {LLAMACLI} "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", script],
            input=stdin,
            capture_output=True,
            timeout=LIMIT,
            env={**environment, **env},
            cwd=tmp_path,
            check=False,
        )

    return start


def test_1_a_pipe_gets_the_bytes_of_the_answer_and_one_newline(shell: Shell, chat: str) -> None:
    seen = shell(f"llamacli run -t 1 --temp 0 -m {chat} 'Hello!' | cat -v", TERM="xterm-256color")
    assert (seen.returncode, seen.stdout) == (0, f"{HELLO}\n".encode())
    quiet = shell(f"llamacli run -t 1 --temp 0 -m {chat} 'Hello!' 2>/dev/null")
    assert quiet.stdout == seen.stdout and not quiet.stdout.endswith(b"\n\n")


def test_1_on_a_terminal_the_answer_is_text_too(chat: str, tmp_path: Path) -> None:
    with Terminal("run", "-t", "1", "--temp", "0", "-m", chat, "Hello!", home=tmp_path) as terminal:
        assert terminal.end() == 0
        assert terminal.text == HELLO


def test_reading_a_long_prompt_is_told_and_leaves_no_trace(chat: str, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("Once upon a time there was a cat. " * 40)
    flags = ["-t", "1", "--temp", "0", "--cache", "off", "-n", "4"]
    with Terminal("run", *flags, "--allow-truncated", "-f", "long.txt", "-m", chat, "Who?", home=tmp_path) as terminal:
        assert terminal.end() == 0
        assert b" tokens 0 %" in terminal.raw and b"reading " in terminal.raw
        assert terminal.text and "reading" not in terminal.text
    with Terminal("chat", *flags, "-f", "long.txt", "-m", chat, home=tmp_path, columns=40) as terminal:
        terminal.wait("Ctrl-D to leave.")
        terminal.keys("Who?", ENTER)
        terminal.wait("[cut after")
        assert b" tokens 0 %" in terminal.raw and "reading" not in terminal.text


def test_2_head_ends_an_endless_answer_quietly(shell: Shell, stories: str) -> None:
    endless = f"llamacli run -t 1 --temp 0 --ignore-eos -c 100000 -m {stories} --raw Once"
    done = shell(f'{endless} | head -1; echo "${{PIPESTATUS[0]}}"')
    first, status = done.stdout.decode().splitlines()
    assert first.startswith(" upon a time") and status in ("141", "0") and done.stderr == b""


def test_4_a_book_is_answered_whole_or_refused_with_numbers(shell: Shell, chat: str) -> None:
    book = ("The dog ran to the park and saw a cat.\n" * 40 + "\f") * 200
    done = shell(f"llamacli run -t 1 -m {chat}", stdin=book.encode())
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (5, b"")
    assert "512" in said and any(int(word.replace(",", "")) > 50_000 for word in said.split() if word[:1].isdigit())


def test_5_the_quick_commands_work_with_nothing_installed_beside_them(shell: Shell) -> None:
    for line in ("--help", "--version", "list"):
        done = shell(f"llamacli {line}", NO_COLOR="1")
        assert done.returncode == 0 and b"\x1b" not in done.stdout + done.stderr
        assert done.stdout or b"no models yet" in done.stderr


def test_6_ctrl_c_in_chat_keeps_the_session(chat: str, tmp_path: Path) -> None:
    flags = ("--temp", "0", "-t", "1", "--ignore-eos", "-c", "16384")
    with Terminal("chat", chat, *flags, home=tmp_path) as terminal:
        terminal.wait("Ctrl-D to leave.")
        terminal.keys("Tell me a story.", ENTER)
        terminal.wait("› Tell me a story.\n")
        terminal.keys(CTRL_C)
        terminal.wait("[stopped")
        terminal.keys("/exit", ENTER)
        assert terminal.end() == 0
    with Terminal("chat", "-C", "-t", "1", home=tmp_path) as again:
        again.wait("Tell me a story.")
        again.keys(CTRL_D)
        assert again.end() == 0


def test_6_ctrl_c_in_run_is_130_and_keeps_what_was_said(environment: dict[str, str], stories: str) -> None:
    command = [sys.executable, "-m", "llamacli", "run", "-t", "1", "--ignore-eos", "-c", "100000", "-m", stories]
    with subprocess.Popen(
        [*command, "--raw", "Once"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        begun = process.stdout.read(30)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(timeout=LIMIT) == 130
        assert begun and rest.endswith(b"\n") and process.stderr.read() == b""


NO_NETWORK = """
import sys
def watch(event, arguments):
    if event.startswith("socket.") and event not in ("socket.gethostname", "socket.__new__"):
        raise SystemExit("the network was asked for: " + event)
sys.addaudithook(watch)
from llamacli.cli.app import main
sys.argv[0] = "llamacli"
main()
"""


def test_7_without_a_network_everything_local_works_and_nothing_is_said(
    environment: dict[str, str], chat: str, tmp_path: Path
) -> None:
    free = {key: value for key, value in environment.items() if key != "HF_HUB_OFFLINE"}
    for arguments in (
        ["run", "-t", "1", "--temp", "0", "-m", chat, "Hello!"],
        ["list"],
        ["show", chat],
        ["quantize", str(MODELS["stories260K-hf"]), str(tmp_path / "out.gguf"), "F16"],
        ["help", "exit-codes"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", NO_NETWORK, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, env=free, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and b"warning" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "20"}, {"LC_ALL": "C"}, {"LC_ALL": "de_DE.ISO-8859-1"}]
)
def test_8_any_terminal_and_locale_gets_whole_characters(
    shell: Shell, stories: str, env: dict[str, str], tmp_path: Path
) -> None:
    # None of these characters is in the vocabulary: each comes as two to four tokens of one byte.
    text = "Ünï → 漢字 🙂 é"
    (tmp_path / "g.gbnf").write_text(f'root ::= "{text}"', encoding="utf-8")
    done = shell(f"llamacli run -t 1 --raw --grammar g.gbnf -m {stories} Once", **env)
    assert (done.returncode, done.stdout.decode()) == (0, text + "\n")


@pytest.mark.parametrize(("columns", "env"), [(20, {}), (80, {"TERM": "dumb"}), (80, {"NO_COLOR": "1", "LC_ALL": "C"})])
def test_8_narrow_and_dumb_terminals_show_the_answer(
    chat: str, tmp_path: Path, columns: int, env: dict[str, str]
) -> None:
    arguments = ("run", "-t", "1", "--temp", "0", "-m", chat, "Hello!")
    with Terminal(*arguments, home=tmp_path, columns=columns, **env) as terminal:
        assert terminal.end() == 0
        assert terminal.text.replace("\n", "").replace(" ", "") == HELLO.replace(" ", "")


def test_9_a_limit_within_thoughts_is_4_and_names_them(shell: Shell, chat: str, tmp_path: Path) -> None:
    source = (MODELS["tinystories-chat-2m"] / "chat_template.jinja").read_text(encoding="utf-8")
    template = source + "{%- if add_generation_prompt %}<think>{% endif %}"
    (tmp_path / "think.jinja").write_text(template, encoding="utf-8")
    line = f"llamacli run -t 1 --ignore-eos -n 50 --chat-template think.jinja -m {chat} 'Hello!' | cat"
    done = shell(line)
    assert (done.returncode, done.stdout) == (4, b"")
    assert "50 tokens" in done.stderr.decode() and "thinking" in done.stderr.decode()


def test_11_what_a_schema_holds_is_json_or_8(shell: Shell, stories: str) -> None:
    read = f"{shlex.quote(sys.executable)} -c 'import json,sys; print(json.load(sys.stdin)[\"total\"])'"
    codes = set()
    for seed in range(4):
        for predict in (12, 150):
            run = f"llamacli run -t 1 --raw -m {stories} -s {seed} -n {predict}"
            line = f"{run} --schema 'total int, vendor' 'Once' > out; code=$?; {read} < out; exit $code"
            done = shell(line)
            assert done.returncode in (0, 8), done.stderr
            assert done.returncode == 8 or int(done.stdout) is not None
            codes.add(done.returncode)
    assert codes == {0, 8}


def test_12_quantizing_takes_little_memory_and_says_how_much(shell: Shell, tmp_path: Path) -> None:
    # As little as the interpreter and its libraries take: the checkpoint is never in memory as a whole.
    done = shell(f"llamacli quantize {MODELS['tinystories-656k-wide256']} small.gguf Q4_K_M")
    assert done.returncode == 0 and done.stdout.decode().strip().endswith("small.gguf")
    peak = re.search(r"peak memory (\d+) MB", done.stderr.decode())
    assert peak is not None and 0 < int(peak[1]) < 500 and (tmp_path / "small.gguf").is_file()


def test_the_pipelines_of_the_manual(shell: Shell, chat: str, stories: str, tmp_path: Path) -> None:
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text("error: the dog ran away\n", encoding="utf-8")
    short = f"llamacli run -t 1 -m {chat} -n 12 --allow-truncated"
    assert len(shell(f"printf '+x\\n' | {short} -q 'one line' | head -1").stdout.splitlines()) == 1
    loop = f'for f in *.log; do {short} -f "$f" "root cause?" > "$f.why" || echo "$f: $?" >&2; done'
    assert shell(loop).stderr == b""
    assert (tmp_path / "a.log.why").read_bytes() and (tmp_path / "b.log.why").read_bytes()
    is_spam = f"llamacli run -t 1 -m {chat} -q --choices yes,no --true yes --min .8 'Is this spam?' < a.log"
    told = shell(f"if {is_spam}; then echo spam; else echo kept $?; fi").stdout.decode().splitlines()
    assert told[0] in ("yes", "no") and told[1] in ("spam", "kept 1")

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llamacli.errors import CannotWrite, CorruptFile
from llamacli.formats import atomic
from llamacli.formats.atomic import atomic_file, check_target, free_space_check, translated


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    with atomic_file(target) as out:
        out.file.write(b"0123456789")
        out.file.seek(2)
        out.file.write(b"XY")
        assert out.path.parent == tmp_path and not target.exists()
    assert target.read_bytes() == b"01XY456789" and names(tmp_path) == ["out.gguf"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), CorruptFile("bad")])
def test_whatever_happens_nothing_is_left_behind(error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_file(target, force=True) as out:
        out.file.write(b"new")
        raise error
    assert target.read_text() == "old" and names(tmp_path) == ["out"]


def test_what_fails_its_verification_never_gets_its_name(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        assert path.read_bytes() == b"new"
        raise CorruptFile("not as meant")

    with pytest.raises(CorruptFile), atomic_file(tmp_path / "out") as out:
        out.file.write(b"new")
        out.verify = refuse
    assert names(tmp_path) == []


def test_existing_files_need_force_and_the_old_one_lives_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(CannotWrite, match="exists") as caught, atomic_file(target):
        pass
    assert "--force" in caught.value.hint and caught.value.exit_code == 12
    with atomic_file(target, force=True) as out:
        out.file.write(b"new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(CannotWrite, match="appeared meanwhile"), atomic_file(target) as out:
        out.file.write(b"new")
        target.write_text("another's")
    assert target.read_text() == "another's" and names(tmp_path) == ["out"]


def test_inputs_are_known_by_every_name(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("precious")
    (tmp_path / "link").symlink_to(source)
    os.link(source, tmp_path / "hard")
    (tmp_path / "sub").mkdir()
    for name in ("in", "link", "hard", "sub/../in"):
        with (
            pytest.raises(CannotWrite, match="is the input"),
            atomic_file(tmp_path / name, force=True, inputs=[source]),
        ):
            pass
    assert source.read_text() == "precious"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_file(tmp_path / "link", force=True) as out:
        out.file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_folders_that_cannot_be_written_are_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="no such folder"):
        check_target(tmp_path / "none" / "out")
    with pytest.raises(CannotWrite, match="is a folder"):
        check_target(tmp_path)
    with pytest.raises(CannotWrite, match="not a regular file"):
        check_target(Path("/dev/null"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CannotWrite, match="permission denied"):
            check_target(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_the_systems_refusals_become_one_kind(number: int, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite) as caught, atomic_file(tmp_path / "out") as out:
        out.file.write(b"some")
        raise OSError(number, "refused")
    assert caught.value.hint and names(tmp_path) == []
    with pytest.raises(OSError), translated(tmp_path):
        raise OSError(errno.EBADF, "ours to mend")


def test_too_little_space_is_told_with_both_numbers(tmp_path: Path) -> None:
    free_space_check(tmp_path, 1)
    with pytest.raises(CannotWrite, match=r"1,000,000,000,000,000,000 bytes are needed and [\d,]+ are free"):
        free_space_check(tmp_path, 10**18)


def test_leftovers_of_dead_processes_are_swept_and_others_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = {f".out.{os.getpid()}.00000000.part", f".other.{dead.pid}.00000000.part", ".out.x.part"}
    for name in (*kept, f".out.{dead.pid}.0123abcd.part"):
        (tmp_path / name).write_text("x")
    with atomic_file(tmp_path / "out") as out:
        out.file.write(b"x")
    assert set(names(tmp_path)) == {"out", *kept}


KILLED = """
    import sys, time
    from pathlib import Path
    from llamacli.formats.atomic import atomic_file
    target, stage = Path(sys.argv[1]), sys.argv[2]

    def wait(*_):
        print("ready", flush=True)
        time.sleep(60)

    with atomic_file(target, force=True) as out:
        out.file.write(b"new" * 1000)
        if stage == "writing":
            wait()
        out.verify = wait
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("stage", ["writing", "verifying"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_killed_process_leaves_the_final_name_as_it_was(stage: str, old: str | None, tmp_path: Path) -> None:
    target = tmp_path / "out"
    if old:
        target.write_text(old)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(target), stage], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (target.read_text() if old else target.exists()) == (old or False)
    assert len([name for name in names(tmp_path) if name.endswith(".part")]) == 1
    with atomic_file(target, force=True) as out:
        out.file.write(b"next")
    assert target.read_text() == "next" and names(tmp_path) == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_at_any_moment_the_file_is_old_or_new_and_never_half(tmp_path: Path) -> None:
    target = tmp_path / "out"
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from llamacli.formats.atomic import atomic_file
        print("ready", flush=True)
        for number in range(10**9):
            with atomic_file(Path(sys.argv[1]), force=True) as out:
                out.file.write(b"%06d" % (number % 10**6) * 50_000)
        """
    )
    for moment in range(8):
        child = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.004 + 0.003 * moment)
            child.kill()
        if target.exists():
            data = target.read_bytes()
            assert len(data) == 300_000 and data == data[:6] * 50_000
        assert len([name for name in names(tmp_path) if name.endswith(".part")]) <= 1


def test_without_hard_links_the_plain_way_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(atomic.os, "link", no_links)
    with atomic_file(tmp_path / "out") as out:
        out.file.write(b"new")
    assert (tmp_path / "out").read_bytes() == b"new"
    with pytest.raises(CannotWrite, match="meanwhile"), atomic_file(tmp_path / "two") as out:
        (tmp_path / "two").write_text("x")

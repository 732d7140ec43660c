"""Many files open at once, as a checkpoint of two hundred shards has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
from pathlib import Path
from llamacli.formats.file_access import LocalFile
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
files = [LocalFile(Path(sys.argv[1])) for _ in range(100)]
buffer = bytearray(4)
files[-1].read_into(2, memoryview(buffer))
print(bytes(buffer).decode())
"""


@pytest.mark.skipif(os.name == "nt", reason="the limit of POSIX systems")
def test_the_systems_first_limit_of_open_files_is_no_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"01234567")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "x")], capture_output=True, cwd=root, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"2345{os.linesep}".encode()), done.stderr

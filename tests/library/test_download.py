"""`llamacli download` against a Hub that behaves, misbehaves and breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir
from local_hub import SECRET, HubFile, LocalHub, local_hub, noise
from support import Result

from llamacli.cli.context import Context
from llamacli.cli.models import obtain
from llamacli.errors import CorruptFile, NotFound

REPO = "maker/Tiny-GGUF"
Q4 = "Tiny-Q4_K_M.gguf"
Invoke = Callable[..., Result]


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with local_hub() as hub:
        hub.add(REPO, {Q4: noise(3_000_000), "Tiny-Q8_0.gguf": noise(500_000, 1), "README.md": b"# tiny\n"})
        yield hub


@pytest.fixture
def llamacli(invoke: Invoke, hub: LocalHub) -> Invoke:
    def run(*arguments: object, **env: str) -> Result:
        return invoke(*arguments, env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **env})

    return run


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub"


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if "llamacli-part" in p.name or p.name.endswith(".new"))


# -- what comes ----------------------------------------------------------------------------------------------------


def test_stdout_is_the_path_of_a_whole_file(llamacli: Invoke, hub: LocalHub, cache: Path) -> None:
    result = llamacli("download", f"{REPO}:q4_k_m")
    assert (result.code, result.out.count("\n")) == (0, 1)
    path = Path(result.out.strip())
    assert path.read_bytes() == hub.repos[REPO].files[Q4].content
    assert path.is_relative_to(cache) and not leftovers(cache)
    hub.requests.clear()
    assert llamacli("download", f"{REPO}:Q4_K_M").out == result.out
    assert not hub.asked("cdn"), "what is here is not fetched again"


def test_other_programs_find_what_we_fetched(llamacli: Invoke, hub: LocalHub, cache: Path) -> None:
    path = llamacli("download", f"{REPO}:Q4_K_M").out.strip()
    llamacli("download", REPO, "--file", "README.md")
    info = scan_cache_dir(cache)
    assert not info.warnings
    (repo,) = info.repos
    assert (repo.repo_id, repo.size_on_disk) == (REPO, 3_000_000 + 7)
    (revision,) = repo.revisions
    assert revision.refs == {"main"} and {f.file_name for f in revision.files} == {Q4, "README.md"}
    assert hf_hub_download(REPO, Q4, cache_dir=cache, local_files_only=True) == path


def test_we_find_what_another_program_fetched_without_the_network(llamacli: Invoke, hub: LocalHub, cache: Path) -> None:
    path = hf_hub_download(REPO, Q4, cache_dir=cache, endpoint=hub.url)
    assert not llamacli("download", f"{REPO}:Q4_K_M").code
    assert len(hub.asked("cdn")) == 1, "what huggingface_hub has fetched is not fetched again"
    hub.requests.clear()
    assert llamacli("download", f"{REPO}:Q4_K_M", "--offline").out.strip() == path
    assert llamacli("download", REPO, HF_HUB_OFFLINE="1").out.strip() == path
    assert llamacli("download", f"{REPO}:Q8_0", "--offline").code == 3
    assert not hub.requests


def test_without_a_quantization_the_best_that_fits_is_taken_and_the_choice_explained(llamacli: Invoke) -> None:
    result = llamacli("download", REPO)
    assert result.out.strip().endswith("Tiny-Q8_0.gguf")
    assert "taking Q8_0" in result.err and f"{REPO}:Q4_K_M" in result.err


def test_a_list_and_a_dry_run_fetch_nothing(llamacli: Invoke, hub: LocalHub, cache: Path) -> None:
    table = llamacli("download", REPO, "--list").out
    assert "Q4_K_M" in table and "Q8_0" in table and "README" not in table
    rows = llamacli("download", REPO, "--list", "--json").json
    assert [r["quant"] for r in rows] == ["Q8_0", "Q4_K_M"] and rows[1]["bytes"] == 3_000_000
    plan = llamacli("download", f"{REPO}:Q4_K_M", "--dry-run", "--json").json
    assert plan["files"][0]["file"] == Q4 and plan["files"][0]["here"] == 0
    assert all("range" in r.headers for r in hub.asked("cdn")), "nothing but a header"
    assert not cache.exists()


def test_json_says_what_came(llamacli: Invoke, hub: LocalHub) -> None:
    data = llamacli("download", f"{REPO}:Q4_K_M", "--json").json
    assert data["sha256"] == hub.repos[REPO].files[Q4].digest
    assert (data["repo"], data["file"], data["bytes"], data["resumed_from"]) == (REPO, Q4, 3_000_000, 0)


def test_the_parts_of_a_split_model_come_together_and_the_first_is_named(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("a/Split", {f"q8/M-Q8_0-0000{n}-of-00003.gguf": noise(1000 + n, n) for n in (1, 2, 3)})
    path = Path(llamacli("download", "a/Split:Q8_0").out.strip())
    assert path.name == "M-Q8_0-00001-of-00003.gguf"
    assert sorted(p.name for p in path.parent.iterdir()) == [f"M-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    hub.repos["a/Split"].files.pop("q8/M-Q8_0-00002-of-00003.gguf")
    assert llamacli("download", "a/Split:M-Q8_0-00001-of-00003.gguf").code == 3


def test_the_projector_comes_with_the_model_and_the_draft_when_asked(llamacli: Invoke, hub: LocalHub) -> None:
    names = ("M-Q4_K_M.gguf", "mmproj-M-F16.gguf", "mmproj-M-F32.gguf", "mtp-M-Q8_0.gguf")
    hub.add("a/M-GGUF", {name: noise(1000, seed) for seed, name in enumerate(names)})

    def came(*flags: str) -> list[str]:
        return [Path(file).name for file in llamacli("download", "a/M-GGUF:Q4_K_M", "--json", *flags).json["files"]]

    assert came("--mmproj", "no") == ["M-Q4_K_M.gguf"]
    assert came() == ["M-Q4_K_M.gguf", "mmproj-M-F16.gguf"]
    assert came("--draft") == ["M-Q4_K_M.gguf", "mmproj-M-F16.gguf", "mtp-M-Q8_0.gguf"]
    only = llamacli("download", "a/M-GGUF:mmproj-M-F32.gguf")
    assert only.out.count("\n") == 1 and only.out.strip().endswith("mmproj-M-F32.gguf")


def test_a_checkpoint_without_gguf_comes_as_a_folder(llamacli: Invoke, hub: LocalHub) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": noise(9000), "LICENSE": b"free"}
    unwanted = {"pytorch_model.bin": b"x", "consolidated.safetensors": noise(9000, 2), "original/params.json": b"{}"}
    hub.add("a/Base", {**files, **unwanted})
    result = llamacli("download", "a/Base")
    assert {p.name for p in Path(result.out.strip()).iterdir()} == set(files)
    assert "no GGUF" in result.err and "quantize" in result.err
    hub.add("a/Pickled", {"pytorch_model.bin": b"x", "config.json": b"{}"})
    refused = llamacli("download", "a/Pickled")
    assert refused.code == 11 and "pickled" in refused.err


def test_a_folder_of_ones_own_gets_the_file_and_nothing_else(llamacli: Invoke, hub: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    result = llamacli("download", f"{REPO}:Q4_K_M", "--to", folder)
    assert result.out.strip() == str(folder / Q4)
    assert [p.name for p in folder.iterdir()] == [Q4]
    assert llamacli("download", f"{REPO}:Q4_K_M", "--to", folder).code == 0
    (folder / Q4).write_bytes(b"mine")
    refused = llamacli("download", f"{REPO}:Q4_K_M", "--to", folder)
    assert refused.code == 12 and (folder / Q4).read_bytes() == b"mine"
    llamacli("download", f"{REPO}:Q8_0")
    hub.requests.clear()
    assert llamacli("download", f"{REPO}:Q8_0", "--to", folder).code == 0
    assert not hub.asked("cdn"), "what the cache has is copied from there"


def test_an_empty_file_is_a_file(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("a/Empty", {"x.gguf": b"", "notes.txt": HubFile(b"", lfs=False)})
    assert Path(llamacli("download", "a/Empty:x.gguf").out.strip()).read_bytes() == b""
    assert Path(llamacli("download", "a/Empty", "--file", "notes.txt").out.strip()).read_bytes() == b""


def test_verify_hashes_again_what_is_here(llamacli: Invoke) -> None:
    path = Path(llamacli("download", f"{REPO}:Q4_K_M").out.strip())
    assert llamacli("download", f"{REPO}:Q4_K_M", "--verify").code == 0
    content = bytearray(path.read_bytes())
    content[1234] ^= 1
    path.write_bytes(content)
    assert llamacli("download", f"{REPO}:Q4_K_M", "--verify").code == 9


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("maker/Tiny-GUF", 3, "maker/Tiny-GGUF"),
        (f"{REPO}:Q5_K_M", 3, "it has Q8_0, Q4_K_M"),
        (f"{REPO}:Tiny-Q4_K_S.gguf", 3, "Q4_K_M"),
        (f"{REPO}@v9", 3, "no revision v9"),
        ("no-such-alias", 3, "user/repo"),
        ("a/b/c", 2, "not a repository"),
        ("./x.gguf", 2, "is a path"),
    ],
)
def test_what_does_not_exist_is_said_with_near_misses(
    llamacli: Invoke, hub: LocalHub, text: str, code: int, words: str
) -> None:
    hub.add(REPO, {Q4: b"x", "Tiny-Q8_0.gguf": b"y"})
    result = llamacli("download", text)
    assert result.code == code and words in result.err and not result.out


def test_a_gated_repository_tells_the_two_steps(llamacli: Invoke, hub: LocalHub, cache: Path) -> None:
    hub.add("g/Gated", {"M-Q4_K_M.gguf": noise(1000)}, gated=True)
    refused = llamacli("download", "g/Gated:Q4_K_M")
    assert refused.code == 7
    assert f"1  open {hub.url}/g/Gated and accept the licence" in refused.err
    assert "2  export HF_TOKEN=" in refused.err and "nothing was downloaded" in refused.err
    assert not (cache / "models--g--Gated").exists(), "hf calls a repository without a snapshot damaged"
    assert "owner has let you in" in llamacli("download", "g/Gated:Q4_K_M", HF_TOKEN="hf_another0123").err
    assert llamacli("download", "g/Gated:Q4_K_M", HF_TOKEN=hub.token).code == 0


def test_a_private_repository_looks_like_none_until_the_token_is_there(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("p/Private", {"M-Q4_K_M.gguf": noise(1000)}, private=True)
    refused = llamacli("download", "p/Private:Q4_K_M")
    assert refused.code == 3 and "if it is private" in refused.err
    assert llamacli("download", "p/Private:Q4_K_M", HF_TOKEN=hub.token).code == 0


def test_a_repository_that_moved_is_found(llamacli: Invoke, hub: LocalHub) -> None:
    hub.moved["old/Name"] = REPO
    result = llamacli("download", "old/Name:Q8_0")
    assert result.code == 0 and f"called {REPO} now" in result.err


def test_busy_servers_are_asked_again_and_obeyed(llamacli: Invoke, hub: LocalHub) -> None:
    hub.answers["hub"].extend([(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"}), (500, {})])
    hub.answers["cdn"].extend([(503, {"Retry-After": "0"}), (429, {"RateLimit": '"resolvers";r=0;t=0'}), (502, {})])
    assert llamacli("download", f"{REPO}:Q8_0").code == 0
    hub.answers["hub"].append((429, {"Retry-After": "4000"}))
    refused = llamacli("download", f"{REPO}:Q4_K_M")
    assert refused.code == 7 and "67 minutes" in refused.err


def test_a_signed_address_that_expired_is_asked_for_again(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("a/Big", {"x.gguf": noise(20_000_000)})
    hub.cut = lambda length: length // 2 if len(hub.asked("cdn")) < 3 else None
    hub.answers["cdn"].clear()
    assert llamacli("download", "a/Big:x.gguf").code == 0
    hub.add("a/Big2", {"x.gguf": noise(20_000_000, 2)})
    served = 0

    def expire(length: int) -> int | None:
        nonlocal served
        served += 1
        if served == 1:
            hub.answers["cdn"].append((403, {}))
        return None

    hub.cut = expire
    assert llamacli("download", "a/Big2:x.gguf").code == 0


def test_a_login_page_is_no_model(llamacli: Invoke, hub: LocalHub, cache: Path) -> None:
    hub.portal = True
    assert llamacli("download", REPO).code == 7
    hub.portal = False
    hub.answers["cdn"].append((200, {"Content-Type": "text/html"}))
    refused = llamacli("download", f"{REPO}:Q8_0")
    assert refused.code == 7 and "web page" in refused.err and "log in" in refused.err
    assert not list(cache.rglob("snapshots/*/*"))


def test_no_network_is_one_line(llamacli: Invoke, hub: LocalHub) -> None:
    result = llamacli("download", REPO, HF_ENDPOINT="ftp://x")
    assert result.code == 2 and "HF_ENDPOINT" in result.err
    result = llamacli("download", REPO, HF_TOKEN="hf_with\nnewline")
    assert result.code == 2 and "newline" not in result.err


@pytest.mark.parametrize("offset", [0, 1, 262_143, 499_999])
def test_one_flipped_bit_is_refused(llamacli: Invoke, hub: LocalHub, cache: Path, offset: int) -> None:
    hub.flip = {offset}
    refused = llamacli("download", f"{REPO}:Q8_0")
    assert refused.code == 9 and "hash" in refused.err and not refused.out
    assert not list(cache.rglob("*.gguf")) and not [p for p in cache.rglob("blobs/*") if p.stat().st_size]
    hub.flip = set()
    assert llamacli("download", f"{REPO}:Q8_0").code == 0


def test_small_files_are_verified_too(llamacli: Invoke, hub: LocalHub) -> None:
    hub.flip = {3}
    assert llamacli("download", REPO, "--file", "README.md").code == 9


def test_a_server_without_ranges_will_do(llamacli: Invoke, hub: LocalHub) -> None:
    hub.ranges = False
    cuts = iter([1_000_000, 2_900_000])
    hub.cut = lambda length: next(cuts, None)
    path = Path(llamacli("download", f"{REPO}:Q4_K_M").out.strip())
    assert path.read_bytes() == hub.repos[REPO].files[Q4].content


def test_a_refused_range_starts_over(llamacli: Invoke, hub: LocalHub) -> None:
    hub.refuse_range = 1
    assert llamacli("download", f"{REPO}:Q4_K_M").code == 0
    hub.refuse_range = 100
    assert llamacli("download", f"{REPO}:Q8_0").code == 9


def test_a_file_that_changed_on_the_server_is_fetched_from_its_beginning(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("a/Big", {"x.gguf": noise(20_000_000)})
    cuts = iter([3_000_000])

    def cut(length: int) -> int | None:
        if (first := next(cuts, None)) is not None:
            hub.etag = '"two"'
            return first
        return None

    hub.cut = cut
    assert llamacli("download", "a/Big:x.gguf").code == 0


def test_drops_cost_no_byte_twice(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("a/Big", {"x.gguf": noise(20_000_000)})
    cuts = iter([100_000, 1, 65_536, 3_333_333, 700_000, 0])
    hub.cut = lambda length: next(cuts, None)
    hub.sent = 0
    path = Path(llamacli("download", "a/Big:x.gguf").out.strip())
    assert path.stat().st_size == hub.sent == 20_000_000


def test_a_silent_server_is_left_and_asked_again(llamacli: Invoke, hub: LocalHub) -> None:
    hub.stall.set()
    import threading

    threading.Timer(1.5, hub.stall.clear).start()
    began = time.monotonic()
    assert llamacli("download", f"{REPO}:Q8_0", HF_HUB_DOWNLOAD_TIMEOUT="0.5").code == 0
    assert time.monotonic() - began < 20


def test_a_limit_is_a_rate_or_a_usage_error(llamacli: Invoke, hub: LocalHub) -> None:
    assert llamacli("download", f"{REPO}:Q4_K_M", "--limit-rate", "2M").code == 0
    assert llamacli("download", REPO, "--limit-rate", "fast").code == 2


# -- processes that die, and others that wait ----------------------------------------------------------------------


def start(hub: LocalHub, tmp_path: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", **env}
    return subprocess.Popen(
        [sys.executable, "-m", "llamacli", *arguments],
        env={**environment, "LLAMACLI_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sent_at_least(hub: LocalHub, count: int) -> None:
    deadline = time.monotonic() + 20
    while hub.sent < count and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_a_killed_download_goes_on_where_it_stopped(hub: LocalHub, tmp_path: Path, cache: Path) -> None:
    size = 40_000_000
    hub.add("a/Big", {"x.gguf": noise(size)})
    hub.rate = 4_000_000
    for share in (0.25, 0.5, 0.75):
        process = start(hub, tmp_path, "download", "a/Big:x.gguf")
        sent_at_least(hub, int(size * share))
        process.kill()
        process.communicate()
        assert not list(cache.rglob("*.gguf")), "no file has its name before it is whole"
    hub.rate = 0
    process = start(hub, tmp_path, "download", "a/Big:x.gguf", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert '"resumed_from": 0' not in out
    assert hub.sent < size + 3 * (9 << 20)
    assert not leftovers(cache)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quietly_and_keeps_what_came(
    hub: LocalHub, tmp_path: Path, cache: Path, number: signal.Signals, code: int
) -> None:
    hub.add("a/Big", {"x.gguf": noise(20_000_000)})
    hub.rate = 3_000_000
    process = start(hub, tmp_path, "download", "a/Big:x.gguf")
    sent_at_least(hub, 5_000_000)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (code, "") and "Traceback" not in err
    assert leftovers(cache) and not list(cache.rglob("*.gguf"))
    assert ("the same command goes on from there" in err) == (number == signal.SIGINT)


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_of_many_processes_one_downloads_and_a_dead_one_is_replaced(hub: LocalHub, tmp_path: Path, cache: Path) -> None:
    size = 12_000_000
    hub.add("a/Big", {"x.gguf": noise(size)})
    hub.rate = 3_000_000
    first = start(hub, tmp_path, "download", "a/Big:x.gguf")
    sent_at_least(hub, 2_000_000)
    others = [start(hub, tmp_path, "download", "a/Big:x.gguf") for _ in range(3)]
    sent_at_least(hub, 6_000_000)
    first.kill()
    first.communicate()
    results = [p.communicate(timeout=60) for p in others]
    assert all(p.returncode == 0 for p in others), results
    assert len({out for out, _ in results}) == 1
    assert Path(results[0][0].strip()).read_bytes() == hub.repos["a/Big"].files["x.gguf"].content
    assert hub.sent < size + (9 << 20) and not leftovers(cache)


# -- who learns the token ------------------------------------------------------------------------------------------


def trouble(hub: LocalHub) -> Iterator[Callable[[], object]]:
    """One way after another to fail."""
    for status in (400, 401, 402, 403, 404, 410, 418, 451):
        yield lambda s=status: hub.answers["hub"].append((s, {"X-Error-Message": f"Bearer {hub.token}"}))  # type: ignore[misc]
        yield lambda s=status: hub.answers["cdn"].extend([(s, {"X-Error-Message": hub.token})] * 40)  # type: ignore[misc]
    yield lambda: hub.answers["hub"].append((302, {"Location": f"{hub.cdn}/steal?{SECRET}"}))
    yield lambda: hub.answers["hub"].append((302, {"Location": "ftp://example.invalid/x"}))
    yield lambda: hub.answers["hub"].extend([(302, {"Location": hub.url + "/again"})] * 50)
    yield lambda: hub.answers["hub"].append((302, {"Location": "http://[bad"}))
    yield lambda: hub.answers["hub"].append((429, {"Retry-After": "99999"}))
    yield lambda: hub.answers["cdn"].append((429, {"Retry-After": "99999"}))
    yield lambda: hub.answers["hub"].append((401, {"X-Error-Message": "Invalid credentials in Authorization header"}))
    yield lambda: hub.flip.add(7)
    yield lambda: setattr(hub, "portal", True)
    yield lambda: setattr(hub, "refuse_range", 100)
    yield lambda: hub.add(REPO, {Q4: noise(1000)}, gated=True)


def test_the_token_stays_with_the_hub_in_every_failure(llamacli: Invoke, hub: LocalHub, tmp_path: Path) -> None:
    failures = 0
    for cause in trouble(hub):
        for verbose in ("-q", "-v", "-vv"):
            hub.calm()
            hub.add(REPO, {Q4: noise(100_000)})
            cause()
            token = hub.token if not hub.repos[REPO].gated else hub.token + "x"
            cache = str(tmp_path / f"cache-{len(hub.requests)}")
            result = llamacli("download", f"{REPO}:Q4_K_M", verbose, HF_TOKEN=token, HF_HUB_CACHE=cache)
            failures += result.code != 0
            for text in (result.out, result.err):
                assert hub.token not in text and "canary" not in text.lower(), text
            assert "Traceback" not in result.err and "internal error" not in result.err
    assert failures >= 60
    assert any("authorization" in r.headers for r in hub.asked("hub"))
    assert not any("authorization" in r.headers for r in hub.asked("cdn"))
    assert not any(hub.token in str(r) for r in hub.asked("cdn"))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or hub.token.encode() not in path.read_bytes(), path


def test_a_proxy_is_used_and_told_only_what_it_must_know(llamacli: Invoke, hub: LocalHub) -> None:
    with local_hub() as proxy:
        proxy.repos = hub.repos
        proxy.answers["hub"].append((502, {}))
        result = llamacli(
            "download", REPO, "--list", HTTP_PROXY=f"http://user:pass@127.0.0.1:{proxy.url.rsplit(':')[-1]}", HF_ENDPOINT="http://hub.invalid"
        )  # fmt: skip
        first = proxy.asked("hub")[0]
        assert first.path.startswith(f"http://hub.invalid/api/models/{REPO}")
        assert first.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
        assert result.code == 0 and not hub.requests
    assert llamacli("download", REPO, "--list", HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="127.0.0.1").code == 0
    assert llamacli("download", REPO, "--list", ALL_PROXY="socks5://127.0.0.1:9").code == 2


# -- hostile listings and planted links ----------------------------------------------------------------------------

HOSTILE = ["../../evil.gguf", "/etc/evil.gguf", "C:\\evil.gguf", "a/../../evil.gguf", "evil\x00.gguf", "ev\x1b[2Jil.gguf",
           "x" * 300 + ".gguf", "nul.gguf", "evil.gguf.", "a//evil.gguf"]  # fmt: skip


def test_hostile_names_are_not_even_seen(llamacli: Invoke, hub: LocalHub, tmp_path: Path) -> None:
    bad = HubFile(b"evil").listing
    hub.add("a/Evil", {"good-Q4_K_M.gguf": noise(1000)}, extra=dict.fromkeys(HOSTILE, bad))
    before = set(tmp_path.rglob("*"))
    listing = llamacli("download", "a/Evil", "--list")
    assert listing.code == 0 and "evil" not in listing.out and "\x1b" not in listing.out
    for name in HOSTILE:
        assert llamacli("download", "a/Evil", "--file", name).code in (2, 3)
    assert llamacli("download", "a/Evil", "--file", "*").code == 0
    new = set(tmp_path.rglob("*")) - before
    assert all(p.is_relative_to(tmp_path / "hf") for p in new) and not [p for p in new if "evil.gguf" in p.name]


def test_names_that_differ_only_in_case_are_refused(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("a/Twins", {"m.safetensors": b"1", "M.safetensors": b"2", "config.json": b"{}"})
    assert llamacli("download", "a/Twins").code == 9


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_planted_links_are_refused(llamacli: Invoke, hub: LocalHub, tmp_path: Path, cache: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    repo = cache / ("models--" + REPO.replace("/", "--"))
    for planted in ("blobs", "snapshots", "refs"):
        repo.mkdir(parents=True, exist_ok=True)
        (repo / planted).symlink_to(victim)
        assert llamacli("download", f"{REPO}:Q8_0").code == 12, planted
        assert not list(victim.iterdir())
        (repo / planted).unlink()
    digest = hub.repos[REPO].files["Tiny-Q8_0.gguf"].digest
    (repo / "blobs").mkdir(exist_ok=True)
    (victim / "bashrc").write_text("precious")
    for name in (f"{digest}.llamacli-part", f"{digest}.llamacli-part.json.new"):
        for old in (repo / "blobs").iterdir():
            old.unlink()
        (repo / "blobs" / name).symlink_to(victim / "bashrc")
        result = llamacli("download", f"{REPO}:Q8_0")
        assert (victim / "bashrc").read_text() == "precious", name
        assert result.code in (0, 12)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_still_serves(llamacli: Invoke, cache: Path) -> None:
    path = llamacli("download", f"{REPO}:Q4_K_M").out
    folders = [cache, *[p for p in cache.rglob("*") if p.is_dir()]]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert llamacli("download", f"{REPO}:Q4_K_M").out == path
        assert llamacli("download", f"{REPO}:Q8_0").code == 12
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_disk_that_is_too_small_is_noticed_before(llamacli: Invoke, hub: LocalHub, cache: Path) -> None:
    huge = HubFile(b"x").listing
    huge["lfs"]["size"] = huge["size"] = 1 << 60
    hub.add("a/Huge", {}, extra={"x-Q4_K_M.gguf": huge})
    refused = llamacli("download", "a/Huge:Q4_K_M", "-y")
    assert refused.code == 12 and "too small" in refused.err and not hub.asked("cdn")
    assert "67.1 MB kept free" in refused.err
    assert llamacli("download", "a/Huge").code == 6


# -- a command that needs a model ----------------------------------------------------------------------------------


def test_a_model_that_is_not_here_is_fetched_only_when_that_was_asked_for(
    context: Callable[..., Context], hub: LocalHub
) -> None:
    here = context(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
    with pytest.raises(NotFound) as caught:
        obtain(here, f"{REPO}:Q8_0")
    assert caught.value.hint.startswith(f"llamacli download {REPO}:Q8_0") and not hub.requests
    path = obtain(here, f"{REPO}:Q8_0", pull=True)
    assert path.read_bytes() == hub.repos[REPO].files["Tiny-Q8_0.gguf"].content
    hub.requests.clear()
    assert obtain(here, f"{REPO}:Q8_0") == obtain(here, f"{REPO}:Q8_0", pull=True) == path
    assert not hub.requests
    hub.add("a/Base", {"model.safetensors": b"w", "config.json": b"{}"})
    with pytest.raises(CorruptFile, match="too short"):  # it was to be quantized from there
        obtain(here, "a/Base", pull=True)


def test_an_address_that_was_not_encoded_is_followed_all_the_same(llamacli: Invoke, hub: LocalHub) -> None:
    hub.add("a/Odd", {"modèle 1-Q4_0.gguf": noise(1000)})
    hub.redirect_to = f"{hub.cdn}/a/Odd/modèle 1-Q4_0.gguf".encode().decode("latin-1")
    assert llamacli("download", "a/Odd:Q4_0").code == 0


def test_a_file_that_is_compressed_on_its_way_is_told_at_once(llamacli: Invoke, hub: LocalHub) -> None:
    hub.answers["cdn"].append((200, {"Content-Encoding": "gzip"}))
    refused = llamacli("download", f"{REPO}:Q8_0")
    assert refused.code == 7 and "compresses" in refused.err and len(hub.asked("cdn")) == 1


@pytest.mark.parametrize(
    "address", ["http://me:s3cret@hub.example", "ftp://hub.example/?token=s3cret", "//me:s3cret@x"]
)
def test_a_password_in_the_hubs_address_is_not_shown(llamacli: Invoke, address: str) -> None:
    refused = llamacli("download", REPO, HF_ENDPOINT=address)
    assert refused.code == 2 and "s3cret" not in refused.err + refused.out


def test_files_that_were_asked_for_by_name_are_all_printed(llamacli: Invoke, hub: LocalHub) -> None:
    result = llamacli("download", REPO, "--file", "*Q8_0.gguf", "--file", "README.md")
    assert [Path(line).name for line in result.out.splitlines()] == ["Tiny-Q8_0.gguf", "README.md"]

"""Small rules of the HTTP client: proxies, waits, origins, words of errors."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from local_hub import local_hub

from llamacli.errors import LlamacliError, NetworkError, UsageError
from llamacli.library.http import BadStatus, Client, Session, Unreachable, origin_of, proxy_for
from llamacli.library.hub import Hub
from llamacli.library.patience import NOTICED, Patience, retry_after
from llamacli.library.places import Places


def places(**env: str) -> Places:
    return Places(env, Path("/home/me"), Path("/c"), Path("/d"))


def proxy(url: str, **env: str) -> str | None:
    found = proxy_for(env, urlsplit(url))
    return found.geturl() if found else None


def test_proxies_follow_the_usual_variables() -> None:
    both = {"http_proxy": "http://p:1", "HTTPS_PROXY": "q:2"}
    assert proxy("http://x/", **both) == "http://p:1"
    assert proxy("https://x/", **both) == "http://q:2"
    assert proxy("https://x/", all_proxy="http://a:3") == "http://a:3"
    assert proxy("http://x/", HTTP_PROXY="http://evil:1", REQUEST_METHOD="GET") is None


@pytest.mark.parametrize("rule", ["*", "hub.example", ".example", "example", "a,hub.example:8080", " HUB.example "])
def test_no_proxy_is_obeyed(rule: str) -> None:
    assert proxy("http://hub.example:8080/", http_proxy="http://p:1", no_proxy=rule) is None
    assert (
        proxy("http://other.test/", http_proxy="http://p:1", no_proxy=rule.replace("*", "hub.example")) == "http://p:1"
    )


def test_a_socks_proxy_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="socks5"):
        proxy("https://x/", ALL_PROXY="socks5://p:1")


def test_the_token_goes_to_one_origin_only() -> None:
    client = Client(places(HF_TOKEN="hf_abcdefgh1", HF_ENDPOINT="https://hub.example"))
    for url, told in {
        "https://hub.example/x": True,
        "https://HUB.example:443/x": True,
        "http://hub.example/x": False,
        "https://hub.example:8443/x": False,
        "https://cdn.hub.example/x": False,
        "https://hub.example.evil/x": False,
        "https://hub.example@evil/x": False,
    }.items():
        assert ("Authorization" in client.headers_for(url)) == told, url
    assert "hf_abcdefgh1" not in client.redact("Bearer hf_abcdefgh1 and hf_Other012345")


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "http://", "x", "http://[::1", "http://x:99999/"])
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(NetworkError):
        origin_of(url)


def test_the_token_is_read_where_huggingface_hub_reads_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" hf_fromfile \n")
    (tmp_path / "other").write_text("hf_other")
    assert places(HF_HOME=str(tmp_path)).token() == "hf_fromfile"
    assert places(HF_HOME=str(tmp_path), HF_TOKEN="hf_env").token() == "hf_env"
    assert places(HF_HOME=str(tmp_path), HF_TOKEN_PATH=str(tmp_path / "other")).token() == "hf_other"
    assert places(HF_HOME=str(tmp_path), HF_HUB_DISABLE_IMPLICIT_TOKEN="1").token() == ""
    assert places(HF_HOME=str(tmp_path / "none")).token() == ""


def test_the_cache_is_where_huggingface_hub_has_it() -> None:
    assert places().hub_cache == Path("/home/me/.cache/huggingface/hub")
    assert places(XDG_CACHE_HOME="/x").hub_cache == Path("/x/huggingface/hub")
    assert places(HF_HOME="~/hf").hub_cache == Path("/home/me/hf/hub")
    assert places(HF_HUB_CACHE="$BASE/hub", BASE="/b").hub_cache == Path("/b/hub")


def test_an_offline_client_opens_no_connection() -> None:
    client = Client(Places({}, Path("/h"), Path("/c"), Path("/d"), offline=True))
    with pytest.raises(NetworkError, match="switched off"):
        Session(client).get("https://huggingface.co/")


def test_nobody_there_is_said_without_an_address() -> None:
    session = Session(Client(places()))
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 refuses the connection"):
        session.get("http://127.0.0.1:9/secret?X-Signature=abc")


def test_a_server_says_when_to_come_back() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < (retry_after({"retry-after": date}) or 0) <= 31
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"ratelimit": '"api";r=0;t=55'}) == 55
    assert retry_after({"ratelimit": '"api";r=12;t=55'}) is None
    assert retry_after({}) is None


def test_waits_grow_and_have_an_end() -> None:
    patience = Patience(first=1, longest=8)
    for failures, most in ((1, 1), (2, 2), (3, 4), (4, 8), (9, 8)):
        assert most / 2 <= patience.wait(failures) <= most
    assert 3 <= patience.wait(1, {"retry-after": "3"}) <= 4
    with pytest.raises(NetworkError, match="60 minutes"):
        patience.wait(1, {"retry-after": "3600"})


def test_a_proxy_that_is_not_there_is_named() -> None:
    session = Session(Client(places(HTTP_PROXY="http://me:secret@127.0.0.1:9")))
    with pytest.raises(Unreachable, match=r"the proxy on the way to x\.test: 127\.0\.0\.1 refuses") as caught:
        session.get("http://x.test/")
    assert "secret" not in str(caught.value)


def test_a_server_without_tls_is_asked_once() -> None:
    with local_hub() as hub:
        address = hub.url.replace("http:", "https:")
        there = Hub(Client(places(HF_ENDPOINT=address)), address, Patience(first=0.001))
        with pytest.raises(NetworkError, match=r"no secure connection to 127\.0\.0\.1") as caught:
            there.repo("a/b")
        assert "HF_ENDPOINT" in caught.value.hint and "tried" not in caught.value.hint


def test_a_proxy_wants_a_password() -> None:
    with local_hub() as hub:
        hub.answers["hub"].append((407, {}))
        with pytest.raises(NetworkError, match="proxy wants a user name") as caught:
            Hub(Client(places(HF_ENDPOINT=hub.url)), hub.url).repo("a/b")
        assert "USER:PASSWORD@" in caught.value.hint


def test_a_long_wait_is_told_and_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)

    def work() -> None:
        raise Unreachable("x.test does not answer")

    with pytest.raises(NetworkError, match="does not answer"):
        Patience(first=1, questions=4, told=heard.append).call(work)
    assert len(slept) == 3 and len(heard) == sum(wait >= NOTICED for wait in slept) >= 1
    assert heard[-1].startswith("x.test does not answer; trying again in ")


@pytest.mark.parametrize(("status", "tries"), [(503, 3), (429, 3), (408, 3), (404, 1), (403, 1), (400, 1)])
def test_only_what_may_get_better_is_tried_again(status: int, tries: int) -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise BadStatus(status, "http://x/", {})

    with pytest.raises((BadStatus, LlamacliError)):
        Patience(questions=3, first=0.001).call(work)
    assert len(calls) == tries

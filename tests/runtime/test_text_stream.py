"""Token bytes to text: whole characters at any cut, and stop strings across pieces."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.runtime.text import StopStrings, Utf8Stream, overlap


def decoded(pieces: list[bytes]) -> list[str]:
    stream = Utf8Stream()
    return [*map(stream.feed, pieces), stream.finish()]


def test_every_kind_of_character_survives_every_cut() -> None:
    for text in ("aé€😀", "\x00\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff", "e\u0301 👩\u200d👩\u200d👧 \ufeff"):
        data = text.encode()
        for cut in range(len(data) + 1):
            for second in range(cut, len(data) + 1):
                assert "".join(decoded([data[:cut], data[cut:second], data[second:]])) == text


@settings(deadline=None)
@given(st.text(), st.lists(st.integers(0, 200), max_size=12))
def test_valid_text_comes_out_as_it_went_in(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "ignore")
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    assert "".join(decoded(pieces)).encode() == data


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 40))
def test_garbage_becomes_replacement_characters_as_python_decodes_it(data: bytes, cut: int) -> None:
    assert "".join(decoded([data[:cut], data[cut:]])) == data.decode("utf-8", "replace")


def test_a_character_waits_until_it_is_whole_and_text_behind_it_waits_too() -> None:
    stream = Utf8Stream()
    assert stream.feed(b"\xf0\x9f") == ""
    assert stream.feed("x") == "\ufffdx"
    assert stream.feed(b"\xc3") == ""
    assert stream.feed(b"\xa9!") == "é!"
    assert stream.feed("plain") == "plain"


def test_a_cut_character_at_the_end_is_shown_as_one_replacement() -> None:
    assert decoded([b"ok\xe2\x82"]) == ["ok", "\ufffd"]


def stopped(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    watch = StopStrings(stops)
    out = ""
    for piece in pieces:
        text, hit = watch.feed(piece)
        out += text
        if hit:
            return out, True
    return out + watch.finish(), False


@settings(deadline=None)
@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), st.integers(0, 30))
def test_stop_strings_are_found_wherever_they_are_cut(text: str, stops: list[str], cut: int) -> None:
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    expected = text[: min(places)] if places else text
    for pieces in (list(text), [text[:cut], text[cut:]], [text]):
        shown, hit = stopped(stops, pieces)
        assert hit == bool(places)
        # Fed in small pieces the string that ends first wins, which can only be later in the text.
        assert expected.startswith(shown) or shown.startswith(expected)
    assert stopped(stops, [text])[0] == expected


def test_nothing_is_held_back_that_cannot_become_a_stop_string() -> None:
    watch = StopStrings(["User:"])
    assert watch.feed("Hello Us") == ("Hello ", False)
    assert watch.feed("ually") == ("Usually", False)
    assert watch.feed(" User: hi") == (" ", True)


def test_the_overlap_is_never_the_whole_word() -> None:
    assert overlap("ab", "ab") == 0
    assert overlap("xa", "ab") == 1
    assert overlap("", "ab") == 0

"""What the model says cannot command the terminal: hostile streams against a terminal emulator."""

from __future__ import annotations

import random

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.cli.screen.sanitize import LONGEST_SEQUENCE, Sanitizer, sanitize

HOSTILE = (
    "\x1b[2J", "\x1b[H", "\x1b[31;1m", "\x1b[?25l", "\x1b[?1049h", "\x1b[?2004h", "\x1b[6n", "\x1b[c", "\x1b[3;7r",
    "\x1b]0;owned\x07", "\x1b]2;owned\x1b\\", "\x1b]52;c;ZXZpbA==\x07", "\x1b]8;;http://x\x1b\\", "\x1b]P1ff0000",
    "\x1bP$q\"p\x1b\\", "\x1b_Gf=100;AAAA\x1b\\", "\x1b^private\x1b\\", "\x1bXstring\x1b\\", "\x1bc", "\x1b7", "\x1b8",
    "\x1b(0", "\x1b)B", "\x1b#8", "\x1b%G", "\x1bM", "\x1bD", "\x1bE", "\x1bH", "\x1b=", "\x1b>", "\x1bN", "\x1bO",
    "\x9b2J", "\x9b31m", "\x9b?25l", "\x9d0;owned\x9c", "\x90q\x9c", "\x9fapc\x9c", "\x9epm\x9c", "\x98sos\x9c",
    "\x85", "\x84", "\x88", "\x8d", "\r", "\x08\x08\x08", "\x07", "\x00", "\x05", "\x0b", "\x0c", "\x0e", "\x0f",
    "\x7f", "\x1b", "\x1b[", "\x1b[1;", "\x1b]0;never ends", "\x1b[\x1b[2J", "\x1b]0;a\x1b[2Jb\x07", "\x1b\x1b[2J",
    "\x18", "\x1a", "\x1b[38;2;1;2;3m", "\x1b[!p", "\x1b[1$p", "\u202e", "\u2066", "\u2069",
)  # fmt: skip
VISIBLE = (
    "Hello",
    " world",
    "\n",
    "\t",
    "é",
    "日本",
    "🙂",
    "👩‍👩‍👧",
    "שלום",
    "[31m",
    "]0;x",
    "a\\b",
    "0m",
    ";",
    "\u200d",
    "ﬁ",
)

DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Terminal:
    """What a terminal would be after `text`: everything but the characters on its screen."""

    def __init__(self, text: str) -> None:
        self.screen = pyte.Screen(60, 12)
        self.replies: list[str] = []
        self.screen.write_process_input = self.replies.append  # type: ignore[method-assign]
        pyte.Stream(self.screen).feed(text.replace("\n", "\r\n"))

    def state(self) -> tuple[object, ...]:
        screen = self.screen
        cursor = screen.cursor
        return (
            set(screen.mode), screen.title, screen.icon_name, screen.margins, screen.charset, screen.g0_charset,
            screen.g1_charset, set(screen.tabstops), cursor.hidden, cursor.attrs, list(screen.savepoints), self.replies,
        )  # fmt: skip


def clean_in_cuts(text: str, cuts: list[int]) -> str:
    sanitizer, out, start = Sanitizer(), "", 0
    for stop in [*sorted(cuts), len(text)]:
        out += sanitizer.feed(text[start:stop])
        start = stop
    return out + sanitizer.flush()


def random_stream(rng: random.Random) -> str:
    return "".join(rng.choice(HOSTILE if rng.random() < 0.5 else VISIBLE) for _ in range(rng.randint(1, 25)))


@pytest.mark.parametrize("block", range(5))
def test_a_thousand_hostile_streams_at_random_cuts_change_nothing_but_text(block: int) -> None:
    rng = random.Random(block)
    untouched = Terminal("").state()
    for _ in range(1000):
        text = random_stream(rng)
        cuts = [rng.randint(0, len(text)) for _ in range(rng.randint(0, 12))]
        shown = clean_in_cuts(text, cuts)
        assert shown == sanitize(text), "the cuts must not matter"
        assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in shown)
        terminal = Terminal(shown)
        assert terminal.state() == untouched, repr(text)


def test_the_terminal_emulator_would_notice_without_the_sanitizer() -> None:
    untouched = Terminal("").state()
    noticed = [payload for payload in HOSTILE if Terminal(payload).state() != untouched]
    assert len(noticed) >= 15


@pytest.mark.parametrize("payload", HOSTILE)
def test_text_on_the_next_line_survives_every_payload(payload: str) -> None:
    assert sanitize(f"before {payload}\nafter").startswith("before ")
    assert sanitize(f"before {payload}\nafter").endswith("\nafter")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0mb", "aredb"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x9d0;title\x9cb", "ab"),
        ("a\x1b(0b", "ab"),
        ("a\r\nb\rc", "a\nbc"),
        ("a\x1b[3é", "aé"),
        ("x\u202ey", "x<U+202E>y"),
        ("x\udc9by", "x\N{REPLACEMENT CHARACTER}y"),
        ("\x1b\x1b\x1b[0mok", "ok"),
        ("[31m is not a sequence without ESC", "[31m is not a sequence without ESC"),
    ],
)
def test_known_sequences(text: str, shown: str) -> None:
    for cut in range(len(text) + 1):
        assert clean_in_cuts(text, [cut]) == shown


@pytest.mark.parametrize("opening", ["\x1b]0;", "\x1bP", "\x1b[", "\x9d", "\x9b", "\x1b_"])
def test_an_unfinished_sequence_does_not_swallow_the_answer(opening: str) -> None:
    assert sanitize(f"{opening}1 2\nthe rest") == "\nthe rest"
    assert sanitize(opening + "1" * (LONGEST_SEQUENCE + 50)).endswith("1" * 45)


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=DIRECTION)))
def test_visible_text_is_untouched(text: str) -> None:
    assert sanitize(text) == text


@settings(deadline=None, max_examples=300)
@given(st.text(), st.lists(st.integers(0, 200), max_size=6))
def test_the_result_is_the_same_for_all_cuts_and_once_cleaned_stays(text: str, cuts: list[int]) -> None:
    shown = clean_in_cuts(text, [min(cut, len(text)) for cut in cuts])
    assert shown == sanitize(text) == sanitize(shown)
    shown.encode("utf-8")

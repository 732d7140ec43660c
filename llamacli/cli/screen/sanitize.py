"""What a model says may be read, never obeyed: text for a terminal without anything that could command it.

The sequences are those of ECMA-48 (control functions of coded character sets) and of xterm's "control sequences":
ESC with its 7-bit introducers, and the same functions as single C1 characters (U+0080 to U+009F).
"""

from __future__ import annotations

import re
from enum import Enum, auto

LONGEST_SEQUENCE = 256
"""Characters after which an unfinished sequence is given up, so that it cannot swallow an answer."""

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STRINGS_7BIT = "]PX^_"  # OSC, DCS, SOS, PM, APC: everything up to a terminator is theirs
_STRINGS_8BIT = "\x9d\x90\x98\x9e\x9f"
_CSI_8BIT, _ST_8BIT = "\x9b", "\x9c"
_ESC, _BEL, _CAN, _SUB = "\x1b", "\x07", "\x18", "\x1a"


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()  # after ESC, and after ESC's intermediate characters
    CSI = auto()
    STRING = auto()
    STRING_ESCAPE = auto()  # ESC within a string: the first half of ST, or a new sequence


class Sanitizer:
    r"""Removes control sequences from a stream of text, however the stream is cut.

    What remains is visible text, `\n` and `\t`. Removed: 7-bit and 8-bit escape, control and string sequences with
    their content, all other C0 and C1 controls, DEL, and CR (so `\r\n` becomes `\n`). Overrides and isolates of the
    writing direction, which can make text read as something else, are shown as `<U+202E>`; lone surrogates become
    U+FFFD. A sequence that does not end is given up at the end of its line or after `LONGEST_SEQUENCE` characters.
    """

    def __init__(self) -> None:
        self._state = _State.TEXT
        self._length = 0

    def feed(self, text: str) -> str:
        """The part of `text` that may be shown, given what came before."""
        if self._state is _State.TEXT and not _UNSAFE.search(text):
            return text
        return "".join(map(self._next, text))

    def flush(self) -> str:
        """End the stream: an unfinished sequence is dropped. Nothing visible is ever held back."""
        self._state = _State.TEXT
        return ""

    def _next(self, char: str) -> str:
        if self._state is not _State.TEXT:
            self._length += 1
            if char == "\n" or self._length > LONGEST_SEQUENCE:
                self._state = _State.TEXT
        if self._state is _State.TEXT:
            return self._text(char)
        return _STEPS[self._state](self, char)

    def _text(self, char: str) -> str:
        if not _UNSAFE.match(char):
            return char
        if char == _ESC:
            self._begin(_State.ESCAPE)
        elif char == _CSI_8BIT:
            self._begin(_State.CSI)
        elif char in _STRINGS_8BIT:
            self._begin(_State.STRING)
        elif "\ud800" <= char <= "\udfff":
            return "\N{REPLACEMENT CHARACTER}"
        elif char > "\u2000":
            return f"<U+{ord(char):04X}>"
        return ""

    def _escape(self, char: str) -> str:
        if char == "[":
            self._begin(_State.CSI)
        elif char in _STRINGS_7BIT:
            self._begin(_State.STRING)
        elif " " <= char <= "/":
            pass  # an intermediate: one more character belongs to the sequence
        elif "0" <= char <= "~":
            self._state = _State.TEXT
        else:
            return self._interrupted(char)
        return ""

    def _csi(self, char: str) -> str:
        if " " <= char <= "?":
            return ""
        if "@" <= char <= "~":
            self._state = _State.TEXT
            return ""
        return self._interrupted(char)

    def _string(self, char: str) -> str:
        if char == _ESC:
            self._state = _State.STRING_ESCAPE
        elif char in (_BEL, _ST_8BIT, _CAN, _SUB):
            self._state = _State.TEXT
        return ""

    def _string_escape(self, char: str) -> str:
        if char == "\\":
            self._state = _State.TEXT
            return ""
        self._begin(_State.ESCAPE)
        return self._escape(char)

    def _begin(self, state: _State) -> None:
        self._state, self._length = state, 0

    def _interrupted(self, char: str) -> str:
        """A character that cannot belong to the sequence ends it and stands for itself."""
        self._state = _State.TEXT
        return self._text(char)


_STEPS = {
    _State.ESCAPE: Sanitizer._escape,
    _State.CSI: Sanitizer._csi,
    _State.STRING: Sanitizer._string,
    _State.STRING_ESCAPE: Sanitizer._string_escape,
}


def sanitize(text: str) -> str:
    """A whole text without control sequences."""
    return Sanitizer().feed(text)

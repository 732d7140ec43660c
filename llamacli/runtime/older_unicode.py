"""Unicode as the tokenizers of Hugging Face's library know it, whatever Python's own version.

That library normalizes by the tables of Unicode 9, and takes for marks, punctuation and invisible characters what Unicode 8
had as such; models were tuned with it. Characters keep what they are once they are assigned, so lists of the newer ones
are enough; `benchmarks/unicode_ages.py` makes them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, cast

_AFTER_8 = (
    "5c8-5c9 61d 7fd 890-891 897-89f 8ca-8e2 9fd-9fe a76 afa-aff b53-b55 c04 c3c c77 c84 d00 d3b-d3c d81 eba "
    "ece 180f 1abf-1af0 1b4e-1b4f 1b7d-1b7f 1df6-1dfb 2e43-2e4f 2e52-2e5d 2e60-2e63 a82c a8c5 a8ff 10d24-10d27 "
    "10d69-10d6e 10eab-10ead 10ecb-10ed0 10ef0-10eff 10f46-10f50 10f55-10f59 10f82-10f89 11070 11073-11074 "
    "110c2 110cd 111cf 1123e 11241 1133b 113bb-113c0 113ce 113d0 113d2 113d4-113d5 113d7-113d8 113e1-113e2 "
    "11438-1143f 11442-11444 11446 1144b-1144f 1145a-1145b 1145d-1145e 11660-1166c 116b9 1182f-11837 "
    "11839-1183b 1193b-1193c 1193e 11943-11946 119d4-119d7 119da-119db 119e0 119e2 11a01-11a0a 11a33-11a38 "
    "11a3b-11a47 11a51-11a56 11a59-11a5b 11a8a-11a96 11a98-11a9c 11a9e-11aa2 11b00-11b09 11b60 11b62-11b64 "
    "11b66 11be1 11c30-11c36 11c38-11c3d 11c3f 11c41-11c45 11c70-11c71 11c92-11ca7 11caa-11cb0 11cb2-11cb3 "
    "11cb5-11cb6 11d31-11d36 11d3a 11d3c-11d3d 11d3f-11d45 11d47 11d90-11d91 11d95 11d97 11df0 11ef3-11ef4 "
    "11ef7-11ef8 11f00-11f01 11f36-11f3a 11f40 11f42-11f4f 11f5a 11fff 12ff1-12ff2 13430-13440 13447-13455 "
    "1611e-16129 1612d-1612f 16d6d-16d6f 16e97-16e9a 16f4f 16fe2 16fe4 1cf00-1cf2d 1cf30-1cf46 1d127-1d128 "
    "1d25b-1d25c 1e000-1e006 1e008-1e018 1e01b-1e021 1e023-1e024 1e026-1e02a 1e08f 1e130-1e136 1e2ae "
    "1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e5ff 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5 1e944-1e94a 1e95e-1e95f"
)
"""Marks without room, punctuation and format characters that Unicode 8 did not have."""
_AFTER_9 = (
    "558 58b-58c 5c8-5c9 7fd 897-89f 8ca-8d3 9fe c3c d3b-d3c eba 1715 1abf-1af0 1df6-1dfa 209d-209f 32ff "
    "a7f1-a7f4 a82c ab66-ab67 ab69 105c9 105d2 105da 105e4 10781-10785 10787-107b0 107b2-107bf 10d24-10d27 "
    "10d69-10d6d 10eab-10eac 10ecb-10ecf 10ef0-10efb 10efd-10eff 10f46-10f50 10f82-10f85 11070 1133b "
    "11382-11385 1138b 1138e 11390-11391 113b8 113bb 113c2 113c5 113c7-113c9 113ce-113d0 1145e 11839-1183a "
    "11930 11935 11938 1193d-1193e 11943 119e0 11a34 11a47 11a99 11d42 11d44-11d45 11d97 11f41-11f42 "
    "1611e-16129 1612f 16d63 16d67-16d6a 16ff0-16ff1 1b123-1b126 1ccd6-1ccf9 1d127-1d128 1d250-1d252 "
    "1d25b-1d25c 1d25f 1d280-1d281 1d6a6 1df04-1df06 1df08-1df0b 1df19 1df1c 1df1e 1df2b-1df2c 1df3e-1df3f "
    "1df50 1df57-1df59 1df95 1dfcd-1dfff 1e030-1e06d 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef "
    "1e5ee-1e5ef 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5 1f16c 1fbf0-1fbf9"
)
"""What Unicode 9 did not have and normalization moves, takes apart or joins."""

_MARKS_AFTER_9 = (
    "5c8-5c9 7fd 897-89f 8ca-8d3 9fe afa-aff b53-b55 c04 c3c d00 d3b-d3c d81 eba ece 1715 180f 1abf-1af0 1b4e-1b4f "
    "1b7f 1cf7 1df6-1dfa 2e60-2e63 a82c a8ff 10d24-10d27 10d69-10d6e 10eab-10eac 10ecb-10ed0 10ef0-10eff 10f46-10f50 "
    "10f82-10f85 11070 11073-11074 110c2 11145-11146 111c9 111ce-111cf 11241 1133b 113bb-113c0 113ce 113d0 113d2 "
    "113d4-113d5 113d7-113d8 113e1-113e2 1145e 1182c-1183a 11930-11935 11937-11938 1193b-1193e 11940 11942-11943 "
    "119d1-119d7 119da-119e0 119e4 11a01-11a0a 11a33-11a39 11a3b-11a3e 11a47 11a51-11a5b 11a8a-11a99 11b00-11b09 "
    "11b60 11b62-11b64 11b66 11be1 11d31-11d36 11d3a 11d3c-11d3d 11d3f-11d45 11d47 11d8a-11d8e 11d90-11d91 "
    "11d93-11d97 11df0 11ef3-11ef6 11f00-11f01 11f36-11f3a 11f40 11f42-11f4f 11f5a 13439-13440 13447-13455 "
    "1611e-16129 1612d-1612f 16d6d-16d6f 16f4f 16f7f-16f87 16fe4 16ff0-16ff1 1cf00-1cf2d 1cf30-1cf46 1d127-1d128 "
    "1d25b-1d25c 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef 1e4ec-1e4ef 1e5ee-1e5ef 1e5ff 1e6e3 1e6e6 1e6ee-1e6ef 1e6f5"
)
"""Marks of every kind that Unicode 9 did not have: those of Unicode 14 as the library knows them, later ones as above."""

_CHANGED = {
    "\u1734": "Mn",
    "\U0001171e": "Mn",
    "\u1885": "Lo",
    "\u1886": "Lo",
    "\ua9bd": "Mc",
    "\U000111c9": "Po",
    "\u166d": "Po",
}
"""Characters whose category was another one in Unicode 8."""

FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def character_class(ranges: str) -> str:
    """The inside of a character class of an expression, from ranges in hexadecimal."""
    parts = [[chr(int(point, 16)) for point in part.split("-")] for part in ranges.split()]
    return "".join("-".join(part) for part in parts)


NEWER_THAN_8 = re.compile(f"[{character_class(_AFTER_8)}]")
_NEWER_THAN_9 = re.compile(f"([{character_class(_AFTER_9)}]+)")


_NEWER_MARKS = re.compile(f"[{character_class(_MARKS_AFTER_9)}]")


def is_mark(character: str) -> bool:
    """Whether a character is a mark of any kind in Unicode 9."""
    return unicodedata.category(character)[0] == "M" and not _NEWER_MARKS.match(character)


def normalize(form: str, text: str) -> str:
    """`text` in a Unicode form; to Unicode 9 a newer character is one that nothing happens to and nothing passes."""
    if text.isascii():
        return text
    kind = cast("Literal['NFC', 'NFD', 'NFKC', 'NFKD']", form)
    parts = _NEWER_THAN_9.split(text)
    if len(parts) == 1:
        return unicodedata.normalize(kind, text)
    return "".join(part if place % 2 else unicodedata.normalize(kind, part) for place, part in enumerate(parts))


def category(character: str) -> str:
    """The general category as far as Unicode 8 tells marks, punctuation and what is invisible from other characters."""
    if NEWER_THAN_8.match(character):
        return "Cn"
    return _CHANGED.get(character) or unicodedata.category(character)


def is_punctuation(character: str) -> bool:
    """Signs of ASCII, and the punctuation of Unicode 8."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return category(character)[0] == "P"

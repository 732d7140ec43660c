"""The older Unicode of Hugging Face's `tokenizers`, character by character against the library itself."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from tokenizers import normalizers, pre_tokenizers

from llamacli.runtime.older_unicode import FORMS, category, is_punctuation, normalize

CHARACTERS = [
    chr(point)
    for point in range(0x80, sys.maxunicode + 1)
    if unicodedata.category(chr(point)) in ("Mn", "Mc", "Cf", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sk", "So")
    or unicodedata.decomposition(chr(point))
]


def test_marks_without_room_are_those_of_unicode_8() -> None:
    strips = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False
    )
    for character in CHARACTERS:
        if not unicodedata.decomposition(character):
            assert (category(character) == "Mn") == (strips.normalize_str(f"x{character}y") == "xy"), hex(
                ord(character)
            )


def test_punctuation_is_that_of_unicode_8() -> None:
    cut = pre_tokenizers.Punctuation()
    for character in (*map(chr, range(1, 0x80)), *CHARACTERS):
        assert is_punctuation(character) == (len(cut.pre_tokenize_str(f"x{character}y")) == 3), hex(ord(character))


@pytest.mark.parametrize("form", FORMS)
def test_text_is_normalized_as_unicode_9_has_it(form: str) -> None:
    theirs = getattr(normalizers, form)()
    for character in CHARACTERS:
        # Marks of the lowest and of the highest class around it show whether it moves.
        text = f"a\u0345{character}\u0334\u0301"
        assert normalize(form, text) == theirs.normalize_str(text), hex(ord(character))

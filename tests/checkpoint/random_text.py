"""Random texts that meet the corners of tokenizers: scripts, marks, digits, contractions, white space, emoji, code."""

from __future__ import annotations

import random
import sys
import unicodedata
from functools import lru_cache

WORD_LIST = (
    "the The THE hello Hello don't DON'T it's I'll we've he'd 'tis 'S 'lL naïve café Ünïcode résumé "
    "straße ǅ ŉ iPhone camelCase SCREAMING_SNAKE x86_64 3.14 1,000,000 12345678 0xFF 1st 2nd ½ ² ٣ "
    "४५६ Ⅻ привет Мир κόσμε שלום مرحبا नमस्ते हिन्दी ภาษาไทย 你好 世界 日本語 カタカナ ひらがな 한국어 안녕 Việt ế é Å ﬁ "
    "ﷺ 🦙 👩\u200d👩\u200d👧\u200d👦 🇩🇪 👍🏽 … — – “quoted” ‘x’ «y» <b> </i> <|x|> [1] {json:1} // /* */ && || == != -> def "
    "return \\n \\t foo(bar) a.b.c user@host http://x.y/z?q=1#f $5 €7 #tag @me 100% C++ ~/.x `code` ▁ Ġ "
    "Ċ "
)
WORDS = WORD_LIST.split()
SPACES = (" ", " ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2009")
JOINS = ("", "", "'", "-", "_", ".", ", ", "/", "!", "?!", "...", "''", '"')


@lru_cache(maxsize=1)
def assigned() -> str:
    """Every character with a meaning in this Python's Unicode, once, letters of large scripts thinned out."""
    kept = []
    for point in range(1, sys.maxunicode + 1):
        character = chr(point)
        if unicodedata.category(character) in ("Cn", "Cs", "Co"):
            continue
        if (0x3400 <= point < 0xD7A4 or point >= 0x17000) and point % 37:
            continue
        kept.append(character)
    return "".join(kept)


def random_text(generator: random.Random, longest: int = 12) -> str:
    """A text of up to `longest` pieces."""
    parts: list[str] = []
    for _ in range(generator.randint(1, longest)):
        kind = generator.random()
        if kind < 0.45:
            parts.append(generator.choice(WORDS))
        elif kind < 0.60:
            parts.append(generator.choice(assigned()))
        elif kind < 0.68:
            parts.append("".join(generator.choices(assigned(), k=generator.randint(2, 5))))
        elif kind < 0.78:
            parts.append(str(generator.randrange(10 ** generator.randint(1, 9))))
        elif kind < 0.88:
            parts.append("".join(generator.choices("abcdeXYZ e\u0301\u0308'. ", k=generator.randint(1, 8))))
        else:
            parts.append(generator.choice(SPACES) * generator.randint(1, 4))
        parts.append(generator.choice(SPACES) if generator.random() < 0.6 else generator.choice(JOINS))
    return "".join(parts)

"""Print the tables of `llamacli/runtime/older_unicode.py`: which characters came after the Unicode that tokenizers know.

    pip install unicodedata2 unicode-age
    python benchmarks/unicode_ages.py

Both packages hold the published Unicode data of their version. Assigned characters keep their decompositions, so the
tables only grow: run it again when Python knows a newer Unicode than they do.
"""

from __future__ import annotations

from collections.abc import Iterable

import unicode_age
import unicodedata2


def ranges(points: Iterable[int]) -> str:
    """Code points as ranges in hexadecimal, `1f00-1f05 1f10`."""
    out: list[list[int]] = []
    for point in sorted(points):
        if out and out[-1][1] == point - 1:
            out[-1][1] = point
        else:
            out.append([point, point])
    return " ".join(f"{first:x}" if first == last else f"{first:x}-{last:x}" for first, last in out)


def normalizing(points: list[int]) -> set[int]:
    """Those of `points` that reorder, decompose or are parts of what does."""
    parts = set()
    for point in points:
        words = unicodedata2.decomposition(chr(point)).split()
        parts |= {int(word, 16) for word in words if not word.startswith("<")} | ({point} if words else set())
    return {point for point in points if unicodedata2.combining(chr(point)) or point in parts}


def main() -> None:
    """Print both tables."""
    ages = {point: age for first, last, age, _ in unicode_age.iter_spans() for point in range(first, last + 1)}
    after_8 = [point for point, age in ages.items() if age > 8]
    kinds = ("Mn", "Cf", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po")
    print("_AFTER_8 =", ranges(point for point in after_8 if unicodedata2.category(chr(point)) in kinds))
    print("_AFTER_9 =", ranges(normalizing([point for point in after_8 if ages[point] > 9])))


if __name__ == "__main__":
    main()

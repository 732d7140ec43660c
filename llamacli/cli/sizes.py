"""Numbers of bytes and weights for people."""

from __future__ import annotations


def human_size(count: int) -> str:
    """Bytes in decimal units with two significant places after ten: 512 B, 4.7 GB, 812 MB."""
    value, units = float(count), ("B", "kB", "MB", "GB", "TB")
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {units[-1]}"


def human_age(seconds: float) -> str:
    """How long ago, in the largest unit that fits: now, 5 min, 3 h, 12 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "now"


def human_count(number: int) -> str:
    """A number of weights in a short form: 1.24 B."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)

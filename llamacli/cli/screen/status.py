"""The line under each answer: speed, wait, and how full the context is."""

from __future__ import annotations

from llamacli.cli.screen.answer import Answer
from llamacli.cli.screen.look import Look

_CELLS = 8
_WIDEST = 100


def status_line(answer: Answer, used: int, size: int, look: Look) -> str:
    """`21 t/s · 0.4 s to first · ctx ▓▓░░░░░░ 8 %`, at the right of the screen; narrow screens get its shorter forms."""
    dot = look.pick(" · ", " - ")
    speed, meter = speed_of(answer), meter_of(used, size, look)
    wait = f"{answer.first:.1f} s to first"
    percent = f"{share_of(used, size)} %"
    width = min(look.width(), _WIDEST) - 1
    forms = ([speed, wait, meter], [speed, f"ctx {percent}"], [speed, percent], [percent])
    lines = [dot.join(part for part in form if part) for form in forms]
    return next((line for line in lines if len(line) <= width), lines[-1]).rjust(width)


def speed_of(answer: Answer) -> str:
    """Tokens per second of the answer, or nothing if it had none."""
    usage = answer.usage
    if usage is None or usage.completion < 2 or usage.completion_seconds <= 0:
        return ""
    speed = usage.completion / usage.completion_seconds
    return f"{speed:.1f} t/s" if speed < 10 else f"{speed:,.0f} t/s"


def meter_of(used: int, size: int, look: Look) -> str:
    """`ctx ▓▓░░░░░░ 8 %`."""
    share = share_of(used, size)
    filled = min(_CELLS, -(-share * _CELLS // 100))
    bar = look.pick("▓", "#") * filled + look.pick("░", ".") * (_CELLS - filled)
    return f"ctx {bar} {share} %"


def share_of(used: int, size: int) -> int:
    """How full the context is, in per cent."""
    return round(100 * used / size) if size else 0

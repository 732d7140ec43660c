"""How `evaluate` shows what it found: a table, JSON, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacli.cli.console import Console
from llamacli.cli.sizes import human_size

if TYPE_CHECKING:
    from llamacli.evaluate.figures import Figure, Quality


@dataclass(frozen=True)
class Measured:
    """One model: its size in bytes, its bits per weight, its quality."""

    name: str
    size_bytes: int
    bits_per_weight: float
    quality: Quality

    @property
    def label(self) -> str:
        """The file's name without its ending."""
        return Path(self.name).name.removesuffix(".gguf")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.name,
            "size_bytes": self.size_bytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            **self.quality.to_json(),
        }


def quality_table(console: Console, found: Sequence[Measured]) -> None:
    """One line a model; with --json everything that was measured."""
    data = [measured.to_json() for measured in found]
    compared = found[0].quality.divergence is not None
    columns = ["model", "size", "bits", "perplexity"]
    columns += ["ratio", "KL divergence", "median", "99 %", "largest", "same top token"] if compared else []
    console.table(columns, [_row(measured) for measured in found], data)


def _row(measured: Measured) -> list[str]:
    quality = measured.quality
    row = [
        measured.label,
        human_size(measured.size_bytes),
        f"{measured.bits_per_weight:.2f}",
        _with_error(quality.perplexity, 4),
    ]
    if (far := quality.divergence) is not None:
        row += [
            f"{far.perplexity_ratio.value:.4f}",
            _with_error(far.mean, 5),
            f"{far.median:.5f}",
            f"{far.percent_99:.4f}",
            f"{far.largest:.3f}",
            f"{100 * far.same_top.value:.2f} ± {100 * far.same_top.error:.2f} %",
        ]
    return row


def _with_error(figure: Figure, digits: int) -> str:
    return f"{figure.value:.{digits}f} ± {figure.error:.{digits}f}"


def quality_picture(found: Sequence[Measured], path: Path, *, force: bool = False) -> None:
    """Quality against size as an SVG file. Raises CannotWrite."""
    from llamacli.evaluate.plot import Dot, plot_svg
    from llamacli.formats.atomic import atomic_file

    compared = found[0].quality.divergence is not None
    dots = [
        Dot(measured.label, measured.bits_per_weight, figure.value, figure.error)
        for measured in found
        if (figure := _shown(measured.quality)) is not None
    ]
    what = "KL divergence from the source (nats)" if compared else "perplexity"
    picture = plot_svg(dots, "Quality against size", "bits per weight", what)
    with atomic_file(path, force=force) as writing:
        writing.file.write(picture.encode())


def _shown(quality: Quality) -> Figure:
    return quality.divergence.mean if quality.divergence else quality.perplexity

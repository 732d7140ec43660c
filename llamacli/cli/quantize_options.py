"""Flags of `quantize` that look at the model at work: calibrate on a text, stay below a size, check the result.

Their values wait in Click's context; `quality_options` makes one value of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from llamacli.cli.quantizing import kernel_for
from llamacli.cli.shared_options import SharedOptions, add_options
from llamacli.errors import UsageError

_FLAGS = SharedOptions("quality_options")
_option = _FLAGS.option
CHECKS = ("none", "quick", "full")
SEARCHES = ("auto", "usual", "thorough")


@dataclass(frozen=True)
class QualityOptions:
    """What was asked for; empty, 0 or none where nothing was.

    `target_size` is a text like 5GB, `target_bpw` bits of the file per weight, `max_kld` nats. `probe`: find out which
    tensors matter by running the model.
    """

    calibrate: str = ""
    target_size: str = ""
    target_bpw: float = 0.0
    max_kld: float = 0.0
    probe: bool = True
    check: str = "none"
    search: str = "auto"

    @property
    def targets(self) -> bool:
        """Whether a promise stands in place of a recipe."""
        return bool(self.target_size or self.target_bpw or self.max_kld)

    @property
    def needs_engine(self) -> bool:
        """Whether the model must run, and be there in 16 bits."""
        return bool(self.calibrate or self.targets or self.check != "none")


def quality_options(context: typer.Context) -> QualityOptions:
    """The flags that were given. Raises UsageError for those that contradict each other."""
    options = QualityOptions(**_FLAGS.given(context))
    promises = [name for name in ("target_size", "target_bpw", "max_kld") if getattr(options, name)]
    if len(promises) > 1:
        flags = " and ".join("--" + name.replace("_", "-") for name in promises)
        raise UsageError(f"{flags} are several promises", "give one of them")
    if options.check not in CHECKS:
        raise UsageError(f"--check {options.check}: {', '.join(CHECKS)}")
    if options.search not in SEARCHES:
        raise UsageError(f"--search {options.search}: {', '.join(SEARCHES)}")
    if options.search == "thorough" and not options.calibrate:
        raise UsageError(
            "--search thorough needs to know how activations go together, which no importance matrix says",
            "add --calibrate TEXT, or --calibrate builtin",
        )
    return options


def settled_search(options: QualityOptions, kernel: str) -> str:
    """What `auto` stands for: thorough where a text is read, but with ggml's kernels, whose files have their bytes."""
    if options.search == "thorough" and kernel == "ggml":
        raise UsageError(
            "--kernel ggml writes what llama-quantize writes, and --search thorough does not", "choose one"
        )
    if options.search != "auto":
        return options.search
    return "thorough" if options.calibrate and kernel_for(kernel).name != "ggml" else "usual"


def add_quality_options(command: Any) -> None:
    """Give `command` these flags; they do not reach its function."""
    add_options(command, _quality)
    parse = command.parse_args
    command.parse_args = lambda context, arguments: parse(context, completed(arguments))


_ALONE = {"--check": "quick", "--fit": "auto"}
"""What flags mean that may stand alone: Typer has no options whose values may be left out."""


def completed(arguments: Sequence[str]) -> list[str]:
    """The arguments with the values that were left out: what is no word is no value."""
    out: list[str] = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        out.append(argument)
        if argument in _ALONE and "--" not in out and not following.isalpha():
            out.append(_ALONE[argument])
    return out


def _quality(
    calibrate: str | None = _option(
        "calibrate", "--calibrate", metavar="TEXT|builtin", text="Make an importance matrix from a text first."
    ),
    target_size: str | None = _option(
        "target_size", "--target-size", metavar="5GB", text="The best file that is not larger."
    ),
    target_bpw: float | None = _option(
        "target_bpw", "--target-bpw", metavar="BITS", text="The same in bits of the file per weight.", min=1, max=32
    ),
    max_kld: float | None = _option(
        "max_kld", "--max-kld", metavar="X", text="The smallest file expected to diverge by no more nats.", min=0.0001
    ),
    search: str | None = _option(
        "search",
        "--search",
        metavar="auto|usual|thorough",
        text="thorough: errors make up for one another; auto: wherever --calibrate reads a text.",
    ),
    probe: bool | None = _option(
        "probe", "--probe/--no-probe", text="Find out by running the model which tensors matter [yes]."
    ),
    check: str | None = _option(
        "check", "--check", metavar="none|quick|full", text="Measure the result against its source; keep a receipt."
    ),
) -> None:
    """How good the result is to be."""

"""Which files of a repository are one model in one quantization.

A repository offers many GGUF files: quantizations, parts of a split file, projectors, drafts and importance matrices.
Here names alone are sorted into variants, so that the same rules hold for a listing from the Hub and a folder on disk.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llamacli.errors import NotFound, UsageError

_QUANT = re.compile(
    r"(?<![A-Za-z0-9])(?P<ud>UD-)?"
    r"(?P<type>I?Q\d(?:_(?:XXS|XXL|XS|XL|NL|[KSMLP0-9]))*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_DRAFT = r"(?:^|/)(?:mtp|eagle3?|dflash|draft)[-_.]"
_COMPANION = re.compile(rf"mmproj|imatrix|{_DRAFT}", re.IGNORECASE)

QUALITY: tuple[str, ...] = (
    "F32", "BF16", "F16", "Q8_0", "Q6_K_XL", "Q6_K_L", "Q6_K", "Q5_K_XL", "Q5_K_L", "Q5_K_M", "Q5_1", "Q5_K_S", "Q5_0",
    "Q4_K_XL", "Q4_K_L", "Q4_K_M", "MXFP4_MOE", "MXFP4", "NVFP4", "Q4_1", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_0",
    "Q3_K_XL", "Q3_K_L", "Q3_K_M", "IQ3_M", "IQ3_S", "Q3_K_S", "IQ3_XS", "IQ3_XXS", "Q2_K_XL", "Q2_K_L", "Q2_K",
    "IQ2_M", "IQ2_S", "Q2_K_S", "IQ2_XS", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S",
)  # fmt: skip
"""Best first, as the mean KL divergence that quantizers publish orders them; sizes fall nearly alike."""


@dataclass(frozen=True)
class Variant:
    """One GGUF model of a repository: a single file, or all parts of a split one in order."""

    quant: str
    """Upper case, with UD- where the publisher has it; empty if the name does not say."""
    files: tuple[str, ...]
    parts: int
    """How many files there ought to be."""

    @property
    def complete(self) -> bool:
        """Whether every part is listed."""
        return len(self.files) == self.parts

    @property
    def label(self) -> str:
        """What a user types after the colon."""
        return self.quant or self.files[0]


def quant_of(name: str) -> str:
    """The quantization a file's name tells, in upper case: the last one in the file's name, else in its folder's."""
    folder, _, file = name.rpartition("/")
    for text in (file, folder):
        if found := list(_QUANT.finditer(text)):
            kind = found[-1]["type"].upper().replace("FP16", "F16").replace("FP32", "F32")
            kind = "F16" if kind == "FP16" else kind
            return ("UD-" if found[-1]["ud"] else "") + kind
    return ""


def is_model(name: str) -> bool:
    """Whether `name` is a GGUF that one can talk to: no projector, draft or importance matrix."""
    return name.lower().endswith(".gguf") and not _COMPANION.search(name)


def projectors(names: Iterable[str]) -> list[str]:
    """The multimodal projectors among `names`, those in 16 bits first."""
    found = [n for n in names if n.lower().endswith(".gguf") and "mmproj" in n.rpartition("/")[2].lower()]
    return sorted(found, key=lambda n: (quant_of(n) not in ("F16", "BF16"), quant_of(n) != "F16", n))


def drafts(names: Iterable[str]) -> list[str]:
    """The small models among `names` that draft for a larger one, the smallest type first."""
    found = [n for n in names if n.lower().endswith(".gguf") and re.search(_DRAFT, n, re.IGNORECASE)]
    return sorted(found, key=lambda n: (-rank(quant_of(n)), n))


def variants(names: Iterable[str]) -> list[Variant]:
    """Every model among `names`, best quality first; split files are joined."""
    groups: dict[tuple[str, int], list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        if is_model(name):
            shard = _SHARD.fullmatch(name)
            key = (shard["stem"], int(shard["count"])) if shard else (name, 1)
            groups[key].append((int(shard["number"]) if shard else 1, name))
    found = [
        Variant(quant_of(stem), tuple(name for _, name in sorted(parts)), count)
        for (stem, count), parts in groups.items()
    ]
    return sorted(found, key=lambda v: (rank(v.quant), v.files))


def rank(quant: str) -> int:
    """Place in `QUALITY`, 0 is best; what is unknown comes last."""
    kind = quant.removeprefix("UD-")
    return QUALITY.index(kind) if kind in QUALITY else len(QUALITY)


def matching(selector: str, offered: Sequence[Variant], where: str) -> list[Variant]:
    """The variants that `selector` means, most literal reading first.

    A file name is matched as a whole, then without its folder; a quantization exactly, then without UD-, then as a
    prefix that has only one continuation (q4_k for Q4_K_M where there is no other Q4_K). Raises NotFound with near
    misses.
    """
    wanted = selector.upper()
    readings = (
        lambda v: selector in v.files,
        lambda v: selector in {f.rpartition("/")[2] for f in v.files},
        lambda v: v.quant == wanted,
        lambda v: v.quant.removeprefix("UD-") == wanted.removeprefix("UD-"),
        lambda v: wanted in {f.rpartition("/")[2].upper().removesuffix(".GGUF") for f in v.files},
        lambda v: v.quant.removeprefix("UD-").startswith(wanted + "_"),
    )
    for reading in readings:
        if found := [v for v in offered if reading(v)]:
            return found
    raise NotFound(f"{where} has no {selector}", _near_quants(selector, offered))


def one(selector: str, offered: Sequence[Variant], where: str) -> Variant:
    """The one variant that `selector` means. Raises NotFound, or UsageError that lists the candidates."""
    found = matching(selector, offered, where)
    if len(found) > 1:
        names = "\n".join(f"{where}:{v.files[0]}" for v in found[:12])
        raise UsageError(f"{selector} is ambiguous in {where}: {len(found)} files match", f"say which:\n{names}")
    return found[0]


def best(offered: Sequence[Variant], sizes: Mapping[str, int], budget: int | None) -> tuple[Variant, str]:
    """The variant to take when the user named none, and why.

    The best quality whose bytes fit `budget`; 16 and 32 bit only where nothing smaller is offered. With no budget known
    Q4_K_M, the usual compromise; where nothing fits, the smallest.
    """
    usable = [v for v in offered if v.complete] or list(offered)
    usable = [v for v in usable if v.quant not in ("F32", "BF16", "F16")] or usable
    plain = [v for v in usable if rank(v.quant) < len(QUALITY)] or usable
    if budget is None:
        middle = QUALITY.index("Q4_K_M")
        return min(plain, key=lambda v: (abs(rank(v.quant) - middle), rank(v.quant))), "the usual compromise"
    fitting = [v for v in plain if _bytes(v, sizes) <= budget]
    if fitting:
        return fitting[0], "the best that fits this machine's memory"
    return min(plain, key=lambda v: _bytes(v, sizes)), "the smallest; none fits this machine's memory whole"


def _bytes(variant: Variant, sizes: Mapping[str, int]) -> int:
    return sum(sizes.get(name, 0) for name in variant.files)


def _near_quants(selector: str, offered: Sequence[Variant]) -> str:
    import difflib  # only a mistake needs it

    labels = list(dict.fromkeys(v.label for v in offered))
    if not labels:
        return "there is no GGUF model in it"
    near = difflib.get_close_matches(selector.upper(), labels, n=3, cutoff=0.5)
    return (f"did you mean {', '.join(near)}? " if near else "") + "it has " + ", ".join(labels[:24])

"""Leave whole blocks out: `--prune-layers`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llamacli.errors import UsageError

_BLOCK = re.compile(r"(?<![a-z0-9_])blk\.(\d+)\.")


def parse_layers(text: str) -> frozenset[int]:
    """Read `--prune-layers 3,7,8`; raises UsageError for anything but numbers."""
    try:
        layers = frozenset(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is no list of layers", "for example --prune-layers 3,7,8") from None
    if min(layers) < 0:
        raise UsageError(f"there is no layer {min(layers)}", "layers count from 0")
    return layers


def prune_layers(names: Iterable[str], layers: Iterable[int]) -> dict[str, str | None]:
    """What each tensor is called once these blocks are gone: the rest move up; None for a tensor that goes with one.

    Raises UsageError for a block that no tensor belongs to, or if none would be left.
    """
    names = list(names)
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.search(name))}
    gone = frozenset(layers)
    known = sorted(set(blocks.values()))
    missing = sorted(gone.difference(known))
    if missing:
        raise UsageError(f"there is no layer {missing[0]} to prune", f"the layers are 0 to {known[-1] if known else 0}")
    if known and gone.issuperset(known):
        raise UsageError("pruning all layers would leave no model", "keep at least one")
    moved = {block: block - sum(other < block for other in gone) for block in known if block not in gone}
    return {name: _renamed(name, blocks.get(name), moved) for name in names}


def _renamed(name: str, block: int | None, moved: dict[int, int]) -> str | None:
    if block is None:
        return name
    if block not in moved:
        return None
    return _BLOCK.sub(f"blk.{moved[block]}.", name, count=1)


def blocks_left(blocks: int, layers: Iterable[int]) -> int:
    """The block count to write once these are gone."""
    return blocks - len(frozenset(layers))

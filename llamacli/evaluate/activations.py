"""Activations for an importance matrix, gathered while the engine reads a text.

For every matrix of the model: the sum of squares of what it is multiplied with, column by column, and over how many
tokens. In a stack of experts each expert sums the tokens that were sent to it (llama.cpp: `tools/imatrix/imatrix.cpp`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llamacli.errors import CorruptFile, EngineError
from llamacli.evaluate.covariance import Products
from llamacli.evaluate.windows import CutText, groups
from llamacli.progress import Progress, Silent
from llamacli.runtime.graph import Node, node_bytes, operation
from llamacli.runtime.interrupts import Held
from llamacli.runtime.llama import LlamaEngine
from llamacli.runtime.windows import Windows

_F32 = 0
"""ggml's number of the type."""
LOGITS_BYTES = 1 << 29
"""Every position's logits must be asked for, or the last block sees only one; they are not looked at."""

Array: TypeAlias = "NDArray[np.float32]"


@dataclass(eq=False)
class Sums:
    """What was gathered for one tensor: `squares`, float32 (matrices, columns), and `tokens`, int64 (matrices,).

    A tensor that is multiplied without a choice of experts has one count of tokens for all its matrices.
    """

    squares: Array
    tokens: NDArray[np.int64]


@dataclass(eq=False)
class Activations:
    """Sums by tensor name, over `windows` windows."""

    sums: dict[str, Sums] = field(default_factory=dict)
    windows: int = 0


def gather(
    engine: LlamaEngine,
    text: CutText,
    *,
    begun: Activations | None = None,
    head: bool = False,
    products: Products | None = None,
    progress: Progress | None = None,
    each: Callable[[Activations], None] | None = None,
) -> Activations:
    """Read `text` with `engine` and sum the activations; `begun` is what an earlier run has gathered of it.

    `head`: gather for output.weight too. `products`: where to sum how columns go together, for all but experts.
    Progress counts windows; `each` is called after every one of them. Raises EngineError where activations are not
    finite.
    """
    activations = begun or Activations()
    progress = progress or Silent()
    progress.advance(activations.windows)
    names = {tensor.name for tensor in engine.gguf.tensors if tensor.name.startswith("blk.")}
    collector = _Collector(names | ({"output.weight"} if head else set()), products)
    with Windows(engine, text.size, observer=collector, logits_bytes=LOGITS_BYTES) as context:
        for group in groups(len(text), 1, activations.windows):
            for _ in context.evaluate([text.window(number) for number in group], 0):
                pass
            with Held():  # nothing is counted by halves
                _merge(activations.sums, collector.take())
                activations.windows += len(group)
            progress.advance(len(group))
            if each is not None:
                each(activations)
    if not activations.sums:
        raise CorruptFile(f"no tensor of {engine.path.name} is multiplied with anything", "is it a language model?")
    return activations


class _Collector:
    """An observer of matrix multiplications."""

    def __init__(self, names: Container[str], products: Products | None = None) -> None:
        self._names, self._products = names, products
        self._sums: dict[str, Sums] = {}
        self._plain, self._chosen = operation("MUL_MAT"), operation("MUL_MAT_ID")

    def take(self) -> dict[str, Sums]:
        """What was seen since the last time."""
        seen, self._sums = self._sums, {}
        if self._products is not None:
            self._products.next_evaluation()
        return seen

    def wants(self, node: Node) -> bool:
        if node.op != self._plain and node.op != self._chosen:
            return False
        matrix, values = node.src[0].contents, node.src[1].contents
        return values.type == _F32 and _weight_name(matrix) in self._names

    def see(self, node: Node) -> None:
        matrix = node.src[0].contents
        name = _weight_name(matrix)
        values = _floats(node.src[1].contents)
        if node.op == self._plain:
            self._add(name, *_for_all(values, matrix.ne[2], matrix.ne[3]))
            if self._products is not None and matrix.ne[2] * matrix.ne[3] == 1:
                self._products.add(name, ctypes.addressof(node.src[1].contents), values.reshape(-1, values.shape[-1]))
        else:
            experts = _numbers(node.src[2].contents)[0, 0]
            self._add(name, *_for_chosen(values[0], experts, matrix.ne[2]))

    def _add(self, name: str, squares: Array, tokens: NDArray[np.int64]) -> None:
        if not np.isfinite(squares).all():
            raise EngineError(
                f"the activations of {name} are not finite", "the model's weights are damaged; see llamacli verify FILE"
            )
        _merge(self._sums, {name: Sums(squares, tokens)})


def _merge(total: dict[str, Sums], more: Mapping[str, Sums]) -> None:
    for name, sums in more.items():
        known = total.get(name)
        if known is None:
            total[name] = sums
        elif known.squares.shape != sums.squares.shape or known.tokens.shape != sums.tokens.shape:
            raise EngineError(f"{name} has {sums.squares.shape} activations where it had {known.squares.shape}")
        else:
            known.squares += sums.squares
            known.tokens += sums.tokens


def _for_all(values: Array, matrices: int, outer: int) -> tuple[Array, NDArray[np.int64]]:
    """Sums over the rows of `values` (outer, matrices, tokens, columns), whose matrices repeat over those given."""
    count = matrices * outer
    squares = np.zeros((count, values.shape[-1]), np.float32)
    for i3 in range(values.shape[0]):
        for i2 in range(values.shape[1]):
            squares[(i3 % outer) * matrices + i2 % matrices] += _squared(values[i3, i2])
    rows = values.shape[0] * values.shape[1] * values.shape[2]
    return squares, np.array([rows // count], np.int64)


def _for_chosen(values: Array, experts: NDArray[np.int32], count: int) -> tuple[Array, NDArray[np.int64]]:
    """Sums for each of `count` experts of the rows sent to it.

    `values`: (tokens, inputs, columns) with one input for all or one for each choice; `experts`: (tokens, choices).
    """
    squares = np.zeros((count, values.shape[-1]), np.float32)
    tokens = np.bincount(experts.reshape(-1), minlength=count).astype(np.int64)
    for expert in np.flatnonzero(tokens):
        rows, choices = np.nonzero(experts == expert)
        squares[expert] = _squared(values[rows, choices % values.shape[1]])
    return squares, tokens


def _squared(rows: Array) -> Array:
    found: Array = np.einsum("ij,ij->j", rows, rows)
    return found


def _weight_name(node: Node) -> str:
    """The name of a weight; a copy of it on another device is called `DEVICE#NAME#NUMBER`."""
    name = node.name.decode("utf-8", "replace")
    return name.split("#")[1] if name.count("#") >= 2 else name


def _floats(node: Node) -> Array:
    """A float32 node's values, outermost dimension first, whatever their strides."""
    values: Array = np.ndarray(tuple(reversed(node.ne)), np.float32, node_bytes(node), 0, tuple(reversed(node.nb)))
    return values


def _numbers(node: Node) -> NDArray[np.int32]:
    """The same of an int32 node."""
    shape, strides = tuple(reversed(node.ne)), tuple(reversed(node.nb))
    values: NDArray[np.int32] = np.ndarray(shape, np.int32, node_bytes(node), 0, strides)
    return values


def restored(engine: LlamaEngine, sums: Mapping[str, tuple[Array, NDArray[np.int64]]], windows: int) -> Activations:
    """What was gathered earlier, as flat squares and tokens; nothing where it was not of this model."""
    columns = {tensor.name: tensor.shape[0] for tensor in engine.gguf.tensors}
    if any(name not in columns or squares.size % columns[name] for name, (squares, _) in sums.items()):
        return Activations()
    found = {name: Sums(squares.reshape(-1, columns[name]).copy(), tokens) for name, (squares, tokens) in sums.items()}
    return Activations(found, windows)

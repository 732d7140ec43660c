"""A size instead of a recipe: the type of every tensor chosen so that the file stays below it and loses the least.

The damage of a tensor in a type is its share of noise in that type (`damage.py`) times how much the model's answers
suffer from noise in this tensor. The latter differs by a factor of forty between tensors, far more than errors do; it
is measured by running the model (in `evaluate`, the caller brings the numbers), or else estimated from the tensor's role.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from llamacli.errors import UsageError
from llamacli.formats.gguf_encode import DEFAULT_ALIGNMENT
from llamacli.formats.tensor_types import (
    BF16,
    FILE_TYPES,
    IQ1_M,
    IQ1_S,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_S,
    IQ3_XXS,
    IQ4_NL,
    IQ4_XS,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_1,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    TensorType,
)  # fmt: skip
from llamacli.quantize.allocate import allocate
from llamacli.quantize.damage import Errors
from llamacli.quantize.fallback import fits
from llamacli.quantize.model import Model
from llamacli.quantize.place import Place
from llamacli.quantize.plan import Plan, PlanOptions, make_plan, names_to_choose
from llamacli.quantize.recipes import Recipe
from llamacli.quantize.roles import Role, block_of, is_tied, role_of

QUICK_TYPES = (Q2_K, Q3_K, IQ4_XS, Q4_K, Q5_K, Q6_K, Q8_0)
"""Types that every backend decodes at full speed."""
NARROW_TYPES = (Q4_0, IQ4_NL, Q4_1, Q5_0, Q5_1, Q8_0)
"""The same for rows that are a multiple of 32 only."""
SMALL_TYPES = ((4.0, (IQ3_S,), False), (4.0, (IQ3_XXS,), True), (3.5, (IQ2_S, IQ2_XS, IQ2_XXS), True),
               (2.8, (IQ1_M, IQ1_S), True))  # fmt: skip
"""Types with codebooks, slower to decode: only below so many bits, and whether only with an importance matrix."""
WIDE_FROM = 7.0
"""Bits per weight from which on tensors may also stay as they are stored."""

ROLE_SENSITIVITY: dict[Role, float] = {
    Role.HEAD: 2.0, Role.TOKEN_EMBEDDING: 2.2, Role.ATTENTION_Q: 0.8, Role.ATTENTION_K: 0.6, Role.ATTENTION_V: 0.18,
    Role.ATTENTION_OUTPUT: 0.18, Role.FFN_DOWN: 0.11, Role.FFN_GATE: 0.14, Role.FFN_UP: 0.1,
}  # fmt: skip
FIRST_BLOCK_SENSITIVITY: dict[Role, float] = {
    Role.ATTENTION_Q: 0.35, Role.ATTENTION_K: 0.35, Role.ATTENTION_V: 1.0, Role.ATTENTION_OUTPUT: 1.1,
    Role.FFN_DOWN: 1.5, Role.FFN_GATE: 0.6, Role.FFN_UP: 0.55,
}  # fmt: skip
"""KL divergence for a share of noise of 1, extrapolated from small ones: means over two small trained models."""
OTHER_SENSITIVITY = 0.3


@dataclass(frozen=True)
class ExplicitRecipe(Recipe):
    """A recipe that knows every tensor by name; its `default` is the type of most weights."""

    types: Mapping[str, TensorType] = field(default_factory=dict)

    @property
    def file_type(self) -> int:
        """llama.cpp's number of the nearest recipe: a file must carry one, which the engine only shows."""
        names = (self.default.name, f"{self.default.name}_S")
        return next(number for number, name in FILE_TYPES.items() if name in names)

    def type_for(self, place: Place) -> TensorType:
        """See `Recipe`."""
        return self.types[place.tensor.name]


@dataclass(frozen=True)
class Targeted:
    """A plan that stays below a size, and the divergence that is expected of it, in nats."""

    plan: Plan
    damage: float


def open_tensors(model: Model, options: PlanOptions) -> list[str]:
    """The source's tensors whose types are free to choose: neither the engine nor the user has settled them."""
    if options.overrides.pure:
        raise UsageError("--pure leaves nothing to choose", "leave it out, or choose a type instead of a size")
    return list(names_to_choose(model, options, _ANY))


def candidate_types(
    columns: int, bits: float, *, stored: TensorType = BF16, weighted: bool = False
) -> tuple[TensorType, ...]:
    """The types that rows of `columns` weights may have in a file of about `bits` bits per weight.

    `weighted`: whether the importance matrix knows the tensor.
    """
    small = tuple(kind for most, kinds, need in SMALL_TYPES if bits < most and (weighted or not need) for kind in kinds)
    wide = (stored,) if bits >= WIDE_FROM and not stored.quantized else ()
    found = tuple(kind for kind in (*small, *QUICK_TYPES) if fits(kind, columns))
    if len(found) < 2:
        found = tuple(kind for kind in NARROW_TYPES if fits(kind, columns))
    return (*found, *wide) or (stored,)


def candidates_for(
    model: Model, names: Sequence[str], bits: float, options: PlanOptions
) -> dict[str, tuple[TensorType, ...]]:
    """The candidate types of each of these tensors."""
    known = set(options.importance.entries) if options.importance else set()
    return {
        name: candidate_types(model.tensors[name].shape[-1], bits, stored=model.stored[name], weighted=name in known)
        for name in names
    }


def estimated_sensitivity(model: Model, names: Sequence[str]) -> dict[str, float]:
    """What is known of tensors by their roles alone."""
    architecture = str(model.metadata["general.architecture"].value)
    tied = is_tied(model.tensors)

    def estimate(name: str) -> float:
        role = role_of(name, architecture, tied)
        usual = ROLE_SENSITIVITY.get(role, OTHER_SENSITIVITY)
        return FIRST_BLOCK_SENSITIVITY.get(role, usual) if block_of(name) == 0 else usual

    return {name: estimate(name) for name in names}


def plan_for_size(
    model: Model,
    options: PlanOptions,
    size_bytes: int,
    errors: Errors,
    sensitivity: Mapping[str, float],
    *,
    name: str,
) -> Targeted:
    """The plan of the least damage whose files take at most `size_bytes`, headers included.

    Raises UsageError where nothing is small enough.
    """
    sizes = _sizes(model, errors)
    damages = {
        tensor: [(kind, sizes[tensor][kind], sensitivity[tensor] * error) for kind, error in kinds.items()]
        for tensor, kinds in errors.items()
    }
    least, smallest = _smallest(model, options, sizes, name)
    if size_bytes < least:
        raise _too_small(model, options, size_bytes, least)
    rest = least - smallest
    budget = size_bytes - rest
    while True:
        found = allocate(damages, budget)
        plan = _planned(model, options, found.types, name)
        if plan.size_bytes <= size_bytes:
            return Targeted(plan, found.damage)
        budget -= plan.size_bytes - size_bytes  # other types may split the output into more files


def check_size(
    model: Model, options: PlanOptions, size_bytes: int, candidates: Mapping[str, Sequence[TensorType]], *, name: str
) -> None:
    """Raise UsageError, before anything is measured, where no file of these types is small enough."""
    least, _ = _smallest(model, options, _sizes(model, candidates), name)
    if size_bytes < least:
        raise _too_small(model, options, size_bytes, least)


def _sizes(model: Model, candidates: Mapping[str, Iterable[TensorType]]) -> dict[str, dict[TensorType, int]]:
    return {
        tensor: {kind: _file_bytes(model.tensors[tensor].shape, kind) for kind in kinds}
        for tensor, kinds in candidates.items()
    }


def _smallest(
    model: Model, options: PlanOptions, sizes: Mapping[str, Mapping[TensorType, int]], name: str
) -> tuple[int, int]:
    """Bytes of the smallest file, and how many of them the open tensors take."""
    types = {tensor: min(kinds, key=kinds.__getitem__) for tensor, kinds in sizes.items()}
    taken = sum(sizes[tensor][kind] for tensor, kind in types.items())
    return _planned(model, options, types, name).size_bytes, taken


def _too_small(model: Model, options: PlanOptions, size_bytes: int, least: int) -> UsageError:
    return UsageError(
        f"{size_bytes:,} bytes are too few: the smallest file of these types takes {least:,} "
        f"({8 * least / model.weights:.2f} bits per weight)",
        "ask for more, or choose a smaller model"
        if options.importance
        else "ask for more, or add --calibrate builtin: with an importance matrix there are smaller types",
    )


def plan_for_damage(
    model: Model,
    options: PlanOptions,
    most: float,
    errors: Errors,
    sensitivity: Mapping[str, float],
    *,
    name: str,
) -> Targeted:
    """The smallest plan that is expected to diverge by at most `most` nats from the source.

    Raises UsageError where even the largest candidates do more damage.
    """
    low, high = 0, 1 << 62
    best = plan_for_size(model, options, high, errors, sensitivity, name=name)
    if best.damage > most:
        raise UsageError(
            f"no file of these types is expected to diverge by less than {best.damage:.2g} nats",
            "allow more, or choose Q8_0 or a type with 16 bits",
        )
    high = best.plan.size_bytes
    while high - low > max(high >> 10, DEFAULT_ALIGNMENT):  # to a tenth of a per cent
        middle = (low + high) // 2
        try:
            found = plan_for_size(model, options, middle, errors, sensitivity, name=name)
        except UsageError:
            low = middle
            continue
        if found.damage <= most:
            best, high = found, min(middle, found.plan.size_bytes)
        else:
            low = middle
    return best


def probe_type(kinds: Sequence[TensorType], bits: float) -> TensorType:
    """The quantized type among `kinds` that is nearest to `bits` bits: what the model is tried with."""
    quantized = [kind for kind in kinds if kind.quantized] or list(kinds)
    return min(quantized, key=lambda kind: abs(8 * kind.block_bytes / kind.block_size - bits))


def _planned(model: Model, options: PlanOptions, types: Mapping[str, TensorType], name: str) -> Plan:
    weights: Counter[TensorType] = Counter()
    for tensor, kind in types.items():
        weights[kind] += prod(model.tensors[tensor].shape)
    most = max((kind for kind in weights if kind.quantized), key=weights.__getitem__, default=Q8_0)
    new_names = names_to_choose(model, options, _ANY)
    by_new_name = {new_names[tensor]: kind for tensor, kind in types.items()}
    return make_plan(model, ExplicitRecipe(name, most, types=by_new_name), options)


_ANY = Recipe("", Q4_K)
"""Some recipe of a quantized file: which tensors it decides about depends on nothing else."""


def _file_bytes(shape: tuple[int, ...], kind: TensorType) -> int:
    """Bytes of a tensor in a file, with what aligns the next one."""
    size = prod(shape[:-1]) * kind.row_bytes(shape[-1])
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT

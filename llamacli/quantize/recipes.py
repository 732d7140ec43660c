"""Which type each tensor gets: llama.cpp's file types as data.

A recipe is a default type and its exceptions, of which the first that applies wins. The figures are those of
`llama_tensor_get_type_impl` in llama.cpp's `src/llama-quant.cpp`, so that a file of the same name has, tensor for
tensor, the same types.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llamacli.errors import UsageError
from llamacli.formats.tensor_types import (
    BF16,
    F16,
    F32,
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
    MXFP4,
    Q1_0,
    Q2_0,
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
    TQ1_0,
    TQ2_0,
    TensorType,
)  # fmt: skip
from llamacli.quantize.place import Place
from llamacli.quantize.roles import Role

Condition = Callable[[Place], bool]


@dataclass(frozen=True)
class Rule:
    """Tensors of this role (None: of any), where all conditions hold, get this type."""

    role: Role | None
    type: TensorType
    when: tuple[Condition, ...] = ()

    def applies(self, place: Place) -> bool:
        """Whether the rule is about this place."""
        return (self.role is None or self.role is place.role) and all(holds(place) for holds in self.when)


@dataclass(frozen=True)
class Recipe:
    """A default type and its exceptions; the first rule that applies wins.

    `name` and `file_type` are llama.cpp's name and number (`general.file_type`). `needs_matrix`: with rows that hold
    whole blocks, some tensor would be garbage without an importance matrix, and llama.cpp refuses.
    """

    name: str
    default: TensorType
    rules: tuple[Rule, ...] = ()
    needs_matrix: bool = False

    @property
    def file_type(self) -> int:
        """The number that stands in the file as `general.file_type`."""
        return next(number for number, name in FILE_TYPES.items() if name == self.name)

    def type_for(self, place: Place) -> TensorType:
        """The type that the tensor at this place should have, if its rows allow it."""
        return next((rule.type for rule in self.rules if rule.applies(place)), self.default)


# Conditions: what a rule may ask of a place.


def falcon(place: Place) -> bool:
    """Falcon, whose attention and feed-forward run side by side, was tuned apart from all others."""
    return place.model.architecture == "falcon"


def eight_experts(place: Place) -> bool:
    """A mixture of eight experts, Mixtral's kind: its attention is small beside them."""
    return place.model.experts == 8


def several_experts(place: Place) -> bool:
    """At least four experts."""
    return place.model.experts >= 4


def shared_kv(place: Place) -> bool:
    """At least four query heads share one V, which is then small and worth more bits."""
    return place.model.heads_per_kv >= 4


def of_70b(place: Place) -> bool:
    """A model of 70 billion weights, where eight heads share one V."""
    return place.model.is_70b


def edges_and_every_third(place: Place) -> bool:
    """The first and the last eighth, and every third between them."""
    eighth = place.count // 8
    return place.position < eighth or place.position >= 7 * place.count // 8 or (place.position - eighth) % 3 == 2


def first_eighth(place: Place) -> bool:
    """The first eighth of the depth."""
    return place.position < place.count // 8


def first_sixteenth(place: Place) -> bool:
    """The first sixteenth of the depth."""
    return place.position < place.count // 16


def middle(place: Place) -> bool:
    """All but the first and the last eighth of the depth."""
    return place.count // 8 <= place.position < 7 * place.count // 8


def early(place: Place) -> bool:
    """Among the first of its role: as many as an eighth of the blocks, whatever blocks they are in."""
    return place.rank < place.model.blocks // 8


def among_first(number: int) -> Condition:
    """The first `number` of their role."""
    return lambda place: place.rank < number


def ragged(place: Place) -> bool:
    """Rows that are not whole blocks of the recipe's default type."""
    return place.ragged


def with_matrix(place: Place) -> bool:
    """An importance matrix is at hand."""
    return place.matrix


def unless(condition: Condition) -> Condition:
    """The opposite of a condition."""
    return lambda place: not condition(place)


def of_experts(place: Place) -> bool:
    """A stack of the experts' matrices. Ling 3 stacks its attention's too, and there the role decides."""
    if place.model.architecture == "bailingmoe3" and place.role not in (Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN):
        return False
    return place.tensor.stacked


# Rules that several recipes share.

_DELICATE = (Rule(Role.DELICATE, Q8_0),)
_EIGHT_EXPERTS = (Rule(Role.ATTENTION_V, Q8_0, (eight_experts,)), Rule(Role.ATTENTION_K, Q8_0, (eight_experts,)))
_HEAD_6_BITS = (Rule(Role.HEAD, Q8_0, (falcon,)), Rule(Role.HEAD, Q6_K))
# Q5_K would give way to Q5_1 where rows are short, which is less than a head deserves.
_HEAD_5_BITS = (Rule(Role.HEAD, Q8_0, (falcon,)), Rule(Role.HEAD, Q8_0, (ragged,)), Rule(Role.HEAD, Q5_K))
_COMMON = (*_DELICATE, *_HEAD_6_BITS, *_EIGHT_EXPERTS)

_EXPERTS_OUTPUT = (Rule(Role.ATTENTION_OUTPUT, Q5_K, (unless(falcon), eight_experts)),)
_V_SHARED = (Rule(Role.ATTENTION_V, Q5_K, (shared_kv, of_70b)), Rule(Role.ATTENTION_V, Q4_K, (shared_kv,)))
_V_70B = (Rule(Role.ATTENTION_V, Q5_K, (of_70b,)),)
_TERNARY_EMBEDDINGS = (Rule(Role.TOKEN_EMBEDDING, Q4_K),)


def _output(type_: TensorType) -> Rule:
    return Rule(Role.ATTENTION_OUTPUT, type_, (unless(falcon), unless(eight_experts)))


def _non_linear_four_bits() -> tuple[Rule, ...]:
    return (
        *_COMMON,
        *_EXPERTS_OUTPUT,
        Rule(Role.ATTENTION_V, Q5_K, (shared_kv,)),
        Rule(Role.FFN_DOWN, Q5_K, (first_eighth, unless(with_matrix))),
    )


def _two_bits(finer: TensorType, embeddings: TensorType, output: TensorType | None) -> tuple[Rule, ...]:
    """Rules of the types of two bits and fewer; `finer` is for V and for the first ways down."""
    return (
        *_DELICATE,
        *_HEAD_5_BITS,
        Rule(Role.TOKEN_EMBEDDING, embeddings),
        Rule(Role.ATTENTION_V, Q4_K, (shared_kv,)),
        Rule(Role.ATTENTION_V, Q4_K, (several_experts,)),
        Rule(Role.ATTENTION_V, finer),
        Rule(Role.ATTENTION_K, Q4_K, (eight_experts,)),
        Rule(Role.FFN_DOWN, finer, (early,)),
        Rule(Role.ATTENTION_OUTPUT, Q5_K, (eight_experts,)),
        *((Rule(Role.ATTENTION_OUTPUT, output),) if output else ()),
    )


_ALL = (
    Recipe("F32", F32),
    Recipe("F16", F16),
    Recipe("BF16", BF16),
    Recipe("Q8_0", Q8_0),
    Recipe("Q4_0", Q4_0, (*_COMMON, Rule(Role.FFN_DOWN, Q4_1, (first_eighth, with_matrix)))),
    Recipe("Q4_1", Q4_1, _COMMON),
    Recipe("Q5_0", Q5_0, (*_COMMON, Rule(Role.FFN_DOWN, Q5_1, (first_eighth, with_matrix)))),
    Recipe("Q5_1", Q5_1, _COMMON),
    Recipe("Q2_K", Q2_K, (
        *_COMMON, *_EXPERTS_OUTPUT,
        *_V_70B, Rule(Role.ATTENTION_V, Q4_K, (shared_kv,)), Rule(Role.ATTENTION_V, Q3_K),
        Rule(Role.FFN_DOWN, Q3_K),
        _output(Q3_K),
    )),
    Recipe("Q2_K_S", Q2_K, (
        *_COMMON,
        *_V_SHARED,
        Rule(Role.FFN_DOWN, Q4_K, (first_eighth,)),
    ), needs_matrix=True),
    Recipe("Q3_K_S", Q3_K, (*_COMMON, *_EXPERTS_OUTPUT, *_V_70B)),
    Recipe("Q3_K_M", Q3_K, (
        *_COMMON, *_EXPERTS_OUTPUT,
        *_V_70B, Rule(Role.ATTENTION_V, Q5_K, (among_first(2),)), Rule(Role.ATTENTION_V, Q4_K),
        Rule(Role.FFN_DOWN, Q5_K, (first_sixteenth,)),
        Rule(Role.FFN_DOWN, Q4_K, (unless(falcon),)),
        Rule(Role.FFN_DOWN, Q4_K, (edges_and_every_third,)),
        _output(Q4_K),
    )),
    Recipe("Q3_K_L", Q3_K, (
        *_COMMON,
        Rule(Role.ATTENTION_V, Q5_K),
        Rule(Role.FFN_DOWN, Q4_K, (falcon,)), Rule(Role.FFN_DOWN, Q5_K),
        Rule(Role.ATTENTION_OUTPUT, Q4_K, (falcon,)), _output(Q5_K),
    )),
    Recipe("Q4_K_S", Q4_K, (
        *_COMMON, *_EXPERTS_OUTPUT,
        *_V_70B, Rule(Role.ATTENTION_V, Q5_K, (among_first(4),)),
        Rule(Role.FFN_DOWN, Q5_K, (unless(falcon), first_eighth)),
    )),
    Recipe("Q4_K_M", Q4_K, (
        *_COMMON, *_EXPERTS_OUTPUT,
        Rule(Role.ATTENTION_V, Q6_K, (edges_and_every_third,)), *_V_70B,
        Rule(Role.FFN_DOWN, Q6_K, (falcon, first_sixteenth)),
        Rule(Role.FFN_DOWN, Q5_K, (falcon, edges_and_every_third)),
        Rule(Role.FFN_DOWN, Q6_K, (edges_and_every_third,)),
    )),
    Recipe("Q5_K_S", Q5_K, _COMMON),
    Recipe("Q5_K_M", Q5_K, (
        *_COMMON,
        Rule(Role.ATTENTION_V, Q6_K, (edges_and_every_third,)),
        Rule(Role.FFN_DOWN, Q6_K, (edges_and_every_third,)),
    )),
    Recipe("Q6_K", Q6_K, _COMMON),
    Recipe("IQ1_S", IQ1_S, _two_bits(Q2_K, embeddings=Q2_K, output=IQ2_XXS), needs_matrix=True),
    Recipe("IQ1_M", IQ1_M, _two_bits(Q2_K, embeddings=Q2_K, output=IQ2_XXS), needs_matrix=True),
    Recipe("IQ2_XXS", IQ2_XXS, _two_bits(Q2_K, embeddings=Q2_K, output=None), needs_matrix=True),
    Recipe("IQ2_XS", IQ2_XS, _two_bits(Q2_K, embeddings=Q2_K, output=None), needs_matrix=True),
    Recipe("IQ2_S", IQ2_XS, _two_bits(IQ3_S, embeddings=IQ3_S, output=IQ3_S), needs_matrix=True),
    Recipe("IQ2_M", IQ2_S, _two_bits(IQ3_S, embeddings=IQ3_S, output=IQ3_S), needs_matrix=True),
    Recipe("IQ3_XXS", IQ3_XXS, (
        *_DELICATE, *_HEAD_5_BITS, *_EIGHT_EXPERTS, *_EXPERTS_OUTPUT,
        Rule(Role.TOKEN_EMBEDDING, IQ3_S),
        *_V_SHARED, Rule(Role.ATTENTION_V, IQ3_S, (unless(with_matrix),)),
        Rule(Role.ATTENTION_K, IQ2_S), Rule(Role.ATTENTION_Q, IQ2_S),
        Rule(Role.FFN_DOWN, Q4_K, (unless(with_matrix), first_eighth)),
        Rule(Role.FFN_DOWN, Q3_K, (unless(with_matrix),)),
        _output(IQ3_S),
    ), needs_matrix=True),
    Recipe("IQ3_XS", IQ3_S, (
        *_COMMON, *_EXPERTS_OUTPUT,
        *_V_SHARED,
        Rule(Role.ATTENTION_K, IQ3_XXS), Rule(Role.ATTENTION_Q, IQ3_XXS),
        Rule(Role.FFN_GATE, IQ3_XXS, (middle,)), Rule(Role.FFN_UP, IQ3_XXS, (middle,)),
    ), needs_matrix=True),
    Recipe("IQ3_S", IQ3_S, (*_COMMON, *_EXPERTS_OUTPUT, *_V_SHARED)),
    Recipe("IQ3_M", IQ3_S, (
        *_COMMON, *_EXPERTS_OUTPUT,
        *_V_70B, Rule(Role.ATTENTION_V, Q4_K),
        Rule(Role.FFN_DOWN, Q4_K, (first_eighth,)),
        Rule(Role.FFN_DOWN, Q4_K, (eight_experts, edges_and_every_third)),
        _output(Q4_K),
    )),
    Recipe("IQ4_NL", IQ4_NL, _non_linear_four_bits()),
    Recipe("IQ4_XS", IQ4_XS, _non_linear_four_bits()),
    Recipe("TQ1_0", TQ1_0, (*_COMMON, *_TERNARY_EMBEDDINGS)),
    Recipe("TQ2_0", TQ2_0, (*_COMMON, *_TERNARY_EMBEDDINGS)),
    Recipe("Q1_0", Q1_0, _COMMON),
    Recipe("Q2_0", Q2_0, (*_COMMON, *_TERNARY_EMBEDDINGS)),
    Recipe("MXFP4_MOE", MXFP4, (Rule(None, Q8_0, (unless(of_experts),)),)),
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every file type that can be written, by llama.cpp's name."""

ALIASES: Mapping[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def recipe_named(name: str) -> Recipe:
    """The recipe of this name in any case, an alias included; raises UsageError with the nearest and all names."""
    upper = name.strip().upper()
    recipe = RECIPES.get(ALIASES.get(upper, upper))
    if recipe is not None:
        return recipe
    near = difflib.get_close_matches(upper, [*RECIPES, *ALIASES], n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(f"there is no quantization type {name!r}", f"{meant}the types are {', '.join(RECIPES)}")

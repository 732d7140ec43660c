"""Choose the type of every tensor: recipe, overrides, fallback, and whether an importance matrix is missing.

The order of precedence is that of llama-quantize (`llama_tensor_get_type` in llama.cpp's `src/llama-quant.cpp`).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from llamacli.errors import UsageError
from llamacli.formats.tensor_types import (
    F32,
    IQ1_M,
    IQ1_S,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ3_XXS,
    Q2_K,
    TensorType,
)  # fmt: skip
from llamacli.quantize.fallback import fits, type_that_fits
from llamacli.quantize.overrides import Overrides
from llamacli.quantize.place import Model, places
from llamacli.quantize.recipes import Recipe
from llamacli.quantize.roles import HEAD, TOKEN_EMBEDDINGS, Role, Shape, is_tied, may_quantize, role_of


@dataclass(frozen=True)
class Choice:
    """The type that one tensor gets. `reason` is empty where the recipe alone decided.

    `kept`: the tensor is not up for choice and stays as it is stored. `fallback`: its rows do not hold whole blocks of
    the type it was meant to have.
    """

    type: TensorType
    reason: str = ""
    kept: bool = False
    fallback: bool = False


NO_OVERRIDES = Overrides()


def choose_types(
    tensors: Sequence[Shape],
    model: Model,
    recipe: Recipe,
    overrides: Overrides = NO_OVERRIDES,
    *,
    has_imatrix: bool = False,
    source_types: Mapping[str, TensorType] | None = None,
) -> dict[str, Choice]:
    """The type of each tensor by name, in the order of `tensors`.

    `source_types` are the types that tensors which are not quantized keep (F32 for a name that is absent). Raises
    UsageError where an override cannot hold a tensor's rows, Unsupported where nothing stands in for a type.
    """
    types = source_types or {}
    tied = is_tied(tensor.name for tensor in tensors)
    chosen = {
        tensor.name: _settled(tensor, model, recipe, overrides, types.get(tensor.name, F32)) for tensor in tensors
    }
    open_ = [tensor for tensor in tensors if chosen[tensor.name] is None]
    total_v = sum(role_of(tensor.name, model.architecture, tied) is Role.ATTENTION_V for tensor in tensors)
    for place in places(open_, total_v, model, tied, recipe.default, has_imatrix):
        is_head = place.role is Role.HEAD
        wanted = overrides.output if is_head and overrides.output else recipe.type_for(place)
        reason = "--output-tensor-type" if is_head and overrides.output else ""
        chosen[place.tensor.name] = _fitted(place.tensor, wanted, reason)
    return {name: choice for name, choice in chosen.items() if choice is not None}


def undecided(tensors: Sequence[Shape], model: Model, recipe: Recipe, overrides: Overrides = NO_OVERRIDES) -> list[str]:
    """The tensors whose types are the recipe's to choose, by name."""
    return [tensor.name for tensor in tensors if _settled(tensor, model, recipe, overrides, F32) is None]


def _settled(
    tensor: Shape, model: Model, recipe: Recipe, overrides: Overrides, source_type: TensorType
) -> Choice | None:
    """The choice that needs no recipe; None if the recipe has to decide."""
    if source_type.quantized:
        return Choice(source_type, "already so in the checkpoint", kept=True)
    if not may_quantize(tensor, model.architecture):
        return Choice(source_type, "kept as it is stored", kept=True)
    if overrides.leave_output and tensor.name == HEAD:
        return Choice(source_type, "--leave-output-tensor", kept=True)
    named = overrides.named_type(tensor.name)
    # Gemma 3n's second embedding table is large: a pattern that names it is stronger than --token-embedding-type.
    named_table = named is not None and tensor.name != TOKEN_EMBEDDINGS[0]
    if overrides.token_embedding and tensor.name in TOKEN_EMBEDDINGS and not named_table:
        return _forced(tensor, overrides.token_embedding, "--token-embedding-type")
    if overrides.output and tensor.name == HEAD:
        return _forced(tensor, overrides.output, "--output-tensor-type")
    if not recipe.default.quantized:
        return Choice(recipe.default)
    if named is not None:
        return _fitted(tensor, named, "--tensor-type")
    if overrides.pure:
        return _fitted(tensor, recipe.default, "--pure")
    return None


def _forced(tensor: Shape, type_: TensorType, flag: str) -> Choice:
    if not fits(type_, tensor.columns):
        raise UsageError(
            f"{flag} {type_}: {tensor.name} has rows of {tensor.columns} weights, no multiple of {type_.block_size}",
            f"choose a type with narrower blocks: {flag} q8_0 where rows are a multiple of 32, else f16",
        )
    return Choice(type_, flag)


def _fitted(tensor: Shape, wanted: TensorType, reason: str) -> Choice:
    type_ = type_that_fits(wanted, tensor.columns, tensor.name)
    if type_ is wanted:
        return Choice(type_, reason)
    why = f"rows of {tensor.columns} are not a multiple of {wanted.block_size}"
    return Choice(type_, f"fallback from {wanted}: {why}", fallback=True)


_GARBAGE_WITHOUT_MATRIX = (IQ3_XXS, IQ2_XXS, IQ2_XS, IQ2_S, IQ1_M, IQ1_S)


def needing_matrix(choices: Mapping[str, Choice], recipe: Recipe) -> list[str]:
    """The tensors that llama-quantize refuses to write in their type without an importance matrix.

    The head and the embeddings are exempt; Q2_K needs one only in a Q2_K_S file.
    """
    types = (*_GARBAGE_WITHOUT_MATRIX, Q2_K) if recipe.name == "Q2_K_S" else _GARBAGE_WITHOUT_MATRIX
    exempt = (HEAD, *TOKEN_EMBEDDINGS)
    return [name for name, choice in choices.items() if choice.type in types and not choice.kept and name not in exempt]


def require_matrix(
    choices: Mapping[str, Choice], recipe: Recipe, has_imatrix: bool = False, *, known: Container[str] | None = None
) -> None:
    """Raise UsageError if tensors would be garbage because there is no importance matrix, or it says nothing of them.

    `known` are the tensors that the matrix knows; None for all of them.
    """
    names = needing_matrix(choices, recipe)
    if has_imatrix:
        names = [name for name in names if known is not None and name not in known]
    if not names:
        return
    type_ = choices[names[0]].type
    more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    what = "the importance matrix says nothing of" if has_imatrix else f"{recipe.name} needs an importance matrix:"
    raise UsageError(
        f"{what} {names[0]}{more}, which would be garbage as {type_} without one",
        "choose a type that does without: Q2_K, Q3_K_S, IQ3_S, Q4_K_M"
        if has_imatrix
        else "give one with --imatrix FILE, or choose a type that does without: Q2_K, Q3_K_S, IQ3_S, Q4_K_M",
    )

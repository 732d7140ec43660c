"""What the user decides against the recipe: `--tensor-type`, `--output-tensor-type`, `--token-embedding-type`, `--pure`.

The flags mean what they mean to llama-quantize: a pattern is a regular expression, searched for anywhere in the name,
written in lower case, and the first that is found counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from llamacli.errors import UsageError
from llamacli.formats.tensor_types import BY_NAME, F64, I8, I16, I32, I64, Q8_1, Q8_K, TensorType

WRITABLE: dict[str, TensorType] = {
    name: type_ for name, type_ in BY_NAME.items() if type_ not in (Q8_1, Q8_K, I8, I16, I32, I64, F64)
}
"""The types that weights can be written in; the others are for numbers at work and for indices."""


@dataclass(frozen=True)
class Overrides:
    """What stands above the recipe.

    `tensor_types`: pattern and type, the first pattern found in a name counts; only in a quantized file. `output`: the
    head, `token_embedding`: the embeddings, both in any file. `pure`: the recipe's default type for all the rest.
    `leave_output`: the head keeps the type it is stored in.
    """

    tensor_types: tuple[tuple[str, TensorType], ...] = ()
    output: TensorType | None = None
    token_embedding: TensorType | None = None
    pure: bool = False
    leave_output: bool = False

    def named_type(self, name: str) -> TensorType | None:
        """The type of the first pattern found in `name`."""
        return next((type_ for pattern, type_ in self.tensor_types if re.search(pattern, name)), None)

    def unused(self, names: Iterable[str]) -> list[str]:
        """The patterns found in none of these names: most often a slip of the pen."""
        known = list(names)
        return [pattern for pattern, _ in self.tensor_types if not any(re.search(pattern, name) for name in known)]


def type_named(name: str) -> TensorType:
    """The tensor type of this name in any case (`q8_0`, `Q4_K`); raises UsageError for any other."""
    type_ = WRITABLE.get(name.strip().upper())
    if type_ is not None:
        return type_
    near = difflib.get_close_matches(name.strip().upper(), WRITABLE, n=2, cutoff=0.6)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(f"there is no tensor type {name!r}", f"{meant}the types are {', '.join(WRITABLE)}")


def parse_tensor_type(text: str) -> tuple[str, TensorType]:
    """Read `PATTERN=TYPE`, as in `attn_v=q8_0`; raises UsageError where a part is missing or is no expression."""
    pattern, equals, type_name = text.partition("=")
    if not (pattern and equals and type_name):
        raise UsageError(f"{text!r} is not PATTERN=TYPE", "for example --tensor-type attn_v=q8_0")
    pattern = pattern.lower()
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{pattern!r} is no regular expression: {error}", "a part of the name will do: attn_v"
        ) from None
    return pattern, type_named(type_name)


def parse_tensor_types(text: str) -> tuple[tuple[str, TensorType], ...]:
    """Read the text of a `--tensor-type-file`: entries like `attn_v=q8_0`, separated by blanks or line ends."""
    return tuple(parse_tensor_type(word) for word in text.split())

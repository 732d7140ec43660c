"""Carry a family's rules out: the tensors of a checkpoint become the tensors of a GGUF file, still unread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gguf
import numpy as np

from llamacli.errors import CorruptFile, Unsupported
from llamacli.families.base import Family, Named, Rule
from llamacli.families.config import Config
from llamacli.families.engine_limits import check_settings, check_widths, loads_bias, needed_bias, needs_output
from llamacli.families.rope import check_rope
from llamacli.families.wrappers import OTHER_SENSES, text_name, text_prefix
from llamacli.formats.rows import Arena, InMemory, Joined, Rows, row_count

ALWAYS_DROPPED = re.compile(
    r".*(rotary_emb\.inv_freq|\.attn\.masked_bias|\.attention\.masked_bias|\.rotary_emb\.(cos|sin)_cached)"
)
"""Buffers that old checkpoints carry and that are computed from the configuration."""

_WRAPPERS = ("model.language_model.", "language_model.model.", "language_model.", "model.text_model.", "text_model.")


_BARE_EMBEDDINGS = ("embed_tokens.weight",)
"""Present where a class without a head was saved, whose tensors have no `model.` in front."""


def map_tensors(tensors: Mapping[str, Rows], family: Family, config: Config) -> dict[str, Rows]:
    """GGUF names and row descriptions of all tensors of a model, in the checkpoint's order.

    Raises Unsupported for a tensor that the family does not know, CorruptFile for two tensors with one name, a missing
    tensor, a missing expert or a wrong shape.
    """
    for reason in family.refusals(config):
        raise Unsupported(reason)
    check_settings(family.name, config, family.fixed)
    check_widths(family.name, config)
    table = tensor_name_table(family, config)
    mapped: dict[str, Rows] = {}
    sources: dict[str, str] = {}
    heads: list[Named] = []
    for source, name, rows in _transformed(tensors, family, config):
        target = name if name.startswith("blk.") else table.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None and source.endswith("lm_head.weight") and config.tied:
            heads.append((source, rows))
            continue
        if target is None:
            raise Unsupported(
                f"tensor {source!r} is not known to the {family.title or family.name} family",
                "the checkpoint has parts that this family does not have; nothing was written",
            )
        if target.endswith(".bias") and not loads_bias(family.name, target):
            raise Unsupported(
                f"tensor {source!r}: the engine's {family.title or family.name} has no bias {target}",
                "it would not load the file; nothing was written",
            )
        if target in mapped:
            raise CorruptFile(f"tensors {sources[target]!r} and {source!r} are both {target}")
        mapped[target], sources[target] = rows, source
    for source, rows in heads:
        _check_tied(source, rows, mapped)
    if config.tied and "output.weight" in mapped:
        embedding = mapped.setdefault("token_embd.weight", mapped["output.weight"])
        if _same_matrix(embedding, mapped["output.weight"]):
            del mapped["output.weight"]
    if config.tied and needs_output(family.name) and "token_embd.weight" in mapped:
        mapped.setdefault("output.weight", mapped["token_embd.weight"])
    for name, rows in list(mapped.items()):
        if bias := needed_bias(family.name, name):
            mapped.setdefault(bias, InMemory(np.zeros(rows.shape[0], np.float32)))
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        mapped.update(family.extra(config))
    check_rope(mapped, config, family.name, family.title)
    _check_expected(mapped, family, config)
    return mapped


def _check_tied(source: str, head: Rows, mapped: dict[str, Rows]) -> None:
    """For families that have no output matrix in GGUF: it must be the embedding, or the embedding stored once more."""
    if not _same_matrix(mapped.setdefault("token_embd.weight", head), head):
        raise Unsupported(
            f"tensor {source!r} is not the embedding, which serves as the output in the engine's graph of this family",
            "fine-tune with tied embeddings, or leave the tensor out",
        )


SAMPLED = 8
"""Rows by which two matrices are told apart: training changes nearly every one."""


def _same_matrix(one: Rows, other: Rows) -> bool:
    """Whether a tied model's two matrices are one. Where they are not, both count: config.json is wrong then."""
    if one is other:
        return True
    if one.shape != other.shape:
        raise CorruptFile(
            f"config.json ties output.weight {other.shape} to token_embd.weight {one.shape}, which have not the same shape"
        )
    rows = row_count(one.shape)
    return all(
        np.array_equal(one.read(row, row + 1, Arena()), other.read(row, row + 1, Arena()))
        for row in range(0, rows, max(1, rows // SAMPLED))
    )


def tensor_name_table(family: Family, config: Config) -> gguf.TensorNameMap:
    """The gguf package's names for this architecture and number of blocks."""
    return gguf.get_tensor_name_map(_architecture(family), family.blocks(config))


def _architecture(family: Family) -> Any:
    for number, name in gguf.MODEL_ARCH_NAMES.items():
        if name == family.name:
            return number
    raise Unsupported(f"the installed gguf package does not know the architecture {family.name!r}", "update gguf")


def _transformed(tensors: Mapping[str, Rows], family: Family, config: Config) -> Iterator[tuple[str, str, Rows]]:
    """(checkpoint's name, name for the name map, rows) of every tensor that is not dropped."""
    stacks: dict[str, tuple[Rule, dict[int, tuple[str, Rows]]]] = {}
    for source, plain, rows in _of_text_model(tensors, config):
        name = family.rename(plain, config)
        if _beyond(name, family, config):
            continue
        rule, match = _first_rule(family, name, config)
        if rule is None or match is None:
            yield source, name, rows
        elif rule.drop:
            continue
        elif rule.stack:
            moved = rule.transform(rows, config) if rule.transform else rows
            stacks.setdefault(match.expand(rule.stack), (rule, {}))[1][int(match["expert"])] = (source, moved)
        else:
            yield from ((source, new, part) for new, part in _applied(rule, match, name, rows, config))
    for name, (rule, experts) in stacks.items():
        yield next(iter(experts.values()))[0], name, _stacked(name, experts, rule.stack_size(config))


def _of_text_model(tensors: Mapping[str, Rows], config: Config) -> Iterator[tuple[str, str, Rows]]:
    """(checkpoint's name, name without a wrapper's, rows) of all tensors but buffers and other senses."""
    bare = any(name in tensors for name in _BARE_EMBEDDINGS)
    prefix = text_prefix(tensors) if config.wraps else None
    for source, rows in tensors.items():
        if ALWAYS_DROPPED.fullmatch(source) or OTHER_SENSES.fullmatch(source):
            continue
        name: str | None = plain_name(source)
        if bare and not source.startswith(("model.", "lm_head")):
            name = f"model.{source}"
        elif prefix:
            name = text_name(source, prefix)
        if name is not None:
            yield source, name, rows


def _beyond(name: str, family: Family, config: Config) -> bool:
    """Whether a tensor predicts further tokens, in a family whose graph in the engine does not."""
    match = _BLOCK.match(name)
    promised = int(config.get("num_nextn_predict_layers", default=0))
    return match is not None and family.blocks(config) <= int(match[1]) < config.blocks + promised


_BLOCK = re.compile(r"model\.layers\.(\d+)\.")


_TRAINERS = re.compile(r"(module\.|_orig_mod\.|base_model\.model\.)+")
"""What DistributedDataParallel, torch.compile and PEFT put in front of every name."""


def plain_name(name: str) -> str:
    """A tensor's name without what a trainer or a multimodal wrapper puts in front of its text model."""
    if front := _TRAINERS.match(name):
        name = name[front.end() :]
    for wrapper in _WRAPPERS:
        if name.startswith(wrapper):
            rest = name.removeprefix(wrapper)
            return rest if rest.startswith(("lm_head", "model.")) else f"model.{rest}"
    return name


def _first_rule(family: Family, name: str, config: Config) -> tuple[Rule | None, re.Match[str] | None]:
    for rule in family.rules:
        if match := rule.match(name, config):
            return rule, match
    return None, None


def _applied(rule: Rule, match: re.Match[str], name: str, rows: Rows, config: Config) -> Iterable[Named]:
    if rule.split:
        return rule.split(name, rows, config)
    renamed = match.expand(rule.rename) if rule.rename else name
    return [(renamed, rule.transform(rows, config) if rule.transform else rows)]


def _stacked(name: str, experts: Mapping[int, tuple[str, Rows]], size: int | None) -> Rows:
    """All experts of one matrix as one tensor of shape (experts, ...)."""
    wanted = max(experts) + 1 if size is None else size
    missing = next((number for number in range(wanted) if number not in experts), None)
    if missing is not None:
        raise CorruptFile(f"expert {missing} of {name} is missing (the model has {wanted})", _AGAIN)
    if len(experts) != wanted:
        raise CorruptFile(f"{name} has {len(experts)} experts, config.json says {wanted}")
    parts = tuple(experts[number][1] for number in sorted(experts))
    shape = parts[0].shape
    for number in sorted(experts):
        if experts[number][1].shape != shape:
            raise CorruptFile(f"tensor {experts[number][0]!r} has shape {experts[number][1].shape}, the others {shape}")
    return Joined(parts, (len(parts), *shape))


_UNTIED = "config.json does not say that the embedding is the output too (tie_word_embeddings); or a shard is missing"
_AGAIN = "a shard is missing or the checkpoint is incomplete; fetch it again"


def _check_expected(mapped: Mapping[str, Rows], family: Family, config: Config) -> None:
    for expected in family.expected:
        per_block = "{block}" in expected.name
        for block in range(config.blocks if per_block else 1):
            if not expected.when(config, block):
                continue
            name = expected.name.format(block=block)
            if name not in mapped:
                raise CorruptFile(
                    f"the checkpoint has no tensor for {name}", _UNTIED if name == "output.weight" else _AGAIN
                )
            wanted, found = expected.shape(config), mapped[name].shape
            if len(wanted) != len(found) or any(w not in (-1, f) for w, f in zip(wanted, found, strict=True)):
                raise CorruptFile(
                    f"the tensor for {name} has shape {found}, config.json says {wanted}",
                    "config.json and weights do not belong together",
                )

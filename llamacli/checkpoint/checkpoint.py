"""A checkpoint as one value: configuration, tensors that are read when asked, and where the rest lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamacli.checkpoint.consolidated import PARAMS, PREFIX, config_of_params
from llamacli.checkpoint.prequantized import refuse_unreadable
from llamacli.checkpoint.source import Source, plain
from llamacli.errors import CorruptFile, NotFound, Unsupported
from llamacli.formats.safetensors import StoredTensor, read_shard

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder from Hugging Face holds. `tensors` are in the order of the files and, within them, of their bytes."""

    source: Source
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    shards: tuple[str, ...]
    shard_of: Mapping[str, int]
    """Number of the shard that holds a tensor."""

    @classmethod
    def open(cls, source: Source) -> Checkpoint:
        """Read the configuration and every shard's header.

        Raises Unsupported for what is not a safetensors checkpoint, CorruptFile for a missing, extra or damaged file.
        """
        files = source.files()
        config = read_config(source)
        if config is None:
            raise Unsupported(f"{source.label} has no config.json", _what_it_is(files))
        refuse_unreadable(config, source.label)
        shards, promised = _shards(source, files)
        tensors: dict[str, StoredTensor] = {}
        shard_of: dict[str, int] = {}
        aliases: dict[str, str] = {}
        for number, shard in enumerate(shards):
            content = read_shard(source.open(shard), f"{source.label}/{shard}")
            for name, tensor in content.tensors.items():
                if name in tensors:
                    raise CorruptFile(f"{source.label}: tensor {name!r} stands in two shards")
                if promised is not None and promised.get(name) != shard:
                    raise CorruptFile(f"{source.label}/{shard}: tensor {name!r} is not in the index", _AGAIN)
                tensors[name] = tensor
                shard_of[name] = number
            aliases.update(content.metadata)
        if promised is not None and (missing := [name for name in promised if name not in tensors]):
            raise CorruptFile(f"{source.label}: tensor {missing[0]!r} is in the index but in no shard", _AGAIN)
        for alias, kept in aliases.items():
            if alias not in tensors and kept in tensors:  # tensors shared in memory are stored once
                tensors[alias] = tensors[kept]
                shard_of[alias] = shard_of[kept]
        return cls(source, config, tensors, shards, shard_of)

    @property
    def dtype(self) -> str:
        """The type that most weights have."""
        totals: dict[str, int] = {}
        for tensor in self.tensors.values():
            totals[tensor.stored] = totals.get(tensor.stored, 0) + tensor.size_bytes
        return max(totals, key=totals.__getitem__, default="F32")

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())


def read_config(source: Source) -> dict[str, Any] | None:
    """config.json, or what Mistral's params.json says in its terms; None where neither is."""
    files = source.files()
    if "config.json" in files:
        config: dict[str, Any] = read_json(source, "config.json")
        return config
    return config_of_params(read_json(source, PARAMS)) if PARAMS in files else None


def read_json(source: Source, name: str, kind: type = dict) -> Any:
    """A JSON object (or list, by `kind`) from a checkpoint. Raises CorruptFile if it is none."""
    content = source.read(name)
    if content.startswith(b"version https://git-lfs"):
        raise CorruptFile(
            f"{source.label}/{name} is a Git LFS pointer, not the file", "run `git lfs pull` in the folder"
        )
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{source.label}/{name} is not valid JSON", _AGAIN) from error
    if not isinstance(value, kind):
        raise CorruptFile(f"{source.label}/{name} is not a JSON {'object' if kind is dict else 'list'}")
    return value


_AGAIN = "the checkpoint is incomplete or mixed from two; fetch it again"


def _shards(source: Source, files: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str] | None]:
    """The weight files in order, and which tensor the index promises in which."""
    own = "config.json" not in files  # Mistral's format, beside or instead of transformers'
    index = f"{PREFIX if own else 'model'}.safetensors.index.json"
    if index in files:
        promised = read_json(source, index).get("weight_map")
        if not isinstance(promised, dict) or not promised or not all(isinstance(v, str) for v in promised.values()):
            raise CorruptFile(f"{source.label}/{index} has no weight_map")
        names = tuple(sorted(set(promised.values())))
        for name in names:
            if not plain(name) or not name.endswith(".safetensors"):
                raise CorruptFile(f"{source.label}: the index names {name!r}, which is not a plain *.safetensors file")
            if name not in files:
                raise CorruptFile(f"{source.label}: shard {name} is missing", "fetch the checkpoint again")
        return names, promised
    weights = tuple(name for name in files if name.endswith(".safetensors") and name.startswith(PREFIX) == own)
    if "model.safetensors" in weights:
        return ("model.safetensors",), None
    numbered = tuple(name for name in weights if name.startswith("model-"))
    if numbered:
        raise CorruptFile(
            f"{source.label} has shards but no model.safetensors.index.json", "fetch the checkpoint again"
        )
    others = tuple(name for name in weights if not name.startswith("adapter_"))
    if len(others) == 1:
        return others, None
    if not others:
        raise (NotFound if not files else Unsupported)(f"{source.label} has no safetensors weights", _what_it_is(files))
    raise Unsupported(f"{source.label} has several weight files and no index: {', '.join(others[:3])}")


def _what_it_is(files: tuple[str, ...]) -> str:
    """A hint from what lies in the folder."""
    if any(name.endswith(PICKLES) for name in files):
        return "it has pickled weights, which can run code and are never read; get the safetensors version"
    if ggufs := [name for name in files if name.endswith(".gguf")]:
        return f"give the GGUF file itself as the source: {ggufs[0]}"
    if "adapter_config.json" in files:
        return "this is a LoRA adapter, not a whole model"
    return "a checkpoint is a folder with config.json, *.safetensors and a tokenizer"

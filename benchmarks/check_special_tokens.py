"""Compare how contradictory and incomplete tokenizer settings are resolved, with transformers.

    python benchmarks/check_special_tokens.py FOLDER... --python PYTHON

Each FOLDER is a checkpoint with tokenizer.json; its configuration files are changed in many ways, one at a time. PYTHON is an
interpreter that has transformers, which this one need not have. Printed is every version in which the ids of the roles or of
the texts differ both from those of the class that the checkpoint names and from those of the general one. A role that both
leave empty may have an id here: that of config.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "checkpoint"))

from engine_tokenizer import EngineTokenizer

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.special_tokens import ROLES
from llamacli.checkpoint.tokenizer import read_vocabulary
from llamacli.errors import LlamacliError

Files = dict[str, Any]
CONFIG, MAP, GENERATION, JSON = (
    "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "tokenizer.json",
)  # fmt: skip
NAMES = (CONFIG, MAP, GENERATION, JSON, "config.json", "added_tokens.json")
TEXTS = [
    "the end", "abcdex abcd <a><b><c> xab ab", "x <left> y <right>  z <both> w", "<one> x<one>y a ab cab ab.",
    "Caf\u00e9 x cafe\u0301 e\u0301\u0323 \u1eb9\u0301 \u00e9", "a b  c\n\nd leader lead <tool>{}</tool> <x>",
    "<|new|> <extra> <|more|> hi", "hello <|im_start|>user\nHi<|im_end|>\n<s> [INST] q [/INST]  </s> r <|end|> \n[MASK] x",
]  # fmt: skip
THEIRS = """
import json, sys
from transformers import AutoTokenizer, PreTrainedTokenizerFast
texts, roles, folders = json.load(sys.stdin)
for folder in folders:
    found = []
    for kind in (AutoTokenizer, PreTrainedTokenizerFast):
        try:
            tokenizer = kind.from_pretrained(folder)
        except Exception as error:
            print(folder, error, file=sys.stderr)
            continue
        ids = [getattr(tokenizer, role + "_token_id", None) for role in roles]
        found.append([ids, [tokenizer(text)["input_ids"] for text in texts]])
    print(json.dumps(found))
"""


def first(files: Files, place: int = 0) -> str:
    """One of the added tokens."""
    tokens = files[JSON]["added_tokens"]
    return str(tokens[min(place, len(tokens) - 1)]["content"])


def with_tokens(*texts: str, **flags: bool) -> Callable[[Files], None]:
    """More added tokens, in both files that list them."""

    def change(files: Files) -> None:
        document = files[JSON]
        known = [*document["model"]["vocab"].values(), *(token["id"] for token in document["added_tokens"])]
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        for turn, text in enumerate(texts):
            token = {"content": text, **plain, **flags}
            document["added_tokens"].append({"id": max(known) + 1 + turn, **token})
            files[CONFIG].setdefault("added_tokens_decoder", {})[str(max(known) + 1 + turn)] = token
        files["config.json"]["vocab_size"] += len(texts)

    return change


def flagged(**flags: bool) -> Callable[[Files], None]:
    """Flags for all added tokens of tokenizer.json."""

    def change(files: Files) -> None:
        for token in files[JSON]["added_tokens"]:
            token.update(flags)

    return change


def configured(**values: object) -> Callable[[Files], None]:
    """Values in tokenizer_config.json, and nothing beside it."""

    def change(files: Files) -> None:
        files[CONFIG].update(values)
        files.pop(MAP, None)
        files["config.json"]["vocab_size"] += 8

    return change


CHANGES: dict[str, Callable[[Files], object]] = {
    "as it is": lambda files: None,
    "no special_tokens_map": lambda files: files.pop(MAP, None),
    "only the class": lambda files: files.update({CONFIG: {"tokenizer_class": files[CONFIG].get("tokenizer_class")}}),
    "no class": lambda files: files[CONFIG].pop("tokenizer_class", None),
    "bos is null": configured(bos_token=None),
    "eos contradicts": lambda files: (
        files[CONFIG].update(eos_token=first(files)), files.setdefault(MAP, {}).update(eos_token=first(files, 1))
    ),
    "eos nowhere": configured(eos_token="<|nowhere|>"),
    "pad nowhere": configured(pad_token="[PAD!]"),
    "unknown nowhere": configured(unk_token="<|what|>"),
    "mask nowhere": configured(mask_token="<|mask|>"),
    "extra is a word": configured(additional_special_tokens=["the", "hello"]),
    "extra by name": configured(extra_special_tokens={"image_token": "<image>", "other_token": "the"}),
    "extra as a list": configured(extra_special_tokens=["<x>", "the"]),
    "adds BOS": configured(add_bos_token=True),
    "adds no BOS": configured(add_bos_token=False),
    "adds EOS": configured(add_eos_token=True),
    "no processor": lambda files: files[JSON].update(post_processor=None),
    "no processor, adds both": lambda files: (
        files[JSON].update(post_processor=None), files[CONFIG].update(add_bos_token=True, add_eos_token=True)
    ),
    "role as an object": lambda files: files[CONFIG].update(
        eos_token={"__type": "AddedToken", "content": first(files, 1), "rstrip": True}
    ),
    "generation differs": lambda files: files.setdefault(GENERATION, {}).update(eos_token_id=[0, 1], bos_token_id=1),
    "added_tokens.json": lambda files: files.update({"added_tokens.json": {"<extra>": 600, "<|more|>": 601}}),
    "nothing is special": flagged(special=False),
    "strips to the left": flagged(lstrip=True),
    "strips to the right": flagged(rstrip=True),
    "overlapping": with_tokens("ab", "abc", "bcde", "cd", "<a><b>", "<b><c>"),
    "left": with_tokens("<left>", lstrip=True),
    "right": with_tokens("<right>", rstrip=True),
    "both": with_tokens("<both>", lstrip=True, rstrip=True),
    "special left": with_tokens("<left>", lstrip=True, special=True),
    "special": with_tokens("<|new|>", "<x>", special=True),
    "with spaces": with_tokens("a b", "  ", "\n\n", " lead"),
    "plain": with_tokens("<tool>", "</tool>"),
    "single word": with_tokens("<one>", "ab", single_word=True),
}  # fmt: skip


def changed(folder: Path, name: str, room: Path) -> Path:
    """The configuration files of `folder`, changed, in a folder of their own."""
    files: Files = {
        file: json.loads((folder / file).read_text(encoding="utf-8")) for file in NAMES if (folder / file).exists()
    }
    files.setdefault(CONFIG, {})
    CHANGES[name](files)
    out = room / f"{folder.name}, {name}"
    out.mkdir()
    for file, value in files.items():
        (out / file).write_text(json.dumps(value), encoding="utf-8")
    return out


def ours(folder: Path) -> tuple[list[int | None], list[list[int]]]:
    """The ids of the roles, and of the texts."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    vocabulary = read_vocabulary(Folder(folder), config, config["vocab_size"])
    with tempfile.TemporaryDirectory() as room, EngineTokenizer(vocabulary, Path(room)) as engine:
        ids = [engine.encode_mended(text, add_special=True) for text in TEXTS]
    return [vocabulary.special.get(key) for key in ROLES.values()], ids


def main() -> int:
    """Check all folders given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--python", required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folders = [changed(folder, change, Path(name)) for folder in given.folders for change in CHANGES]
        asked = json.dumps([TEXTS, list(ROLES), [str(folder) for folder in folders]])
        answer = subprocess.run(
            [given.python, "-c", THEIRS], input=asked, stdout=subprocess.PIPE, text=True, check=True
        )
        different = 0
        for folder, line in zip(folders, answer.stdout.splitlines(), strict=True):
            different += report(folder, json.loads(line))
    print(f"{different} of {len(folders)} versions differ in the ids of a text")
    return 1 if different else 0


def report(folder: Path, theirs: list[Any]) -> bool:
    """Print what differs from both of `theirs`; whether any text does."""
    try:
        roles, ids = ours(folder)
    except LlamacliError as error:
        print(f"{folder.name}: {error.message}")
        return False
    wrong = [
        (role, mine, *(answer[0][place] for answer in theirs))
        for place, (role, mine) in enumerate(zip(ROLES, roles, strict=True))
        if all(answer[0][place] not in (mine, None) for answer in theirs)
    ]
    texts = [place for place, mine in enumerate(ids) if all(answer[1][place] != mine for answer in theirs)]
    if wrong or texts:
        print(f"{folder.name}: roles {wrong}, texts {texts}")
    return bool(texts)


if __name__ == "__main__":
    sys.exit(main())

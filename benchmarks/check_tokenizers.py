"""Compare the engine's tokenizer, as our converter sets it up, with Hugging Face's `tokenizers` on random texts.

    python benchmarks/check_tokenizers.py FOLDER... [--count 10000] [--pre-tokenizers] [--alone] [--settled] [--show 5]

A folder holds tokenizer.json (or tokenizer.model) and what belongs to it, and perhaps `cases.json`, texts and their ids (see
`rebuild_tokenizers.py`). `--pre-tokenizers`
trains one for each of the engine's cuts, under the name that our converter gives it. `--alone` leaves out what our runtime does
around the engine, as other programs do. `--settled` leaves out combining marks and what Unicode 3.2 did not have yet: where
libraries disagree because their tables are of different age. Exits with 1 if any text differs.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unicodedata import ucd_3_2_0

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "checkpoint"))

from engine_tokenizer import EngineTokenizer
from random_text import random_text

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import read_vocabulary
from llamacli.formats.expressions import TEKKEN


def oracle(folder: Path) -> Callable[[str], list[int]]:
    """Text to ids, by the library that the file belongs to."""
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return lambda text: list(theirs.encode(text, add_special_tokens=False).ids)
    if (folder / "tekken.json").exists():
        return ranked(json.loads((folder / "tekken.json").read_text(encoding="utf-8")))
    from sentencepiece import SentencePieceProcessor

    model: Any = SentencePieceProcessor()
    model.LoadFromFile(str(folder / "tokenizer.model"))
    return lambda text: list(model.Encode(text))


def ranked(document: dict[str, Any]) -> Callable[[str], list[int]]:
    """tekken.json as its format is documented: words of the pattern, the neighbours of the lowest rank merged first."""
    from tokenizers import Regex, pre_tokenizers

    config = document["config"]
    cut = pre_tokenizers.Split(Regex(config["pattern"]), "isolated")
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in document["vocab"]}

    def ids(text: str) -> Iterator[int]:
        for word, _ in cut.pre_tokenize_str(text):
            parts = [bytes([byte]) for byte in word.encode()]
            whole = word.encode() if word.encode() in ranks else None
            while whole is None and len(parts) > 1:
                found = [
                    (ranks.get(left + right, len(ranks)), place) for place, (left, right) in enumerate(pairwise(parts))
                ]
                rank, place = min(found)
                if rank == len(ranks):
                    break
                parts[place : place + 2] = [parts[place] + parts[place + 1]]
            yield from (ranks[part] + config["default_num_special_tokens"] for part in ([whole] if whole else parts))

    return lambda text: list(ids(text))


def rows_of(config: dict[str, Any]) -> int:
    """Rows of the embedding; without a configuration, enough for any."""
    inner = config.get("text_config")
    rows = config.get("vocab_size") or (inner if isinstance(inner, dict) else {}).get("vocab_size")
    return int(rows or 1 << 18)


def settled(text: str) -> str:
    """The text without marks and without characters that came after Unicode 3.2."""
    return "".join(c for c in text if ucd_3_2_0.category(c)[0] != "M" and ucd_3_2_0.category(c) != "Cn")


def check(folder: Path, given: argparse.Namespace) -> int:
    """Print a line for `folder` and the first differences; their number."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    start = time.perf_counter()
    vocabulary = read_vocabulary(Folder(folder), config, rows_of(config))
    if "pre" in config:
        vocabulary = replace(vocabulary, pre=config["pre"])
    seconds = time.perf_counter() - start
    expected = oracle(folder)
    generator = random.Random(2026)
    different: list[tuple[str, list[int], list[int]]] = []
    wrong = ""
    with tempfile.TemporaryDirectory() as scratch, EngineTokenizer(vocabulary, Path(scratch), folder.name) as engine:
        encode = engine.encode if given.alone else engine.encode_mended
        if (folder / "cases.json").exists():
            cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
            failed = [case for case in cases if encode(case["text"]) != case["ids"]]
            different += [(case["text"], encode(case["text"]), case["ids"]) for case in failed]
            wrong = f"   {len(failed)} of {len(cases)} cases differ"
        in_cases = len(different)
        for _ in range(given.count):
            text = settled(random_text(generator)) if given.settled else random_text(generator)
            ours, theirs = encode(text), expected(text)
            if ours != theirs:
                different.append((text, ours, theirs))
        differing = len(different) - in_cases
    print(f"{folder.name:24} {vocabulary.model:6} {vocabulary.pre:24} read in {seconds:5.2f} s  "
          f"{differing:5} of {given.count} differ{wrong}", flush=True)  # fmt: skip
    for text, ours, theirs in different[: given.show]:
        print(f"    {text!a}\n      engine {ours}\n      theirs {theirs}")
    for line in vocabulary.warnings:
        print(f"    {line}")
    return len(different)


def trained_folders(room: Path) -> list[Path]:
    """A tokenizer for each name of the table, read under that name, its merges learnt under the table's expression."""
    from test_pretokenizers import ROWS, trained

    folders = []
    for steps, name in ROWS:
        document = json.loads(json.dumps(trained(steps)))
        document["model"]["ignore_merges"] = name.ignore_merges
        folder = room / (name.cut or name.pre)
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({"vocab_size": 4000, "pre": name.pre}))
        folders.append(folder)
    return [*sorted(set(folders)), tekken_folder(room)]


def tekken_folder(room: Path) -> Path:
    """A tekken.json: the bytes and what is merged of them under Tekken's expression, by rank."""
    from test_pretokenizers import trained

    from llamacli.checkpoint.tekken import byte_alphabet

    bytes_of = {text: byte for byte, text in byte_alphabet().items()}
    vocabulary = trained((TEKKEN,))["model"]["vocab"]
    learnt = sorted(
        (text for text in vocabulary if text not in bytes_of and text != "<|bos|>"), key=vocabulary.__getitem__
    )
    words = [bytes([byte]) for byte in range(256)] + [bytes(map(bytes_of.__getitem__, text)) for text in learnt]
    entries = [{"rank": rank, "token_bytes": base64.b64encode(word).decode()} for rank, word in enumerate(words)]
    config = {"pattern": TEKKEN, "default_vocab_size": len(words) + 20, "default_num_special_tokens": 20}
    folder = room / "tekken.json"
    folder.mkdir(exist_ok=True)
    (folder / "tekken.json").write_text(json.dumps({"config": config, "vocab": entries}), encoding="utf-8")
    return folder


def main() -> int:
    """Check all folders given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--pre-tokenizers", action="store_true")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--settled", action="store_true")
    parser.add_argument("--show", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        folders = [*given.folders, *(trained_folders(Path(room)) if given.pre_tokenizers else ())]
        found = [check(folder, given) for folder in folders]
    return 1 if any(found) else 0


if __name__ == "__main__":
    sys.exit(main())

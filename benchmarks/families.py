"""Convert every family's tiny checkpoint and write the table of what came out into docs/families.md.

    python benchmarks/families.py [--fixtures FOLDER]

Small cases come from tests/data/families; FOLDER holds whole checkpoints with transformers' answers (`expected.npz`,
`texts.json`, `chat.json`) and what llama.cpp's converter wrote (`peer_tensors.json`, `peer_kv.json`).
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "families")]

from converting import architecture_keys, convert, digests, read_gguf  # noqa: E402
from engine_answers import Engine, computed, nmse  # noqa: E402
from synthetic import write_checkpoint  # noqa: E402

from llamacli.families.config import Config  # noqa: E402
from llamacli.families.registry import family_of  # noqa: E402

PAGE = ROOT / "docs" / "families.md"
BASES = {"lora-llama3.1": "llama3.1"}


def title_of(config: dict[str, Any]) -> str:
    """The family's name for people."""
    return family_of(Config.of(config)).title


def case_row(path: Path, scratch: Path) -> list[str]:
    """A case of the tests: a few positions of logits, digests and keys."""
    case = json.loads(path.read_text())
    folder, gguf = scratch / path.stem, scratch / f"{path.stem}.gguf"
    write_checkpoint(folder, case["config"], {name: tuple(shape) for name, shape in case["tensors"].items()})
    convert(folder, gguf)
    expected = np.frombuffer(base64.b64decode(case["expected"]), "<f4").reshape(len(case["positions"]), -1)
    found_file = read_gguf(gguf)
    with Engine(gguf) as engine:
        found = computed(engine, case)
    found = found[case["positions"], : expected.shape[1]]
    equal, keys = "fails", "-"
    if "peer_tensors" in case:
        ours = {name: [list(shape), digest[:16]] for name, (shape, _, digest) in digests(found_file).items()}
        same = sum(ours.get(name) == entry for name, entry in case["peer_tensors"].items())
        equal = f"{same}/{len(case['peer_tensors'])}"
        mine, theirs = architecture_keys(found_file.metadata), case["peer_keys"]
        keys = str(sum(mine.get(key) != theirs.get(key) for key in mine.keys() | theirs.keys()))
    error, worst = nmse(found, expected), float(abs(found - expected).max())
    return [title_of(case["config"]), path.stem, equal, keys, f"{error:.0e}", f"{worst:.0e}", "-", "-", "-"]


def fixture_row(name: str, fixtures: Path, scratch: Path) -> list[str]:
    """A whole checkpoint: all logits, greedy tokens, texts and chats too."""
    from llamacli.checkpoint.adapter import read_adapter
    from llamacli.checkpoint.source import Folder

    folder, gguf = fixtures / name, scratch / f"whole-{name}.gguf"
    base = fixtures / BASES.get(name, name)
    convert(base, gguf, adapters=[read_adapter(Folder(folder))] if name in BASES else [])
    config = json.loads((base / "config.json").read_text())
    found = read_gguf(gguf)
    equal = keys = "-"
    if (folder / "peer_tensors.json").exists():
        theirs = json.loads((folder / "peer_tensors.json").read_text())
        ours = digests(found)
        equal = f"{sum(ours.get(t['name'], ('', '', ''))[2] == t['sha256'] for t in theirs)}/{len(theirs)}"
    if (folder / "peer_kv.json").exists():
        from test_fixture_checkpoints import _equal

        peer = json.loads((folder / "peer_kv.json").read_text())
        keys = str(
            sum(not _equal(found.metadata.get(key), peer.get(key)) for key in found.metadata.keys() | peer.keys())
        )
    errors, worst, greedy = _answers(folder, gguf)
    alone, mended = _texts(folder, gguf)
    return [title_of(config), name, equal, keys, f"{errors:.0e}", f"{worst:.0e}", greedy, alone, mended]


def _answers(folder: Path, gguf: Path) -> tuple[float, float, str]:
    """The largest NMSE and difference of any sequence, and whether 16 greedy tokens are equal."""
    answers = np.load(folder / "expected.npz")
    errors, differences = [], []
    with Engine(gguf) as engine:
        for number, length in enumerate(answers["lengths"]):
            tokens = answers["tokens"][number, :length]
            if "embeddings" in answers:
                found = engine.pooled(tokens)
                found, expected = found / np.linalg.norm(found), answers["embeddings"][number][None]
            else:
                chosen = answers["logit_seq"] == number
                expected = answers["logits"][chosen]
                found = engine.logits(tokens)[answers["logit_pos"][chosen], : expected.shape[1]]
            errors.append(nmse(found, expected))
            differences.append(float(abs(found - expected).max()))
        if "greedy" not in answers:
            return max(errors), max(differences), "-"
        tokens = list(answers["prompt"])
        for _ in answers["greedy"]:
            tokens.append(int(engine.logits(tokens, 256)[-1, : answers["logits"].shape[1]].argmax()))
    same = tokens[len(answers["prompt"]) :] == answers["greedy"].tolist()
    return max(errors), max(differences), "equal" if same else "differ"


def _texts(folder: Path, gguf: Path) -> tuple[str, str]:
    """Texts (plain / with special tokens / chats) that are tokenized differently: by the engine, and by our runtime."""
    from llamacli.runtime import bindings
    from llamacli.runtime.known_text import known_text
    from llamacli.runtime.messages import Span
    from llamacli.runtime.text_mends import TextMends
    from llamacli.runtime.vocab import Vocab

    lib = bindings.load()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(str(gguf).encode(), params)
    parsed = read_gguf(gguf)
    texts = json.loads((folder / "texts.json").read_text())
    chats = [chat for chat in json.loads((folder / "chat.json").read_text()) if "ids" in chat]
    counts = []
    for mends in ((), (TextMends.from_gguf(parsed),)):
        vocab = Vocab(lib, model, known_text(parsed), *mends)

        def ids(text: str, special: bool, vocab: Any = vocab, mended: bool = bool(mends)) -> list[int]:
            if mended:
                return list(vocab.tokens((Span(text, control=True),), add_special=special))
            return list(vocab.encode(text, add_special=special, parse_special=True))

        wrong = (
            sum(ids(text["text"], False) != text["ids"] for text in texts),
            sum(ids(text["text"], True) != text["ids_special"] for text in texts),
            sum(ids(chat["prompt"], False) != chat["ids"] for chat in chats),
        )
        counts.append("/".join(map(str, wrong)))
    lib.llama_model_free(model)
    return counts[0], counts[1]


def lines_table() -> str:
    """Lines of every family file, and the families in it."""
    rows = []
    for path in sorted((ROOT / "llamacli" / "families").glob("*.py")):
        text = path.read_text()
        titles = re.findall(r'\btitle="([^"]+)"', text)
        if titles:
            rows.append(f"| `{path.name}` | {len(text.splitlines())} | {'; '.join(titles)} |")
    return "\n".join(["| file | lines | families |", "|---|---|---|", *rows])


def main() -> None:
    """Print the tables, and put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", type=Path)
    given = parser.parse_args()
    head = (
        "| family | checkpoint | tensors equal | keys that differ | NMSE | largest difference | greedy "
        "| texts wrong: engine alone | with our runtime |\n|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as room:
        scratch = Path(room)
        rows = [case_row(path, scratch) for path in sorted((ROOT / "tests" / "data" / "families").glob("*.json"))]
        whole = []
        if given.fixtures:
            names = sorted(path.parent.name for path in given.fixtures.glob("*/expected.npz"))
            whole = [fixture_row(name, given.fixtures, scratch) for name in names]
    tables = {
        "cases": "\n".join([head, *("| " + " | ".join(row) + " |" for row in rows)]),
        "fixtures": "\n".join([head, *("| " + " | ".join(row) + " |" for row in whole)]) if whole else "",
        "lines": lines_table(),
    }
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    for name, table in tables.items():
        if table:
            print(table, "\n")
            page = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\g<1>{table}\n\g<2>", page, flags=re.DOTALL)
    if page:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

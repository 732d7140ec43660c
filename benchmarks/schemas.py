"""Random schemas with real models: every answer parses and validates, or is refused as `run` refuses it (exit 8).

    python benchmarks/schemas.py MODEL.gguf... [--schemas 200] [-n 160]

The schemas are those of the tests: nested objects, arrays, enumerations, numbers with bounds, references. An answer that
was accepted is held against its schema once more by the `jsonschema` package where that is installed. Exit 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamacli.errors import SchemaError
from llamacli.runtime.constrain import by_schema
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Span

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "runtime"))
from random_schemas import random_schema

KINDS = ("right", "cut at -n", "no token fits", "not exactly one of oneOf", "wrong")


def main() -> int:
    """Ask every model, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("-n", "--predict", type=int, default=160)
    arguments = parser.parse_args()
    second = second_opinion()
    print(f"| model | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}")
    wrong = 0
    for path in arguments.models:
        with open_engine(path, EngineSettings(threads=1)) as engine:
            found = Counter(kind_of(engine, seed, arguments.predict, second) for seed in range(arguments.schemas))
        print(f"| {path.stem} | {' | '.join(str(found[kind]) for kind in KINDS)} |", flush=True)
        wrong += found["wrong"]
    return int(wrong > 0)


def kind_of(engine: LlamaEngine, seed: int, predict: int, second: Callable[[Any, Any], bool]) -> str:
    """What came of one schema."""
    schema = random_schema(seed)
    held = by_schema(json.dumps(schema))
    prompt = engine.tokens((Span("Once upon a time", False),))
    pieces = list(engine.generate(prompt, Sampling(temp=0.8, seed=seed, grammar=held.grammar, predict=predict)))
    text, finish = "".join(piece.text for piece in pieces), pieces[-1].finish
    assert finish is not None
    try:
        held.judge(text, finish)
    except SchemaError as error:
        if finish in ("length", "grammar"):
            return "cut at -n" if finish == "length" else "no token fits"
        return "not exactly one of oneOf" if "of oneOf" in error.message else "wrong"
    try:
        return "right" if second(schema, json.loads(text)) else "wrong"
    except ValueError:
        return "wrong"


def second_opinion() -> Callable[[Any, Any], bool]:
    """`jsonschema`'s word on a schema and a value; without the package the answer is yes."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        print("jsonschema is not installed: only our own validator judges", file=sys.stderr)
        return lambda schema, value: True
    return lambda schema, value: bool(Draft202012Validator(schema).is_valid(value))


if __name__ == "__main__":
    sys.exit(main())

"""Grammars are judged before the engine sees them: none ends the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamacli.errors import SchemaError
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.grammar import MAX_DEPTH, MAX_NESTING, check_grammar
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Span

DEEP = "root ::= " + "(" * (MAX_NESTING + 1) + '"a"' + ")" * (MAX_NESTING + 1)
CHAIN = "\n".join(["root ::= r0", *(f"r{i} ::= r{i + 1}" for i in range(MAX_DEPTH)), f'r{MAX_DEPTH} ::= "a"'])
DOUBLING = "\n".join(["root ::= r0", *(f'r{i} ::= r{i + 1} "a" | r{i + 1} "b"' for i in range(60)), 'r60 ::= "c"'])

HOSTILE = {
    "left recursion": 'root ::= root "a" | "b"',
    "left recursion over two rules": 'root ::= a\na ::= root "x" | "y"',
    "left recursion behind what may be empty": 'root ::= a root "b" | "c"\na ::= "x"*',
    "the same behind a group": 'root ::= ("x"? | "y") root "b" | "c"',
    "repetition of what may be empty": 'root ::= ("a"*)* "b"',
    "a repetition that counts backwards": 'root ::= "a"{5,2}',
    "too many repetitions": 'root ::= "a"{2001}',
    "too many repetitions within each other": 'root ::= ("a"{0,50}){0,50}',
    "a number beyond any": 'root ::= "a"{99999999999999999999999}',
    "nothing to repeat": "root ::= *",
    "nothing in a set": "root ::= []",
    "deep parentheses": DEEP,
    "a deep chain of rules": CHAIN,
    "ways that double with every rule": DOUBLING,
    "no end": 'root ::= "a" root',
    "nothing matches": "root ::= [b-a]",
    "a rule that is not there": "root ::= a",
    "no root": 'start ::= "a"',
    "an open text": 'root ::= "abc',
    "an open set": "root ::= [abc",
    "an open group": 'root ::= ("a"',
    "an unknown escape": r'root ::= "\q"',
    "a cut escape": r'root ::= "\u12"',
    "two rules on a line": 'root ::= "a" b ::= "c"',
    "zero byte": 'root ::= "a\0"',
    "half a character": 'root ::= "\ud800"',
    "a token without an end": "root ::= <think",
}
HARMLESS = {
    'root ::= "yes" | "no"': ("yes", "no"),
    'root ::= a b  # a comment\na ::= "x"\n\nb ::= (\n "y" |\n "z"\n)': ("xy", "xz"),
    r'root ::= "\x41\u0042\U00000043" [\]\-\\]{2}': ("ABC--", "ABC]]", "ABC\\\\", "ABC]-", "ABC-]"),
    'root ::= ("ab"){2,3}': ("abab", "ababab"),
    'root ::= list\nlist ::= "a" list | "b"': ("b", "ab", "aab"),
}


@pytest.fixture(scope="module")
def engine(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted("stories260K-hf"), EngineSettings(threads=1)) as opened:
        yield opened


def written(engine: LlamaEngine, grammar: str, seed: int = 1) -> tuple[str, str | None]:
    tokens = engine.tokens((Span("Once upon a time", False),))
    pieces = list(engine.generate(tokens, Sampling(seed=seed, grammar=grammar, predict=40)))
    return "".join(piece.text for piece in pieces), pieces[-1].finish


@pytest.mark.parametrize("grammar", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_grammar_is_refused_in_words(engine: LlamaEngine, grammar: str) -> None:
    with pytest.raises(SchemaError, match="grammar"):
        check_grammar(grammar)
    with pytest.raises(SchemaError):
        written(engine, grammar)


@pytest.mark.parametrize("grammar", HARMLESS)
def test_a_harmless_grammar_is_obeyed(engine: LlamaEngine, grammar: str) -> None:
    for seed in range(5):
        text, finish = written(engine, grammar, seed)
        assert finish in ("stop", "length")
        assert text in HARMLESS[grammar] or (finish == "length" and not text.strip("a"))


def test_every_beginning_of_a_grammar_is_survived(engine: LlamaEngine) -> None:
    whole = 'root ::= a{2,3} ("x" | [^b-d\\n])* <[5]>? # c\na ::= . "\\x41" b?\nb ::= "z" b | "y"'
    for end in range(len(whole)):
        try:
            check_grammar(whole[:end])
        except SchemaError:
            continue
        written(engine, whole[:end])


def test_what_the_vocabulary_cannot_spell_ends_the_answer_not_the_process(converted: Callable[..., Path]) -> None:
    with open_engine(converted("tinystories-chat-2m"), EngineSettings(threads=1)) as narrow:
        assert written(narrow, 'root ::= "ab{"') == ("ab", "grammar")
        assert written(narrow, 'root ::= "\\u6f22"') == ("", "grammar")
        assert written(narrow, 'root ::= "ab"')[1] == "stop"

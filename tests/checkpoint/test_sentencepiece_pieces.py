"""`tokenizer.model` files of either kind, with scores that tie and odd pieces, against SentencePiece itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from engine_tokenizer import EngineTokenizer
from sentencepiece import SentencePieceProcessor
from sentencepiece_file import Piece, model_file

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import Vocabulary, read_vocabulary
from llamacli.checkpoint.vocabulary import TokenType
from llamacli.errors import Unsupported

LETTERS = "abcé\u2581"
SPECIAL: list[Piece] = [
    ("<unk>", 0.0, TokenType.UNKNOWN), ("<s>", 0.0, TokenType.CONTROL), ("</s>", 0.0, TokenType.CONTROL),
]  # fmt: skip
BYTES: list[Piece] = [(f"<0x{byte:02X}>", 0.0, TokenType.BYTE) for byte in range(256)]
RUNS: list[Piece] = [("\u2581" * length, -1e9, TokenType.NORMAL) for length in range(2, 6)]
"""As Llama's and Mistral's vocabularies have them: the last of all to be made."""
ODD = (TokenType.UNUSED, TokenType.USER_DEFINED)


def pieces(generator: random.Random, *, odd: bool) -> list[Piece]:
    """Pieces of few letters whose scores are tenths: equally good ways to cut a text are everywhere."""
    found: dict[str, Piece] = {}
    for text in LETTERS:
        found[text] = (text, -generator.randint(1, 40) / 10, TokenType.NORMAL)
    for _ in range(120):
        text = "".join(generator.choices(LETTERS + "d", k=generator.randint(2, 6)))
        kind = generator.choice(ODD) if odd and generator.random() < 0.2 else TokenType.NORMAL
        found.setdefault(text, (text, -generator.randint(1, 60) / 10, kind))
    return list(found.values())


@pytest.mark.parametrize("unigram", [False, True])
@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("single_spaces", [False, True])
@pytest.mark.parametrize("odd", [False, True])
def test_pieces_are_found_as_sentencepiece_finds_them(
    unigram: bool, byte_fallback: bool, prefix: bool, single_spaces: bool, odd: bool, tmp_path: Path
) -> None:
    generator = random.Random(f"{unigram} {byte_fallback} {prefix} {single_spaces} {odd}")
    made = [*SPECIAL, *(BYTES if byte_fallback else ()), *pieces(generator, odd=odd)]
    made += [run for run in RUNS if not unigram and run[0] not in {text for text, *_ in made}]
    switches = {"byte_fallback": byte_fallback, "prefix": prefix, "single_spaces": single_spaces}
    data = model_file(made, unigram=unigram, **switches)
    theirs = SentencePieceProcessor(model_proto=data)
    with EngineTokenizer(vocabulary_of(data, tmp_path, len(made)), tmp_path) as engine:
        for _ in range(120):
            text = "".join(generator.choices(f"{LETTERS}d中   ", k=generator.randint(0, 60)))
            assert engine.encode_mended(text) == theirs.Encode(text), text


def vocabulary_of(data: bytes, folder: Path, rows: int) -> Vocabulary:
    (folder / "tokenizer.model").write_bytes(data)
    return read_vocabulary(Folder(folder), {}, rows)


@pytest.mark.parametrize("unigram", [False, True])
def test_spaces_behind_words_are_refused_by_name(unigram: bool, tmp_path: Path) -> None:
    data = model_file([*SPECIAL, ("a", -1.0, TokenType.NORMAL)], unigram=unigram, suffix=True)
    with pytest.raises(Unsupported, match="in front of words"):
        vocabulary_of(data, tmp_path, 4)

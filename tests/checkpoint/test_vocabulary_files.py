"""Reading tokenizers from their files: formats, roles, templates, padding, and files that are damaged or hostile."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from engine_tokenizer import EngineTokenizer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from llamacli.checkpoint.bpe_json import merge_scores, read_merges
from llamacli.checkpoint.sentencepiece import parse
from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tekken import byte_alphabet
from llamacli.checkpoint.tokenizer import TokenType, Vocabulary, read_vocabulary
from llamacli.errors import CorruptFile, LlamacliError, Unsupported
from llamacli.formats.expressions import TEKKEN

DATA = Path(__file__).parent.parent / "data" / "tokenizers"
Files = dict[str, Any]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Vocabulary]:
    """A family's files, with changes: `read("llama3.1", {"tokenizer_config.json": {...}}, rows=500)`."""

    def run(
        family: str, changes: Files | None = None, rows: int | None = None, config: Files | None = None
    ) -> Vocabulary:
        folder = tmp_path / "checkpoint"
        folder.mkdir(exist_ok=True)
        for path in (DATA / family).iterdir() if family else ():
            if path.name != "expected.json":
                (folder / path.name).write_bytes(path.read_bytes())
        for name, value in (changes or {}).items():
            if value is None:
                (folder / name).unlink()
            else:
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                (folder / name).write_bytes(data)
        if config is None:
            config = json.loads((DATA / family / "config.json").read_text()) if family else {}
        return read_vocabulary(Folder(folder), config, rows or config.get("vocab_size", 600))

    return run


def document(family: str = "llama3.1") -> dict[str, Any]:
    value: dict[str, Any] = json.loads((DATA / family / "tokenizer.json").read_text(encoding="utf-8"))
    return value


# -- what is read


def test_metadata_holds_the_keys_with_their_types(read: Callable[..., Vocabulary]) -> None:
    metadata = read("llama3.1").metadata()
    kinds = {key.removeprefix("tokenizer.ggml."): value.type.name for key, value in metadata.items()}
    assert kinds == {
        "model": "STRING", "pre": "STRING", "tokens": "ARRAY", "token_type": "ARRAY", "merges": "ARRAY",
        "bos_token_id": "UINT32", "eos_token_id": "UINT32",
        "add_bos_token": "BOOL", "add_eos_token": "BOOL", "add_sep_token": "BOOL",
    }  # fmt: skip
    assert metadata["tokenizer.ggml.token_type"].element is not None
    assert metadata["tokenizer.ggml.token_type"].element.name == "INT32"


def test_rows_without_a_token_are_padded(read: Callable[..., Vocabulary]) -> None:
    vocabulary = read("qwen2", rows=512)
    assert vocabulary.tokens[-1] == "[PAD511]" and vocabulary.types[-1] == TokenType.UNUSED
    assert len(vocabulary.tokens) == len(vocabulary.types) == 512


def test_special_tokens_are_control_and_others_are_found_in_any_text(read: Callable[..., Vocabulary]) -> None:
    vocabulary = read("smollm3")
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert types["<|begin_of_text|>"] == TokenType.CONTROL
    assert types["<think>"] == TokenType.USER_DEFINED
    assert types["a"] == TokenType.NORMAL


def test_turn_marks_that_are_not_marked_special_are_control_all_the_same(read: Callable[..., Vocabulary]) -> None:
    vocabulary = read("deepseek_v3")
    assert dict(zip(vocabulary.tokens, vocabulary.types, strict=True))["<｜User｜>"] == TokenType.CONTROL


def test_byte_tokens_are_bytes(read: Callable[..., Vocabulary]) -> None:
    vocabulary = read("llama2")
    assert vocabulary.types.count(TokenType.BYTE) == 256
    assert vocabulary.tokens[vocabulary.types.index(TokenType.BYTE)] == "<0x00>"


def test_scores_are_minus_the_ranks_of_merges() -> None:
    assert merge_scores(["a", "b", "ab", "abb", None], ["a b", "ab b", "a bb"]) == [-3.0, -3.0, 0.0, -1.0, -3.0]


def test_merges_are_read_in_both_spellings() -> None:
    assert read_merges(["a b", "c d"]) == read_merges([["a", "b"], ["c", "d"]]) == ("a b", "c d")
    assert read_merges([["a", " b"], ["c", "d"]]) == ("c d",)
    assert read_merges(["a b", "c d", "a b"]) == ("c d", "a b")


def test_all_ends_of_a_turn_are_kept(read: Callable[..., Vocabulary]) -> None:
    vocabulary = read("glm4-0414")
    ends = {vocabulary.tokens[place] for place in vocabulary.end_of_turn}
    assert ends == {"<|endoftext|>", "<|user|>", "<|observation|>"}
    assert vocabulary.tokens[vocabulary.special["eot"]] == "<|observation|>"
    assert vocabulary.mends.prefix == (438, 440)


def test_more_ends_than_keys_are_kept_for_the_runtime(read: Callable[..., Vocabulary], tmp_path: Path) -> None:
    ends = [0, 1, 2, 3, 4, 5]  # [PAD], [BOS], [EOS], [UNK] and two words
    vocabulary = read("exaone4", {"generation_config.json": {"eos_token_id": ends}})
    assert set(vocabulary.end_of_turn) == {0, 1, 2, 3, vocabulary.special["eos"]}
    assert len(vocabulary.mends.end_of_turn) == 1 and any("will not stop" in line for line in vocabulary.warnings)
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        assert set(vocabulary.end_of_turn) <= set(engine.ends())


def test_words_that_look_like_an_end_are_ordinary_to_our_runtime(
    read: Callable[..., Vocabulary], tmp_path: Path
) -> None:
    changed = document("qwen2")
    changed["model"]["vocab"]["</s>"] = 500
    vocabulary = read("qwen2", {"tokenizer.json": changed})
    assert vocabulary.mends.ordinary == (500,)
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        assert 500 not in engine.ends()


def test_the_post_processor_decides_about_bos_and_the_contradiction_is_told(read: Callable[..., Vocabulary]) -> None:
    config = json.loads((DATA / "llama3.1" / "tokenizer_config.json").read_text())
    vocabulary = read("llama3.1", {"tokenizer_config.json": {**config, "add_bos_token": False}})
    assert vocabulary.add_bos is True
    assert any("add_bos_token" in line for line in vocabulary.warnings)


def test_an_embedding_model_ends_its_texts_with_the_template_s_token(read: Callable[..., Vocabulary]) -> None:
    changed = document()
    end = {"SpecialToken": {"id": "<|end_of_text|>", "type_id": 0}}
    changed["post_processor"] = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, end]}
    vocabulary = read("llama3.1", {"tokenizer.json": changed})
    assert (vocabulary.add_bos, vocabulary.add_eos) == (False, True)
    assert vocabulary.tokens[vocabulary.special["eos"]] == "<|end_of_text|>"
    assert any(vocabulary.tokens[place] == "<|eot_id|>" for place in vocabulary.end_of_turn)


def test_ids_of_another_tokenizer_in_config_json_are_left_out(read: Callable[..., Vocabulary]) -> None:
    config = {"vocab_size": 452, "eos_token_id": 5, "bos_token_id": 7}
    changes: Files = {"tokenizer_config.json": {}, "special_tokens_map.json": {}, "generation_config.json": {}}
    vocabulary = read("gpt2", changes, config=config)
    assert "eos" not in vocabulary.special and vocabulary.end_of_turn == ()
    assert len(vocabulary.warnings) == 2


def test_a_padding_token_without_a_row_is_left_out(read: Callable[..., Vocabulary]) -> None:
    decoder = {"569": {"content": "[PAD]", "special": True}}
    vocabulary = read("llama2", {"tokenizer_config.json": {"added_tokens_decoder": decoder}}, rows=569)
    assert len(vocabulary.tokens) == 569 and any("[PAD]" in line for line in vocabulary.warnings)


def test_beside_a_tokenizer_json_nobody_reads_added_tokens_json(read: Callable[..., Vocabulary]) -> None:
    assert "<x>" not in read("llama2", {"added_tokens.json": {"<x>": 569}}, rows=576).tokens


def test_special_tokens_that_are_nowhere_come_last_where_there_is_room(read: Callable[..., Vocabulary]) -> None:
    config = json.loads((DATA / "qwen2" / "tokenizer_config.json").read_text())
    changes: Files = {
        "tokenizer_config.json": {**config, "pad_token": "<|pad|>", "extra_special_tokens": ["<|one|>", "<|two|>"]},
        "special_tokens_map.json": {},
    }
    vocabulary = read("qwen2", changes, rows=460)
    assert vocabulary.tokens[458:] == ("<|pad|>", "<|one|>") and vocabulary.special["padding"] == 458
    assert vocabulary.types[458:] == (TokenType.CONTROL, TokenType.CONTROL)


def test_without_a_post_processor_nothing_stands_around_a_text(read: Callable[..., Vocabulary]) -> None:
    config = json.loads((DATA / "llama3.1" / "tokenizer_config.json").read_text())
    changes: Files = {
        "tokenizer.json": {**document(), "post_processor": None},
        "tokenizer_config.json": {**config, "add_bos_token": True, "add_eos_token": True},
    }
    vocabulary = read("llama3.1", changes)
    assert (vocabulary.add_bos, vocabulary.add_eos) == (False, False)


def test_bert_s_texts_stand_between_marks_whatever_the_file_says(
    read: Callable[..., Vocabulary], tmp_path: Path
) -> None:
    vocabulary = read("bert", {"tokenizer.json": {**document("bert"), "post_processor": None}})
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        ids = engine.encode_mended("the end", add_special=True)
    assert [vocabulary.tokens[place] for place in (ids[0], ids[-1])] == ["[CLS]", "[SEP]"]


def test_tokens_added_by_other_files_are_read(read: Callable[..., Vocabulary]) -> None:
    decoder = {"570": {"content": "<tool>", "special": True}, "571": {"content": "<note>", "special": False}}
    vocabulary = read("llama2", {"tokenizer_config.json": {"added_tokens_decoder": decoder}}, rows=576)
    assert vocabulary.tokens[570:572] == ("<tool>", "<note>")
    assert vocabulary.types[570:572] == (TokenType.CONTROL, TokenType.USER_DEFINED)
    assert vocabulary.tokens[569] == "[PAD569]"


# -- templates


def test_chat_template_jinja_comes_first(read: Callable[..., Vocabulary]) -> None:
    changes: Files = {
        "chat_template.jinja": b"{{ one }}",
        "chat_template.json": {"chat_template": "two"},
        "tokenizer_config.json": {"chat_template": "three"},
    }
    assert read("gpt2", changes).chat_template == "{{ one }}"


def test_named_templates_get_keys_of_their_own(read: Callable[..., Vocabulary]) -> None:
    named = [{"name": "default", "template": "A"}, {"name": "tool use", "template": "B"}]
    metadata = read("gpt2", {"tokenizer_config.json": {"chat_template": named}}).metadata()
    assert metadata["tokenizer.chat_template"].value == "A"
    assert metadata["tokenizer.chat_template.tool_use"].value == "B"
    assert metadata["tokenizer.chat_templates"].value == ("tool_use",)


def test_templates_in_a_folder_of_their_own_come_on_top(read: Callable[..., Vocabulary], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint" / "additional_chat_templates"
    folder.mkdir(parents=True)
    (folder / "tool-use.jinja").write_text("C")
    (folder / "notes.txt").write_text("no template")
    metadata = read("gpt2", {"chat_template.jinja": b"A"}).metadata()
    assert metadata["tokenizer.chat_template"].value == "A"
    assert metadata["tokenizer.chat_template.tool_use"].value == "C"
    assert metadata["tokenizer.chat_templates"].value == ("tool_use",)


@pytest.mark.parametrize("template", [[{"name": "default"}], [3], "x" * (2 << 20)])
def test_a_damaged_template_is_a_corrupt_file(read: Callable[..., Vocabulary], template: Any) -> None:
    with pytest.raises(CorruptFile):
        read("gpt2", {"tokenizer_config.json": {"chat_template": template}})


# -- other formats


def test_our_protobuf_reader_agrees_with_sentencepiece() -> None:
    path = DATA / "llama2" / "tokenizer.model"
    theirs = sentencepiece.SentencePieceProcessor()
    theirs.LoadFromFile(str(path))
    ours = parse(path.read_bytes())
    size = theirs.GetPieceSize()
    assert ours.texts == [theirs.IdToPiece(place) for place in range(size)]
    assert ours.scores == [theirs.GetScore(place) for place in range(size)]
    assert [kind == TokenType.BYTE for kind in ours.types] == [theirs.IsByte(place) for place in range(size)]
    assert dict(ours.special) == {"unk": theirs.unk_id(), "bos": theirs.bos_id(), "eos": theirs.eos_id()}


def test_every_cut_of_a_sentencepiece_model_is_one_clear_error(read: Callable[..., Vocabulary]) -> None:
    data = (DATA / "llama2" / "tokenizer.model").read_bytes()
    generator = random.Random(0)
    for _ in range(150):
        damaged = bytearray(data[: generator.randrange(1, len(data))])
        for _ in range(generator.randrange(3)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            parse(bytes(damaged))
        except LlamacliError as error:
            assert "\n" not in error.message


def test_a_tiktoken_file_is_named_for_what_it_is(read: Callable[..., Vocabulary]) -> None:
    with pytest.raises(Unsupported, match="not a SentencePiece model"):
        read("", {"tokenizer.model": b"IQ== 0\nIg== 1\n"})


@pytest.mark.parametrize("name", ["qwen.tiktoken", "tiktoken.model"])
def test_a_checkpoint_with_nothing_but_a_tiktoken_file_says_what_to_do(
    name: str, read: Callable[..., Vocabulary]
) -> None:
    with pytest.raises(Unsupported, match=f"only a tiktoken vocabulary .{name}") as error:
        read("", {name: b"IQ== 0\nIg== 1\n"})
    assert "transformers" in error.value.hint


def ranked_merge(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """The definition of a ranked vocabulary: join the two neighbours whose union has the lowest rank, until none has."""
    parts = [word[i : i + 1] for i in range(len(word))]
    while True:
        unions = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not unions:
            return [ranks[part] for part in parts]
        _, i = min(unions)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def test_tekken_merges_by_rank(read: Callable[..., Vocabulary], tmp_path: Path) -> None:
    sentence = "the quick brown fox jumps over the lazy dog then thinks of another thing while there"
    texts = sentence.split()
    pieces = sorted({t[a:b].encode() for t in texts for a in range(len(t)) for b in range(a + 2, len(t) + 1)})
    generator = random.Random(1)
    words = [bytes([byte]) for byte in range(256)] + sorted(generator.sample(pieces, len(pieces) // 2), key=len)
    entries = [{"rank": rank, "token_bytes": base64.b64encode(word).decode()} for rank, word in enumerate(words)]
    config = {"pattern": TEKKEN, "default_vocab_size": len(words) + 20, "default_num_special_tokens": 20}
    vocabulary = read("", {"tekken.json": {"config": config, "vocab": entries}}, rows=len(words) + 30)
    ranks = {word: rank for rank, word in enumerate(words)}
    assert vocabulary.tokens[1] == "<s>" and vocabulary.special == {"bos": 1, "eos": 2, "unknown": 0, "padding": 11}
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for _ in range(200):
            word = "".join(generator.choice(texts)[: generator.randint(1, 6)] for _ in range(3)).encode()
            ids = [ranks[word] + 20] if word in ranks else [rank + 20 for rank in ranked_merge(word, ranks)]
            assert engine.encode(word.decode()) == ids, word


def test_a_unigram_tokenizer_gives_the_same_ids(read: Callable[..., Vocabulary], tmp_path: Path) -> None:
    texts = (DATA / "texts.json").read_text(encoding="utf-8")
    corpus = [line for line in json.loads(texts) if line.isprintable()] * 5
    theirs = Tokenizer(models.Unigram())
    theirs.normalizer = normalizers.Sequence([normalizers.Replace(Regex(" {2,}"), " ")])
    theirs.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, show_progress=False, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
    )
    theirs.train_from_iterator(corpus, trainer)
    vocabulary = read("", {"tokenizer.json": json.loads(theirs.to_str())}, rows=400)
    assert vocabulary.model == "t5"
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for text in corpus[:60]:
            if text.strip() == text and text.replace(" ", "a").isalpha():  # signs in a row have equally good readings
                assert engine.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama2"])
def test_a_model_that_does_not_name_its_kind_is_known_by_its_parts(
    family: str, read: Callable[..., Vocabulary]
) -> None:
    value = document(family)
    named = read(family)
    del value["model"]["type"]
    assert read(family, {"tokenizer.json": value}) == named


def unigram(normalizer: Any = None) -> dict[str, Any]:
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"}
    pieces = [["<unk>", 0.0], ["\u2581a", -1.0], ["b", -2.0]]
    return {"normalizer": normalizer, "pre_tokenizer": space, "model": {"unk_id": 0, "vocab": pieces}}


def test_a_list_of_scored_pieces_is_a_unigram_model(read: Callable[..., Vocabulary]) -> None:
    vocabulary = read("", {"tokenizer.json": unigram({"type": "NFKC"})})
    assert (vocabulary.model, vocabulary.tokens[:3]) == ("t5", ("<unk>", "\u2581a", "b"))
    assert vocabulary.mends.steps == ("NFKC", '["visible", "always", "split"]')


def bert_with(part: str, kind: str) -> dict[str, Any]:
    return {**document("bert"), part: {"type": kind}}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (unigram({"type": "BertNormalizer"}), "BertNormalizer"), (bert_with("normalizer", "Replace"), "Replace"),
        (bert_with("pre_tokenizer", "Whitespace"), "Whitespace"), ({"model": {"type": "WordLevel"}}, "WordLevel"),
        ({"model": {}}, "None"),
    ],
)  # fmt: skip
def test_steps_that_the_engine_lacks_are_refused_by_name(
    value: dict[str, Any], name: str, read: Callable[..., Vocabulary]
) -> None:
    with pytest.raises(Unsupported, match=name):
        read("", {"tokenizer.json": value})


def test_wordpiece_from_vocab_txt_equals_tokenizer_json(read: Callable[..., Vocabulary]) -> None:
    from_json = read("bert")
    vocab = document("bert")["model"]["vocab"]
    lines = "\n".join(sorted(vocab, key=vocab.__getitem__)).encode() + b"\n"
    from_text = read("bert", {"tokenizer.json": None, "vocab.txt": lines})
    assert from_text.tokens == from_json.tokens and from_text.special == from_json.special
    assert from_text.mends == from_json.mends


def test_wordpiece_whose_files_name_no_roles_has_the_usual_ones(read: Callable[..., Vocabulary]) -> None:
    from_json = read("bert")
    bare = {**document("bert"), "added_tokens": []}
    silent: Files = {"tokenizer.json": bare, "tokenizer_config.json": None, "special_tokens_map.json": None}
    found = read("bert", {name: value for name, value in silent.items() if (DATA / "bert" / name).exists()})
    assert found.tokens == from_json.tokens and found.special == from_json.special
    assert found.warnings == ()


def test_bpe_from_vocab_json_and_merges_txt_equals_tokenizer_json(read: Callable[..., Vocabulary]) -> None:
    from_json = read("gpt2")
    model = document("gpt2")["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    changes: Files = {
        "tokenizer.json": None,
        "vocab.json": {**model["vocab"], "<|endoftext|>": 436},
        "merges.txt": ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(),
        "tokenizer_config.json": {"tokenizer_class": "GPT2TokenizerFast", "bos_token": "<|endoftext|>",
                                  "eos_token": "<|endoftext|>"},
    }  # fmt: skip
    from_text = read("gpt2", changes)
    assert (from_text.tokens, from_text.merges, from_text.pre) == (from_json.tokens, from_json.merges, "gpt-2")
    assert from_text.types == from_json.types


# -- damaged and hostile files


def change(path: str, value: Any, family: str = "llama3.1") -> dict[str, Any]:
    """tokenizer.json with the value at a dotted path replaced."""
    changed = document(family)
    *parents, last = path.split(".")
    place: Any = changed
    for key in parents:
        place = place[key]
    place[last] = value
    return changed


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("tokenizer.json", b"", CorruptFile),
        ("tokenizer.json", b"[]", CorruptFile),
        ("tokenizer.json", b"{" * 100_000, CorruptFile),
        ("tokenizer.json", b"\xff\xfe", CorruptFile),
        ("tokenizer.json", {}, CorruptFile),
        ("tokenizer.json", {"model": []}, CorruptFile),
        ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {}}}, Unsupported),
        ("tokenizer.json", change("model.vocab", {}), CorruptFile),
        ("tokenizer.json", change("model.vocab", {"a": -1}), CorruptFile),
        ("tokenizer.json", change("model.vocab", {"a": 1 << 60}), CorruptFile),
        ("tokenizer.json", change("model.vocab", {"a": 1.5}), CorruptFile),
        ("tokenizer.json", change("model.vocab", {"a": True}), CorruptFile),
        ("tokenizer.json", change("model.vocab", {"a": 0, "b": 0}), CorruptFile),
        ("tokenizer.json", change("model.vocab", {"a\0b": 0}), CorruptFile),
        ("tokenizer.json", change("model.vocab", {"\ud800": 0}), CorruptFile),
        ("tokenizer.json", change("model.merges", None), CorruptFile),
        ("tokenizer.json", change("model.merges", ["a b c"]), CorruptFile),
        ("tokenizer.json", change("model.merges", [["a"]]), CorruptFile),
        ("tokenizer.json", change("model.merges", [["a", 1]]), CorruptFile),
        ("tokenizer.json", change("model.end_of_word_suffix", "</w>"), Unsupported),
        ("tokenizer.json", change("added_tokens", {"a": 1}), CorruptFile),
        ("tokenizer.json", change("added_tokens", [{"id": "1", "content": "x"}]), CorruptFile),
        ("tokenizer.json", change("added_tokens", [{"id": 3, "content": "<x>", "special": True}]), CorruptFile),
        ("tokenizer.json", change("added_tokens", [{"id": 9999, "content": "<x>", "special": True}]), CorruptFile),
        ("tokenizer.json", change("normalizer", {"type": "Lowercase"}), Unsupported),
        ("tokenizer.json", change("pre_tokenizer", {"type": "ByteLevel", "use_regex": False}), Unsupported),
        ("tokenizer.json", change("pre_tokenizer", None), Unsupported),
        ("tokenizer.json", change("post_processor", [1]), CorruptFile),
        ("tokenizer.json", change("post_processor", {"type": "TemplateProcessing", "single": [1]}), CorruptFile),
        ("tokenizer.json", change("post_processor", {"type": "TemplateProcessing", "single": []}), Unsupported),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, CorruptFile),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, CorruptFile),
    ],
)
def test_a_damaged_file_is_one_clear_error(
    read: Callable[..., Vocabulary], name: str, content: Any, kind: type[LlamacliError]
) -> None:
    with pytest.raises(kind) as error:
        read("llama3.1", {name: content})
    assert "\n" not in error.value.message and error.value.message.isprintable()


def test_a_vocabulary_larger_than_the_embedding_names_both_numbers(read: Callable[..., Vocabulary]) -> None:
    with pytest.raises(CorruptFile, match=r"436 tokens .* 400 rows"):
        read("llama3.1", rows=400)


def test_a_checkpoint_without_tokenizer_says_what_it_needs(read: Callable[..., Vocabulary]) -> None:
    with pytest.raises(Unsupported, match="has no tokenizer") as error:
        read("", {"config.json": {}})
    assert "tokenizer.json" in error.value.hint


def test_token_texts_are_unique_whatever_the_files_say(read: Callable[..., Vocabulary], tmp_path: Path) -> None:
    changed = document()
    changed["model"]["vocab"]["[PAD451]"] = 450
    changed["added_tokens"] = [token for token in changed["added_tokens"] if token["id"] < 450]
    vocabulary = read("llama3.1", {"tokenizer.json": changed})
    assert len(set(vocabulary.tokens)) == len(vocabulary.tokens)
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        assert engine.encode("hello")


def test_the_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    assert set(byte_alphabet().values()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert byte_alphabet()[ord(" ")] == "Ġ"

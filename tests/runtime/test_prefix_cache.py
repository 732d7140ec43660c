"""Prefixes on disk: the same bits with and without them, and never an answer made from a damaged file."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import SHARED, Result

from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize
from llamacli.runtime import bindings
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Usage
from llamacli.runtime.prefix_cache import PrefixCache, common_tokens
from llamacli.runtime.prefix_files import all_entries, entries_in, make_room

SETTINGS = EngineSettings(threads=1, ubatch=32, ctx_size=1024)
GREEDY = Sampling(temp=0, predict=12)


@pytest.fixture(params=["F32", "Q8_0"])
def model(request: pytest.FixtureRequest, converted: Callable[..., Path]) -> Path:
    return converted("stories260K-hf", request.param)


def prompt(length: int, seed: int = 1) -> list[int]:
    numbers = random.Random(seed)
    return [1, *(numbers.randrange(300, 500) for _ in range(length - 1))]


def fresh(model: Path, root: Path | None, **more: object) -> LlamaEngine:
    engine = open_engine(model, SETTINGS)
    if root is not None:
        engine.prefixes = PrefixCache(root, engine.gguf, engine.settings, engine.threads, **more)  # type: ignore[arg-type]
    return engine


def answer(engine: LlamaEngine, tokens: list[int]) -> tuple[str, Usage, bytes]:
    """Text, counts, and the logits after the prompt as bytes."""
    pieces = engine.generate(tokens, GREEDY)
    text = [next(pieces).text]
    logits = array("f", bindings.load().llama_get_logits_ith(engine._compute.context, -1)[: engine.vocab.size])
    rest = list(pieces)
    text += [piece.text for piece in rest]
    usage = rest[-1].usage
    assert usage is not None
    return "".join(text), usage, logits.tobytes()


def kept(model: Path, root: Path, tokens: list[int]) -> tuple[str, Usage, bytes]:
    with fresh(model, root) as engine:
        out = answer(engine, tokens)
        engine.keep_prefix()
        return out


def test_the_second_process_reads_only_the_rest_and_computes_the_same_bits(model: Path, tmp_path: Path) -> None:
    tokens = prompt(400)
    with fresh(model, None) as engine:
        without = answer(engine, tokens)
    first, second = kept(model, tmp_path, tokens), kept(model, tmp_path, tokens)
    assert first[1].cached == 0
    assert second[1].cached == 399
    assert without[0] == first[0] == second[0]
    assert without[2] == first[2] == second[2]


@pytest.mark.parametrize(
    ("shared", "own", "cached"),
    [(256, 70, 256), (300, 70, 288), (384, 70, 384), (399, 2, 384), (399, 1, 399), (390, 10, 384), (399, 0, 384)],
)
def test_another_prompt_with_the_same_beginning_gets_the_bits_it_would_have_got(
    shared: int, own: int, cached: int, model: Path, tmp_path: Path
) -> None:
    tokens = prompt(400)
    other = [*tokens[:shared], *prompt(1 + own, seed=2)[1:]]
    with fresh(model, None) as engine:
        without = answer(engine, other)
    kept(model, tmp_path, tokens)
    with fresh(model, tmp_path) as engine:
        after = answer(engine, other)
    assert after[1].cached == cached
    assert (after[0], after[2]) == (without[0], without[2])


@pytest.mark.parametrize("length", [257, 289, 384, 386])
def test_the_same_prompt_is_taken_up_to_its_last_token_wherever_it_ends(
    length: int, model: Path, tmp_path: Path
) -> None:
    tokens = prompt(length)
    with fresh(model, None) as engine:
        without = answer(engine, tokens)
    first, second = kept(model, tmp_path, tokens), kept(model, tmp_path, tokens)
    assert (first[1].cached, second[1].cached) == (0, length - 1)
    assert (without[0], without[2]) == (first[0], first[2]) == (second[0], second[2])


def test_a_longer_prompt_adds_to_what_a_shorter_one_has_kept(model: Path, tmp_path: Path) -> None:
    shorter, longer = prompt(400), prompt(800)
    with fresh(model, None) as engine:
        without = answer(engine, longer)
    kept(model, tmp_path, shorter)
    found = [kept(model, tmp_path, longer) for _ in range(2)]
    assert [usage.cached for _, usage, _ in found] == [384, 799]
    assert [(text, logits) for text, _, logits in found] == [(without[0], without[2])] * 2
    assert kept(model, tmp_path, shorter)[1].cached == 399


def test_short_prompts_are_not_kept(model: Path, tmp_path: Path) -> None:
    kept(model, tmp_path, prompt(200))
    assert all_entries(tmp_path) == []


def test_nothing_is_shared_between_settings_files_and_builds(model: Path, tmp_path: Path) -> None:
    tokens = prompt(400)
    kept(model, tmp_path, tokens)
    for change in ({"cache_type_k": "f32"}, {"threads": 2}, {"flash_attn": "off"}, {"ubatch": 16}):
        with open_engine(model, replace(SETTINGS, **change)) as engine:  # type: ignore[arg-type]
            engine.prefixes = PrefixCache(tmp_path, engine.gguf, engine.settings, engine.threads)
            assert answer(engine, tokens)[1].cached == 0
    os.utime(model, (1, 1))
    assert kept(model, tmp_path, tokens)[1].cached == 0


@pytest.mark.parametrize(
    "damage", ["flipped", "flipped tokens", "flipped footer", "truncated", "longer", "empty", "text"]
)
def test_a_damaged_entry_is_only_a_miss(damage: str, model: Path, tmp_path: Path) -> None:
    tokens = prompt(400)
    expected = kept(model, tmp_path, tokens)
    (entry,) = all_entries(tmp_path)
    data = bytearray(entry.path.read_bytes())
    if damage.startswith("flipped"):
        data[{"flipped": len(data) // 2, "flipped tokens": 12 + 4 * 390 - 100, "flipped footer": -1}[damage]] ^= 1
    changed = {
        "truncated": data[: len(data) // 2],
        "longer": data + b"x",
        "empty": b"",
        "text": b"no state at all " * 20,
    }.get(damage, data)
    entry.path.write_bytes(changed)
    again = kept(model, tmp_path, tokens)
    assert again[1].cached == 0
    assert (again[0], again[2]) == (expected[0], expected[2])


def test_every_byte_of_an_entry_is_covered(model: Path, tmp_path: Path) -> None:
    tokens = prompt(400)
    kept(model, tmp_path, tokens)
    (entry,) = all_entries(tmp_path)
    data = entry.path.read_bytes()
    numbers = random.Random(5)
    with fresh(model, tmp_path) as engine:
        cache = engine.prefixes
        assert cache is not None
        cache.restore(engine._compute, tokens, 0)
        owner = cache._owner(engine._compute)
        assert entry.seal.fits(entry.path, owner)
        for place in [
            *range(12),
            *range(len(data) - 64, len(data)),
            *(numbers.randrange(len(data)) for _ in range(60)),
        ]:
            flipped = bytearray(data)
            flipped[place] ^= 1 << numbers.randrange(8)
            entry.path.write_bytes(flipped)
            assert not any(found.seal.fits(found.path, owner) for found in entries_in(entry.path.parent)), place


def test_entries_are_the_owners_alone(model: Path, tmp_path: Path) -> None:
    kept(model, tmp_path, prompt(400))
    (entry,) = all_entries(tmp_path)
    if os.name == "posix":
        assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(entry.path.parent.stat().st_mode) == 0o700


def test_the_longest_unused_entries_go_first_and_named_ones_stay(model: Path, tmp_path: Path) -> None:
    for seed in range(4):
        with fresh(model, tmp_path, name="mine" if seed == 0 else "") as engine:
            answer(engine, prompt(300, seed))
            engine.keep_prefix()
    found = all_entries(tmp_path)
    by_age = sorted(found, key=lambda entry: entry.tokens)
    for age, entry in enumerate(by_age):
        os.utime(entry.path, (1000 + age, 1000 + age))
    make_room(tmp_path, 2 * found[0].size)
    left = all_entries(tmp_path)
    assert len(left) == 2
    assert any(entry.label == "mine" for entry in left)
    newest = max((entry for entry in by_age if not entry.label), key=lambda entry: by_age.index(entry))
    assert newest.path in [entry.path for entry in left]


def test_an_entry_that_the_limit_has_no_room_for_is_not_written(model: Path, tmp_path: Path) -> None:
    with fresh(model, tmp_path, limit=1000) as engine:
        answer(engine, prompt(400))
        engine.keep_prefix()
    assert all_entries(tmp_path) == []


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(model: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert kept(model, blocked, prompt(400))[1].cached == 0


def test_a_resumed_conversation_goes_on_as_if_it_had_not_been_closed(model: Path, tmp_path: Path) -> None:
    tokens = prompt(400)
    with fresh(model, tmp_path) as engine:
        assert engine.prefixes is not None
        engine.prefixes.chat = "abc"
        told = [piece.token for piece in engine.generate(tokens, GREEDY) if piece.token is not None]
        following = [*tokens, *told, *prompt(20, 9)]
        engine.keep_chat()
        expected = answer(engine, following)
    with fresh(model, tmp_path) as engine:
        assert engine.prefixes is not None
        engine.prefixes.chat = "abc"
        resumed = answer(engine, following)
    assert resumed[1].cached == expected[1].cached >= len(tokens) + len(told) - 1
    assert (resumed[0], resumed[2]) == (expected[0], expected[2])
    with fresh(model, tmp_path) as engine:
        assert answer(engine, following)[1].cached == 384, "others use only whole steps"


@pytest.fixture
def document(tmp_path: Path) -> Iterator[Path]:
    words = ("once", "upon", "a", "time", "there", "was", "girl", "who", "saw", "big", "red", "ball", "park")
    numbers = random.Random(1)
    path = tmp_path / "document.txt"
    path.write_text(" ".join(numbers.choice(words) for _ in range(450)))
    yield path


def test_run_reads_a_document_once(
    invoke: Callable[..., Result], converted: Callable[..., Path], document: Path
) -> None:
    flags = ["--temp", "0", "-n", "12", "-c", "2048", "--allow-truncated", "--json", "-sysf", document]
    model = converted("tinystories-chat-2m", "Q8_0")
    off = invoke("run", model, "Who?", *flags, "--cache", "off").json
    first, second = (invoke("run", model, "Who?", *flags).json for _ in range(2))
    assert off["text"] == first["text"] == second["text"]
    assert (off["usage"]["cached"], first["usage"]["cached"]) == (0, 0)
    assert second["usage"]["cached"] >= 256
    listed = invoke("cache", "ls", "--json").json
    assert [entry["tokens"] for entry in listed] == [second["usage"]["cached"]]
    assert invoke("cache", "clear").code == 0
    assert invoke("cache", "ls", "--json").json == []


def test_eight_processes_at_once_give_the_same_answer(
    converted: Callable[..., Path], document: Path, tmp_path: Path
) -> None:
    model = converted("tinystories-chat-2m", "Q8_0")
    command = [sys.executable, "-m", "llamacli", "run", str(model), "Who?", "-sysf", str(document), "--temp", "0"]
    command += ["-n", "8", "-c", "2048", "-t", "1", "--allow-truncated", "--json"]
    environment = {**os.environ, "LLAMACLI_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment) for _ in range(8)
    ]
    outputs = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    assert [process.returncode for process in running] == [0] * 8
    assert len({output["text"] for output in outputs}) == 1
    assert len(all_entries(tmp_path / "home" / "cache" / "prompts")) == 1
    assert not [*(tmp_path / "home").rglob("*.part")]


def test_common_tokens_counts_whole_tokens() -> None:
    a = b"aaaabbbbcccc"
    assert common_tokens(a, a) == 3
    assert common_tokens(a, b"aaaabbbxcccc") == 1
    assert common_tokens(a, b"") == 0
    assert common_tokens(b"xaaa", a) == 0


@pytest.mark.parametrize("family", ["gemma3_text", "lfm2", "qwen3_5"])
def test_models_whose_states_cannot_be_cut_use_whole_entries_only(family: str, tmp_path: Path) -> None:
    """Layers with a sliding window save no more than the window, recurrent ones cannot go back."""
    source = SHARED / "families" / family
    if not source.is_dir():
        pytest.skip("the checkpoint is not here")
    model = tmp_path / "model.gguf"
    plan = make_plan(opened := open_model(source), recipe_named("F32"), PlanOptions())
    quantize(opened, [Output(plan, model)], kernel_named("ggml"), threads=1)

    def few(length: int, seed: int = 1) -> list[int]:
        return [token % 200 + 20 for token in prompt(length, seed)]  # these vocabularies are small

    tokens = few(400)
    following, other = [*tokens[:384], *few(50, 2)], [*tokens[:300], *few(50, 2)]
    expected = []
    for one in (tokens, following, other):
        with fresh(model, None) as engine:
            expected.append(answer(engine, one))
    kept(model, tmp_path / "kept", tokens)
    for one, cached, (text, _, logits) in zip((tokens, following, other), (384, 384, 0), expected, strict=True):
        with fresh(model, tmp_path / "kept") as engine:
            after = answer(engine, one)
        assert after[1].cached == cached
        assert (after[0], after[2]) == (text, logits)


def test_what_is_read_faster_than_the_disk_gives_it_is_not_kept(tmp_path: Path, converted: Callable[..., Path]) -> None:
    model = converted("stories260K-hf", "F32")
    with open_engine(model, SETTINGS) as engine:
        cache = PrefixCache(tmp_path, engine.gguf, SETTINGS, engine.threads)
        engine.logits_after(prompt(400))
        cache.keep(engine._compute, 1e-9)
        assert not all_entries(tmp_path)
        engine.logits_after(prompt(400))
        cache.keep(engine._compute, 1e-3)
        assert len(all_entries(tmp_path)) == 1

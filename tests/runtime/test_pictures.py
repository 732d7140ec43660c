"""Pictures through real projectors, tiny and random: the engine encodes them and the model reads them."""

from __future__ import annotations

import ctypes
import json
import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from families.synthetic import write_checkpoint
from projectors import png, write_projector
from support import ROOT, Result

from llamacli.errors import ContextOverflow, CorruptFile, EngineError, LlamacliError, NotFound, Unsupported, UsageError
from llamacli.quantize.kernels import kernel_named
from llamacli.quantize.model import open_model
from llamacli.quantize.plan import PlanOptions, make_plan
from llamacli.quantize.recipes import recipe_named
from llamacli.quantize.run import Output, quantize
from llamacli.runtime import bindings
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.picture_file import check_picture, picture_size
from llamacli.runtime.pictures import projector_beside
from llamacli.runtime.speculate import Costs, Drafts

KINDS = ("mlp", "gemma3")
GREEDY = Sampling(temp=0, predict=12, ignore_eos=True)
RED = png(40, 30, lambda x, y: (250, 10, 10))
WAVES = png(24, 48, lambda x, y: (x * 10 % 256, y * 5 % 256, 128))


@pytest.fixture(params=KINDS)
def projector(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_projector(tmp_path / f"mmproj-{request.param}.gguf", request.param, 64)


@pytest.fixture
def engine(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted("stories260K-hf", "F32"), EngineSettings(threads=1, gpu_layers=0)) as opened:
        yield opened


def logits_after(engine: LlamaEngine, text: str) -> array[float]:
    engine.forget()
    return array("f", engine.logits_after(engine.tokens((Span(text, False),))))


def test_what_a_picture_shows_changes_what_follows(engine: LlamaEngine, projector: Path) -> None:
    red, waves, same = (engine.add_picture(data, projector) for data in (RED, WAVES, RED))
    plain, *seen = (logits_after(engine, f"Once {mark} there was") for mark in ("", red, waves, same))
    assert plain != seen[0] != seen[1] != plain
    assert max(abs(a - b) for a, b in zip(seen[0], seen[2], strict=True)) < 1e-4
    assert max(abs(a - b) for a, b in zip(seen[0], seen[1], strict=True)) > 0.05


def test_an_answer_goes_on_after_pictures_and_a_turn_is_not_read_twice(engine: LlamaEngine, projector: Path) -> None:
    engine.drafts = Drafts(Costs(None), always=True)
    marks = [engine.add_picture(data, projector) for data in (RED, WAVES)]
    text = f"Look: {marks[0]} and {marks[1]} are"
    tokens = engine.tokens((Span(text, False),))
    assert sum(token < 0 for token in tokens) >= 8
    pieces = list(engine.generate(tokens, GREEDY))
    told = [piece.token for piece in pieces if piece.token is not None]
    assert len(told) == 12
    following = [*tokens, *told, *engine.tokens((Span(" And then", False),), add_special=False)]
    again = list(engine.generate(following, GREEDY))
    usage = again[-1].usage
    assert usage is not None and usage.cached == len(tokens) + 11
    engine.forget()
    fresh = list(engine.generate(following, GREEDY))
    assert [piece.token for piece in fresh] == [piece.token for piece in again]


def of_the_helper(engine: LlamaEngine, before: str, after: str) -> list[float]:
    """The logits after a text with the engine's only picture, by the library's own helper, at places of our choice."""
    pictures, compute, lib = engine.pictures, engine._compute, bindings.load()
    assert pictures is not None
    (chunks,) = pictures._lists
    place, mtmd = ctypes.c_int32(), pictures._lib
    compute.clear()
    assert compute.read(engine.vocab.tokens((Span(before, False),), add_special=True))
    assert not mtmd.mtmd_helper_eval_chunks(
        pictures._context, compute.context, chunks, len(compute.cells), 0, compute.step_size, False, ctypes.byref(place)
    )
    tokens = engine.vocab.tokens((Span(after, False),), add_special=False)
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    for index, token in enumerate(tokens):
        batch.token[index], batch.pos[index] = token, place.value + index
        batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        batch.logits[index] = index + 1 == len(tokens)
    batch.n_tokens = len(tokens)
    assert not lib.llama_decode(compute.context, batch)
    lib.llama_batch_free(batch)
    found = list(lib.llama_get_logits_ith(compute.context, -1)[: engine.vocab.size])
    compute.clear()
    return found


def test_a_picture_is_computed_as_the_engines_own_helper_does(engine: LlamaEngine, projector: Path) -> None:
    mark = engine.add_picture(WAVES, projector)
    ours = logits_after(engine, f"A {mark} dog")
    assert ours == pytest.approx(of_the_helper(engine, "A ", " dog"), abs=1e-3)


def test_pictures_that_take_more_cells_than_places(tmp_path: Path) -> None:
    """Qwen's vision models turn keys by time, height and width: a picture of 24 cells moves the text by six places."""
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen2_vl.json").read_text())
    write_checkpoint(tmp_path / "q", case["config"], {name: tuple(shape) for name, shape in case["tensors"].items()})
    plan = make_plan(model := open_model(tmp_path / "q"), recipe_named("F32"), PlanOptions())
    quantize(model, [Output(plan, tmp_path / "q.gguf")], kernel_named("ggml"), threads=1)
    projector = write_projector(tmp_path / "mmproj.gguf", "qwen2vl_merger", 64)
    numbers = random.Random(1)
    noise = png(96, 64, lambda x, y: (numbers.randrange(256),) * 3)
    with open_engine(tmp_path / "q.gguf", EngineSettings(threads=1, gpu_layers=0, ctx_size=256)) as engine:
        mark = engine.add_picture(noise, projector)
        assert engine.pictures is not None
        assert [(chunk.cells, chunk.positions) for chunk in engine.pictures.chunks.values()] == [(24, 6)]
        text = (Span(f"a {mark} b", False),)
        ours = logits_after(engine, f"a {mark} b")
        assert ours == pytest.approx(of_the_helper(engine, "a ", " b"), abs=1e-3)
        whole = list(engine.generate(engine.tokens(text), replace(GREEDY, predict=-1)))
        usage = whole[-1].usage
        assert usage is not None and whole[-1].finish == "length"
        assert usage.prompt + 18 + usage.completion == 256 + 1
        again = list(engine.generate(engine.tokens(text), GREEDY))
        assert [piece.token for piece in again[:12]] == [piece.token for piece in whole[:12]]


def test_nobody_else_can_write_a_mark(engine: LlamaEngine, projector: Path) -> None:
    mark = engine.add_picture(RED, projector)
    forged = mark[:-8] + "00000n0e"
    assert all(token >= 0 for token in engine.tokens((Span(f"see {forged}", False),)))
    for text in ("<__media__>", "<start_of_image>", mark[:20]):
        assert all(token >= 0 for token in engine.tokens((Span(text, False),)))


def test_pictures_that_do_not_fit_and_prompts_that_end_with_one_are_refused(
    engine: LlamaEngine, projector: Path
) -> None:
    marks = [engine.add_picture(RED, projector) for _ in range(40)]
    with pytest.raises(ContextOverflow, match="512"):
        list(engine.generate(engine.tokens((Span("".join(marks) + " what?" * 120, False),)), GREEDY))
    with pytest.raises(UsageError, match="end with a picture"):
        list(engine.generate([1, *(t for t in engine.tokens((Span(marks[0], False),)) if t < 0)], GREEDY))


def test_a_projector_of_another_model_or_none_at_all_is_refused(
    engine: LlamaEngine, tmp_path: Path, converted: Callable[..., Path]
) -> None:
    def fault(path: Path) -> type[LlamacliError]:
        with pytest.raises(LlamacliError) as caught:
            engine.add_picture(RED, path)
        assert engine.pictures is None
        return type(caught.value)

    other = write_projector(tmp_path / "mmproj-other.gguf", "mlp", 128)
    assert fault(other) is EngineError
    assert fault(converted("stories260K-hf", "F32")) is Unsupported
    assert fault(tmp_path / "none.gguf") is NotFound
    data = bytearray(write_projector(tmp_path / "mmproj-a.gguf", "mlp", 64).read_bytes())
    for key, value in ((b"attention.head_count", 0), (b"patch_size", 0), (b"attention.head_count", 5)):
        place = data.index(b"clip.vision." + key) + len(b"clip.vision." + key) + 4
        changed = data[:place] + value.to_bytes(4, "little") + data[place + 4 :]
        (tmp_path / "mmproj-b.gguf").write_bytes(changed)
        assert fault(tmp_path / "mmproj-b.gguf") is CorruptFile
    # The engine would compute with what is not there and end the process.
    for tensor in (b"v.blk.0.attn_k.weight", b"v.blk.1.ffn_down.weight", b"v.position_embd.weight", b"mm.0.weight",
                   b"v.patch_embd.weight", b"mm.2.bias", b"mm.2.weight", b"v.blk.0.attn_out.weight"):  # fmt: skip
        (tmp_path / "mmproj-b.gguf").write_bytes(data.replace(tensor, tensor[:-1] + b"x"))
        assert fault(tmp_path / "mmproj-b.gguf") is CorruptFile


def test_what_is_no_picture_or_far_too_large_is_refused() -> None:
    assert picture_size(RED) == (40, 30)
    assert picture_size(b"GIF89a" + (7).to_bytes(2, "little") + (9).to_bytes(2, "little")) == (7, 9)
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08\x00\x10\x00\x20\x03" + b"\0" * 12
    assert picture_size(jpeg) == (32, 16)
    huge = bytearray(RED)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    for data in (b"", b"RIFF0000WEBP", b"text", bytes(huge), RED[:20], b"\xff\xd8\xff\xff" * 3):
        with pytest.raises(UsageError):
            check_picture(data, "x")


def test_the_projector_beside_a_model_is_found(tmp_path: Path) -> None:
    model = tmp_path / "m-Q4_K_M.gguf"
    model.touch()
    assert projector_beside(model) is None
    (tmp_path / "mmproj-m-bf16.gguf").touch()
    assert projector_beside(model) == tmp_path / "mmproj-m-bf16.gguf"
    (tmp_path / "mmproj-m-f16.gguf").touch()
    assert projector_beside(model) == tmp_path / "mmproj-m-f16.gguf"
    (tmp_path / "mmproj-n-f16.gguf").touch()
    (tmp_path / "mmproj-m-bf16.gguf").unlink()
    with pytest.raises(UsageError, match="several"):
        projector_beside(model)


def test_run_shows_a_picture_to_the_model(
    invoke: Callable[..., Result], converted: Callable[..., Path], tmp_path: Path
) -> None:
    projector = write_projector(tmp_path / "mmproj.gguf", "mlp", 64)
    model = converted("stories260K-hf", "F32")
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "waves.png").write_bytes(WAVES)
    (tmp_path / "cut.png").write_bytes(RED[:60])
    flags = ("-m", model, "-t", "1", "--temp", "0", "-n", "12", "--allow-truncated", "--json")

    def say(*more: str) -> Result:
        return invoke("run", *flags, "-p", "Once upon a time", *more)

    plain, red = say().json, say("--image", "red.png", "--mmproj", str(projector)).json
    both = say("--image", "red.png", "--image", "waves.png", "--mmproj", str(projector)).json
    assert plain["usage"]["prompt"] < red["usage"]["prompt"] < both["usage"]["prompt"]
    assert "picture" not in red["text"] and red["usage"]["completion"] == 12
    assert say("--image", "red.png").code == 11
    assert say("--image", "none.png", "--mmproj", str(projector)).code == 3
    assert say("--image", "cut.png", "--mmproj", str(projector)).code == 2
    assert say("--mmproj", str(projector)).code == 2
    assert say("--image", "red.png", "-C").code in (2, 3)

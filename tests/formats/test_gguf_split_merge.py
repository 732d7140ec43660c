from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import Model, tiny_model

from llamacli.errors import CannotWrite, CorruptFile, UsageError
from llamacli.formats.gguf_merge import merge
from llamacli.formats.gguf_reader import read_gguf, read_part
from llamacli.formats.gguf_split import part_name, part_paths, split_name
from llamacli.formats.gguf_values import Value, ValueType, i32


def u16(number: int) -> Value:
    return Value(ValueType.UINT16, number)


def parts_of(model: Model, count: int, alignment: int = 32) -> list[Model]:
    """What llama-gguf-split makes: all metadata in the first part, the split keys in every part."""
    step = -(-len(model.tensors) // count)
    parts = []
    for number in range(count):
        metadata = dict(model.metadata) if number == 0 else {}
        metadata["split.no"] = u16(number)
        metadata["split.tensors.count"] = i32(len(model.tensors))
        metadata["split.count"] = u16(count)
        parts.append(Model(metadata, model.tensors[number * step : (number + 1) * step], alignment))
    return parts


def write_parts(folder: Path, parts: list[Model], prefix: str = "m") -> list[Path]:
    return [part.write(folder / part_name(prefix, n, len(parts))) for n, part in enumerate(parts, 1)]


@pytest.fixture
def split(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path, parts_of(with_data(tiny_model()), 3))


def with_data(model: Model) -> Model:
    """Every tensor's bytes fixed, so that they survive being dealt out to parts."""
    for seed, tensor in enumerate(model.tensors):
        model = model.with_tensor(tensor.name, data=tensor.bytes(seed))
    return model


def test_part_names_are_those_of_llama_gguf_split() -> None:
    assert part_name("a/b", 2, 3) == "a/b-00002-of-00003.gguf"
    assert split_name("b-00002-of-00003.gguf") == ("b", 2, 3)
    assert split_name("b.gguf") is None and split_name("b-2-of-3.gguf") is None
    assert [p.name for p in part_paths(Path("x/b-00001-of-00002.gguf"))] == [
        "b-00001-of-00002.gguf",
        "b-00002-of-00002.gguf",
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_part_opens_the_whole(split: list[Path], which: int, tmp_path: Path) -> None:
    whole = read_gguf(with_data(tiny_model()).write(tmp_path / "whole.gguf"))
    ours = read_gguf(split[which])
    assert ours.paths == tuple(split) and ours.architecture == "llama"
    assert [(t.name, t.shape, t.type) for t in ours.tensors] == [(t.name, t.shape, t.type) for t in whole.tensors]
    assert [t.part for t in ours.tensors] == [0] * 7 + [1] * 7 + [2] * 6
    assert ours.size_bytes == sum(path.stat().st_size for path in split)
    for one, two in zip(ours.tensors, whole.tensors, strict=True):
        raw = ours.paths[one.part].read_bytes()[ours.tensor_start(one) :][: one.size_bytes]
        assert raw == whole.path.read_bytes()[whole.tensor_start(two) :][: two.size_bytes]


def test_a_first_part_without_tensors_is_read(tmp_path: Path) -> None:
    first, *others = parts_of(tiny_model(), 2)
    first = Model(first.metadata, [])
    parts = [first, Model(others[0].metadata, tiny_model().tensors)]
    assert len(read_gguf(write_parts(tmp_path, parts)[0]).tensors) == 20


def test_a_part_of_a_name_alone_is_a_whole_file(tmp_path: Path) -> None:
    path = tiny_model().write(tmp_path / "m-00001-of-00003.gguf")
    assert read_gguf(path).paths == (path,)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda parts: parts[1].unlink(), "part 2 of the model is missing"),
        (lambda parts: parts[2].write_bytes(parts[2].read_bytes()[:-100]), "within the tensor"),
        (lambda parts: shutil.copy(parts[1], parts[2]), "split.no says 1 where 2"),
        (lambda parts: parts_of(tiny_model(), 4)[2].write(parts[2]), "split.count says 4 where 3"),
        (lambda parts: parts_of(tiny_model(), 3)[2].with_key("split.no", Value(ValueType.UINT32, 2)).write(parts[2]),
         "split.no says 2"),
        (lambda parts: parts_of(tiny_model(), 3)[0].with_key("split.tensors.count", i32(21)).write(parts[0]),
         "split.tensors.count says 21, and the parts hold 20"),
        (lambda parts: Model(parts_of(tiny_model(), 3)[2].metadata, tiny_model().tensors).write(parts[2]),
         "is both in"),
        (lambda parts: parts_of(tiny_model(), 3)[0].with_key("split.count", Value(ValueType.UINT32, 3)).write(parts[0]),
         "not an unsigned 16-bit"),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_refused(
    split: list[Path], break_it: Callable[[list[Path]], Any], words: str
) -> None:
    break_it(split)
    with pytest.raises(CorruptFile, match=words):
        read_gguf(split[0])


def test_a_renamed_part_says_what_it_should_be_called(split: list[Path]) -> None:
    renamed = split[1].rename(split[1].with_name("part2.gguf"))
    with pytest.raises(CorruptFile) as caught:
        read_gguf(renamed)
    assert "NAME-00002-of-00003.gguf" in caught.value.hint


@pytest.mark.parametrize("alignment", [32, 64])
def test_merging_gives_the_bytes_of_the_whole(tmp_path: Path, alignment: int) -> None:
    model = with_data(tiny_model()).with_key("general.alignment", Value(ValueType.UINT32, alignment))
    parts = write_parts(tmp_path, parts_of(Model(model.metadata, model.tensors, alignment), 3, alignment))
    for part in parts[1:]:  # the other parts have no key of their own and are laid out with 32
        number = parts.index(part)
        parts_of(model, 3)[number].write(part)
    merged = merge(parts[1], tmp_path / "out.gguf")
    expected = Model(
        {**model.metadata, "split.no": u16(0), "split.tensors.count": i32(20), "split.count": u16(0)},
        model.tensors,
        alignment,
    )
    assert (tmp_path / "out.gguf").read_bytes() == expected.encode()
    assert merged.paths == (tmp_path / "out.gguf",) and read_gguf(tmp_path / "out.gguf").paths == merged.paths


def test_merging_without_the_kernels_help_gives_the_same(
    split: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(split[0], tmp_path / "one.gguf")
    monkeypatch.delattr("os.copy_file_range", raising=False)
    merge(split[0], tmp_path / "two.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_merge_refuses_what_would_cost_data(split: list[Path], tmp_path: Path) -> None:
    before = [path.read_bytes() for path in split]
    with pytest.raises(CannotWrite, match="is the input"):
        merge(split[0], split[1], force=True)
    (tmp_path / "there.gguf").write_text("x")
    with pytest.raises(CannotWrite, match="exists"):
        merge(split[0], tmp_path / "there.gguf")
    with pytest.raises(UsageError, match="not split"):
        merge(tiny_model().write(tmp_path / "single.gguf"), tmp_path / "out.gguf")
    assert [path.read_bytes() for path in split] == before


def test_merge_command_names_its_product_and_keeps_the_parts(invoke: Any, split: list[Path]) -> None:
    done = invoke("merge", split[0])
    target = split[0].with_name("m.gguf")
    assert done.code == 0 and done.out == f"{target}\n" and read_part(target).architecture == "llama"
    assert all(path.exists() for path in split)
    again = invoke("merge", split[0])
    assert again.code == 12 and "exists" in again.err and again.out == ""
    assert invoke("merge", split[0], "--force", "--json").json["tensors"] == 20


def test_merge_command_tells_a_missing_part_in_one_line(invoke: Any, split: list[Path]) -> None:
    split[2].unlink()
    done = invoke("merge", split[0])
    assert done.code == 9 and done.err.startswith("error: part 3 of the model is missing")
    assert not split[0].with_name("m.gguf").exists() and done.err.count("\n") == 2

"""`--image`: pictures for a model that has a projector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.cli.context import Context
from llamacli.errors import NotFound, Unsupported

if TYPE_CHECKING:
    from llamacli.cli.question_source import QuestionSource
    from llamacli.runtime.llama import LlamaEngine


def marks_of(here: Context, engine: LlamaEngine, source: QuestionSource) -> str:
    """What stands for the pictures in a prompt. Raises NotFound, Unsupported, and what `add_picture` does."""
    if not source.images:
        return ""
    from llamacli.runtime.picture_file import LARGEST_FILE

    projector = _projector(here, engine, source.projector)
    marks = []
    for name in source.images:
        try:
            with (here.cwd / Path(name).expanduser()).open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise NotFound(f"cannot read {name}: {error.strerror}") from error
        marks.append(engine.add_picture(data, projector, name))
    return "".join(marks)


def _projector(here: Context, engine: LlamaEngine, named: str) -> Path:
    if named:
        return here.cwd / Path(named).expanduser()
    from llamacli.runtime.pictures import projector_beside

    found = projector_beside(engine.path)
    if found is None:
        raise Unsupported(
            f"{engine.path.name} has no projector beside it, so it reads no pictures",
            "--mmproj FILE names one; llamacli download MODEL --mmproj auto fetches it with a model that has one",
        )
    return found

"""Pictures for a model that has a projector: from files to the marks that stand for them in prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.cli.context import Context, located
from llamacli.errors import EngineError, LlamacliError, NotFound, Unsupported
from llamacli.library.chats import Node, PictureFile
from llamacli.runtime.messages import Message

if TYPE_CHECKING:
    from llamacli.runtime.llama import LlamaEngine


class Gallery:
    """The pictures that one loaded model was shown, known by their SHA-256.

    A saved conversation names its pictures and does not hold them. One that is gone, has changed, or cannot be seen by
    this model is its name in the text instead, and the user is told once.
    """

    def __init__(self, here: Context, engine: LlamaEngine, projector: str = "") -> None:
        self._here, self._engine, self._named = here, engine, projector
        self._marks: dict[str, str] = {}

    def take(self, name: str) -> PictureFile:
        """A picture from a file that the user names. Raises NotFound, Unsupported, and what `add_picture` does."""
        path = located(self._here.cwd, name)
        return self.add(_read(path, name), path, name)

    def add(self, data: bytes, path: Path, name: str) -> PictureFile:
        """A picture that was read already. Raises Unsupported, and what `add_picture` does."""
        picture = PictureFile(str(path.absolute()), hashlib.sha256(data).hexdigest())
        if picture.sha256 not in self._marks:
            self._marks[picture.sha256] = self._engine.add_picture(data, self._projector(), name)
        return picture

    def mark(self, picture: PictureFile) -> str:
        """What stands for a picture in a prompt."""
        if picture.sha256 not in self._marks:
            self._marks[picture.sha256] = self._found_again(picture)
        return self._marks[picture.sha256]

    def message(self, node: Node) -> Message:
        """A saved message as the runtime's value, its pictures before its text."""
        role = node.role if node.role in ("system", "user", "assistant", "tool") else "user"
        text = "".join(map(self.mark, node.pictures)) + node.text
        return Message(role, text, reasoning=str(node.message.get("reasoning_content") or ""))  # type: ignore[arg-type]

    def messages(self, nodes: Iterable[Node]) -> list[Message]:
        """Saved messages as the runtime's values."""
        return [self.message(node) for node in nodes]

    def _found_again(self, picture: PictureFile) -> str:
        try:
            data = _read(Path(picture.path), picture.path)
            if hashlib.sha256(data).hexdigest() != picture.sha256:
                raise NotFound(f"{picture.path} is another picture than it was")
            return self._engine.add_picture(data, self._projector(), picture.path)
        except LlamacliError as error:
            hint = f"  ({error.hint})" if isinstance(error, (Unsupported, EngineError)) and error.hint else ""
            self._here.console.warn(f"the model does not see {picture.name}: {error.message}{hint}")
            return f"[picture {picture.name}]\n"

    def _projector(self) -> Path:
        if self._named:
            return located(self._here.cwd, self._named)
        from llamacli.runtime.pictures import projector_beside

        found = projector_beside(self._engine.path)
        if found is None:
            raise Unsupported(
                f"{self._engine.path.name} has no projector beside it, so it reads no pictures",
                "--mmproj FILE names one; llamacli download MODEL fetches it with a model that has one",
            )
        return found


def _read(path: Path, name: str) -> bytes:
    """A picture's file, no further than `add_picture` would take it. Raises NotFound."""
    from llamacli.runtime.picture_file import LARGEST_FILE

    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise NotFound(f"cannot read {name}: {error.strerror}") from error

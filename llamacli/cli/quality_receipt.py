"""The receipt of a quantized file: what it was made of and with, and how good a short measurement found it.

Room for it is planned before a weight is read, with zeros for figures; they are filled in when the finished file has
been measured against its source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacli import __version__
from llamacli.cli.context import Context, located
from llamacli.cli.quantize_options import QualityOptions
from llamacli.cli.reference import Reference
from llamacli.errors import CorruptFile, NotFound, PredicateFalse
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.formats.gguf_values import Value, ValueType, array, f32, string, u32

if TYPE_CHECKING:
    from llamacli.evaluate.figures import Quality
    from llamacli.quantize.model import Model
    from llamacli.quantize.plan import PlanOptions
    from llamacli.quantize.run import Output

WINDOW = 512
WINDOWS = {"quick": 4, "full": 0}
"""How many windows of the built-in text are read; 0: all of it."""

DIGEST_KEY = "llamacli.weights.sha256"
_NO_DIGEST = "0" * 64


class Receipts:
    """The receipts of one run's outputs; with `--check none` there are none."""

    def __init__(
        self, here: Context, model: Model, reference: Reference, quality: QualityOptions, kernel: str, threads: int
    ) -> None:
        self._here, self._model, self._reference = here, model, reference
        self._check, self._kernel, self._threads = quality.check, kernel, threads
        self._digests: tuple[str, ...] | None = None

    def reserved(self, options: PlanOptions, recipe: str) -> PlanOptions:
        """`options` with room for the receipt of a file made by this recipe."""
        if self._check == "none":
            return options
        facts = {
            "llamacli.version": string(__version__),
            "llamacli.engine": string(engine_name()),
            "llamacli.recipe": string(recipe),
            "llamacli.kernel": string(self._kernel),
            "llamacli.source": string(self._source_name()),
            "llamacli.source.sha256": array(ValueType.STRING, self._source_digests()),
            DIGEST_KEY: string(_NO_DIGEST),
            **_figures(None),
        }
        return replace(options, override_kv=(*options.override_kv, *facts.items()))

    def sign(self, outputs: Sequence[Output]) -> list[dict[str, Any] | None]:
        """Measure every output against the source and fill its receipt in; what was measured, as plain values."""
        if self._check == "none":
            return [None] * len(outputs)
        return [self._signed(output.paths[0]) for output in outputs]

    def _signed(self, path: Path) -> dict[str, Any]:
        from llamacli.formats.gguf_patch import patch_metadata

        quality = measured_against(
            self._here, self._reference, path, windows=WINDOWS[self._check], threads=self._threads, title="checking"
        )
        gguf = read_gguf(path)
        patch_metadata(path, {**_figures(quality), DIGEST_KEY: string(digest_of(self._here, gguf, "signing"))})
        far = quality.divergence
        assert far is not None  # it was measured against a source
        self._here.console.status(
            f"check     KL divergence {far.mean.value:.4f} ± {far.mean.error:.4f} (99 %: {far.percent_99:.3f}) · same "
            f"top token {100 * far.same_top.value:.1f} % · perplexity ×{far.perplexity_ratio.value:.4f} · "
            f"{quality.tokens:,} tokens"
        )
        return quality.to_json()

    def _source_name(self) -> str:
        """A repository and its revision, or the last part of a path: where it lies here is nobody's business."""
        model = self._model
        return model.label if model.stream is not None else Path(model.label).name

    def _source_digests(self) -> tuple[str, ...]:
        """`NAME SHA-256` of every file with weights that was read; nothing of what came over the network."""
        if self._digests is None:
            files = [path for path in self._model.inputs if path.suffix in (".safetensors", ".gguf")]
            total = sum(path.stat().st_size for path in files)
            with self._here.console.progress("hashing", total), ThreadPoolExecutor(self._threads) as pool:
                found = pool.map(_file_digest, files)
                self._digests = tuple(f"{path.name} {digest}" for path, digest in zip(files, found, strict=True))
        return self._digests


def measured_against(
    here: Context, reference: Reference, path: Path, *, windows: int, threads: int, title: str
) -> Quality:
    """The quality of the file at `path` beside its reference, on so many windows of the built-in text (0: all)."""
    from llamacli.evaluate.measure import measure
    from llamacli.evaluate.texts import builtin_text
    from llamacli.evaluate.windows import cut_text
    from llamacli.runtime.engine import EngineSettings
    from llamacli.runtime.llama import open_engine

    settings = EngineSettings(ctx_size=WINDOW, threads=threads)
    with open_engine(reference.path, settings) as source, open_engine(path, settings) as engine:
        text = cut_text(source, builtin_text("heldout"), WINDOW, windows)
        with here.console.progress(title, len(text), unit="windows") as progress:
            return measure({"result": engine}, text, source, progress=progress)["result"]


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 24):
            digest.update(data)
    return digest.hexdigest()


def check_receipt(here: Context, gguf: GGUF) -> list[str]:
    """What of a file's receipt was recomputed and is true; nothing where there is no receipt.

    Raises CorruptFile where the weights are not those that were measured.
    """
    digest = gguf.get(DIGEST_KEY)
    if digest in (None, _NO_DIGEST):
        return []
    if digest_of(here, gguf, "hashing") != digest:
        raise CorruptFile(
            f"the weights of {gguf.path.name} are not those that its receipt was made for",
            "the file was changed or damaged; quantize it again",
        )
    return ["weights as in the receipt"]


def check_source(here: Context, gguf: GGUF, source: str) -> list[str]:
    """Whether the files of `source` are those that the receipt names. Raises PredicateFalse, CorruptFile."""
    stated = gguf.get("llamacli.source.sha256")
    if not isinstance(stated, (tuple, list)) or not stated:
        raise PredicateFalse(f"{gguf.path.name} has no receipt of its source", "quantize with --check writes one")
    folder = located(here.cwd, source)
    for line in stated:
        name, _, digest = str(line).rpartition(" ")
        path = folder / Path(name).name if folder.is_dir() else folder
        if not path.is_file():
            raise NotFound(f"no such file: {path}", "the receipt names it as the source")
        if _file_digest(path) != digest:
            raise CorruptFile(f"{path} is not what {gguf.path.name} was made from", "it was changed, or is another")
    return ["source as in the receipt"]


def _figures(quality: Quality | None) -> Mapping[str, Value]:
    """The measured part of the receipt, of the same size whether measured or not."""
    far = quality.divergence if quality else None
    figures = {
        "perplexity": quality.perplexity.value if quality else 0.0,
        "perplexity_ratio": far.perplexity_ratio.value if far else 0.0,
        "perplexity_ratio_error": far.perplexity_ratio.error if far else 0.0,
        "kl_divergence": far.mean.value if far else 0.0,
        "kl_divergence_error": far.mean.error if far else 0.0,
        "kl_divergence_99": far.percent_99 if far else 0.0,
        "same_top": far.same_top.value if far else 0.0,
    }
    return {
        "llamacli.check.text": string("builtin"),
        "llamacli.check.window": u32(WINDOW),
        "llamacli.check.tokens": u32(quality.tokens if quality else 0),
        **{f"llamacli.check.{name}": f32(value) for name, value in figures.items()},
    }


def engine_name() -> str:
    """The engine's release, as the installed package says it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"llama-cpp-python {version('llama-cpp-python')}"
    except PackageNotFoundError:
        return "unknown"


def digest_of(here: Context, gguf: GGUF, title: str) -> str:
    """`weights_digest` with progress."""
    from llamacli.formats.gguf_patch import weights_digest

    with here.console.progress(title, gguf.size_bytes) as progress:
        return weights_digest(gguf, progress)

"""`quantize` with a promise instead of a recipe: a size or a divergence to stay below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from llamacli.cli.context import Context
from llamacli.cli.quality_receipt import WINDOWS, Receipts, measured_against
from llamacli.cli.quantize_options import QualityOptions
from llamacli.cli.reference import Reference
from llamacli.cli.sizes import human_size
from llamacli.cli.texts import BUILTIN, read_text
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.evaluate.sensitivity import Change
    from llamacli.formats.tensor_types import TensorType
    from llamacli.quantize.damage import Errors
    from llamacli.quantize.importance import Importance
    from llamacli.quantize.kernels import Kernel
    from llamacli.quantize.model import Model
    from llamacli.quantize.plan import Plan, PlanOptions
    from llamacli.quantize.target import Targeted
    from llamacli.quantize.thorough import Thorough
    from llamacli.runtime.llama import LlamaEngine

WINDOW = 512
USUAL_BITS = 4.5
"""Where no size is given, the model is tried with types of about so many bits."""


MOST_TRIALS = 5
ENOUGH = 0.9
"""A file with this share of the divergence that is allowed is small enough."""
CAUTION = 0.97


@dataclass(frozen=True)
class Targeting:
    """What a targeted plan is made from; `trials`: whether files may be made on the way."""

    here: Context
    model: Model
    reference: Reference
    options: PlanOptions
    quality: QualityOptions
    kernel: Kernel
    threads: int
    receipts: Receipts
    trials: bool

    def plan(self) -> Targeted:
        """Measure, decide, and say what was decided. Raises UsageError where the promise cannot be kept."""
        from llamacli.quantize.target import candidates_for, check_size, open_tensors, plan_for_damage, plan_for_size

        name, size = self._promise()
        bits = 8 * size / self.model.weights if size else USUAL_BITS
        candidates = candidates_for(self.model, open_tensors(self.model, self.options), bits, self.options)
        options = self.receipts.reserved(self.options, name)
        if size:
            check_size(self.model, options, size, candidates, name=name)
        errors = self._errors(candidates)
        sensitivity = self._sensitivity(errors, bits)
        if size:
            found = plan_for_size(self.model, options, size, errors, sensitivity, name=name)
        else:
            found = self._kept(lambda aim: plan_for_damage(self.model, options, aim, errors, sensitivity, name=name))
        self.here.console.status(f"mixture   {mixture(found.plan)} · expected KL divergence {found.damage:.4f}")
        if size:
            used = found.plan.size_bytes
            self.here.console.status(
                f"promise   at most {size:,} bytes; these are {used:,} ({100 * used / size:.2f} %)"
            )
        return found

    def _kept(self, plan_for: Callable[[float], Targeted]) -> Targeted:
        """The smallest plan that keeps the promised divergence when it is carried out and measured.

        What is expected leaves out that engines round activations too: files are made and measured, and the aim is
        corrected, until one keeps the promise and is not much better than it has to be.
        """
        most = aim = self.quality.max_kld
        if not self.trials:
            return plan_for(aim)
        kept: Targeted | None = None
        for _ in range(MOST_TRIALS):
            try:
                found = plan_for(aim)
            except UsageError:
                if kept is None:
                    raise
                break
            actual = self._actual(found.plan)
            self.here.console.status(f"trial     {human_size(found.plan.size_bytes)} · KL divergence {actual:.4f}")
            if actual <= most:
                kept = found
                if actual > ENOUGH * most:
                    break
            aim *= CAUTION * most / actual
        if kept is None:
            raise UsageError(f"no file of these types diverges by at most {most:g} nats", "ask for less, or for a size")
        return kept

    def _actual(self, plan: Plan) -> float:
        """What a file of this plan really does, in a temporary one."""
        from llamacli.quantize.run import Output, quantize

        path = self.reference.temporary("trial.gguf")
        output = Output(plan, path)
        quantize(self.model, [output], self.kernel, threads=self.threads, force=True)
        found = measured_against(
            self.here,
            self.reference,
            output.paths[0],
            windows=WINDOWS["quick"],
            threads=self.threads,
            title="measuring",
        )
        for part in output.paths:
            part.unlink()
        assert found.divergence is not None  # it was measured against its source
        return found.divergence.mean.value

    def _promise(self) -> tuple[str, int]:
        """How the result is called, and the bytes that it may take (0: as few as possible)."""
        from llamacli.quantize.plan import parse_size

        quality = self.quality
        if quality.target_size:
            return f"LQ{quality.target_size.upper().replace(' ', '')}", parse_size(quality.target_size)
        if quality.target_bpw:
            return f"LQ{quality.target_bpw:g}bpw", int(quality.target_bpw * self.model.weights / 8)
        return f"LQkld{quality.max_kld:g}", 0

    def _errors(self, candidates: Mapping[str, Sequence[TensorType]]) -> Errors:
        from llamacli.quantize.damage import measure_errors, sampled_weights

        self._prepare(candidates)
        total = sampled_weights(self.model.tensors, list(candidates))
        with self.here.console.progress("measuring errors", total, unit="weights") as progress:
            return measure_errors(
                self.model.tensors,
                candidates,
                self.kernel,
                self._importance(),
                thorough=self._thorough(),
                threads=self.threads,
                progress=progress,
            )

    def _prepare(self, candidates: Mapping[str, Sequence[TensorType]]) -> None:
        kinds = list(dict.fromkeys(kind for found in candidates.values() for kind in found))
        if self.kernel.needs_compile(kinds):
            self.here.console.status("compiling the kernels for this processor, once")
        self.kernel.prepare(kinds)
        if self.options.covariance is not None:
            from llamacli.quantize import thorough

            thorough.prepare()

    def _thorough(self) -> Thorough | None:
        if self.options.covariance is None:
            return None
        from llamacli.quantize.thorough import Thorough

        return Thorough(self.options.covariance)

    def _importance(self) -> Importance | None:
        from llamacli.quantize.roles import Shape

        if self.options.importance is None:
            return None
        shapes = [Shape(name, tuple(reversed(rows.shape))) for name, rows in self.model.tensors.items()]
        return self.options.importance.fit(shapes)

    # -- which tensors matter ----------------------------------------------------------------------------------

    def _sensitivity(self, errors: Errors, bits: float) -> dict[str, float]:
        """How much noise in each tensor matters: found by trying, or by the tensors' roles."""
        from llamacli.quantize.target import estimated_sensitivity
        from llamacli.runtime.memory import memory

        estimated = estimated_sensitivity(self.model, list(errors))
        if not self.quality.probe:
            return estimated
        files = [path.stat().st_size for path in self.model.inputs if path.suffix == ".gguf"]
        needed = sum(files) or 2 * self.model.weights
        if needed > 0.8 * memory().available:
            self.here.console.warn(
                f"trying out which tensors matter needs {human_size(needed)} of memory, more than is free; "
                "their roles decide instead"
            )
            return estimated
        return {**estimated, **self._tried(errors, bits)}

    def _tried(self, errors: Errors, bits: float) -> dict[str, float]:
        from llamacli.evaluate.sensitivity import MOST_WINDOWS, Sensitivity, grouped, probes_worth, windows_worth
        from llamacli.evaluate.windows import cut_text
        from llamacli.quantize.target import probe_type
        from llamacli.runtime.engine import EngineSettings
        from llamacli.runtime.llama import open_engine

        groups = grouped(list(errors), probes_worth(self.model.weights))
        windows = windows_worth(self.model.weights, len(groups), MOST_WINDOWS)
        settings = EngineSettings(ctx_size=WINDOW, threads=self.threads, mmap=False)
        found: dict[str, float] = {}
        with (
            open_engine(self.reference.path, settings) as engine,
            Sensitivity(engine, cut_text(engine, self._text(), WINDOW, windows)) as trial,
            self.here.console.progress("trying tensors", len(groups), unit="groups") as progress,
        ):
            for group in groups:
                names = [name for name in group if trial.reaches(name)]
                kinds = {name: probe_type(list(errors[name]), bits) for name in names}
                noise = sum(errors[name][kinds[name]] for name in names)
                progress.describe(group[0])
                if noise:
                    divergence = trial.divergence(self._changes(engine, kinds))
                    found.update(dict.fromkeys(names, divergence / noise))
                progress.advance(1)
        return found

    def _text(self) -> str:
        """What the model is tried on: the text of the calibration."""
        return read_text(self.here, self.quality.calibrate or BUILTIN, "calibration")

    def _changes(self, engine: LlamaEngine, kinds: Mapping[str, TensorType]) -> Iterator[Change]:
        """These tensors as they come back from these types."""
        from llamacli.evaluate.sensitivity import Change
        from llamacli.quantize.damage import restored_tensor

        stored = {tensor.name: tensor.type for tensor in engine.gguf.tensors}
        importance, thorough = self._importance(), self._thorough()
        for name, kind in kinds.items():
            rows = self.model.tensors[name]
            row_bytes = stored[name].row_bytes(rows.shape[-1])
            for stretch in restored_tensor(name, rows, kind, stored[name], self.kernel, importance, thorough):
                yield Change(name, stretch.start * row_bytes, stretch.values.data.cast("B"))


def mixture(plan: Plan) -> str:
    """The types of a plan by their share of the weights: `Q5_K 48 %, IQ4_XS 31 %, ...`."""
    weights: Counter[str] = Counter()
    for tensor in plan.tensors:
        weights[tensor.type.name] += prod(tensor.shape)
    total = sum(weights.values())
    shares = [(kind, round(100 * count / total)) for kind, count in weights.most_common()]
    return ", ".join(f"{kind} {share} %" for kind, share in shares if share)

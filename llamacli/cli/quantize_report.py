"""What `quantize` shows: the model in a line, plans as tables, reports for --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacli.cli.context import Context
from llamacli.cli.sizes import human_count

if TYPE_CHECKING:
    from llamacli.quantize.model import Model
    from llamacli.quantize.plan import Plan
    from llamacli.quantize.run import Output


def describe(model: Model) -> str:
    """The source in a line: files, type, class, weights."""
    files = len({path for path in model.inputs if path.suffix in (".safetensors", ".gguf")})
    files = files or len(set(model.shards.values()))
    plural = "s" if files != 1 else ""
    return f"{files} file{plural} · {model.dtype.lower()} · {model.architecture_class} · {human_count(model.weights)} weights"


def summary(plan: Plan) -> str:
    """A plan in a line: type, exact bytes, bits per weight."""
    files = f" in {len(plan.parts)} files" if len(plan.parts) > 1 else ""
    fallbacks = sum(tensor.choice.fallback for tensor in plan.tensors)
    note = f" · {fallbacks} tensors of odd width in another type" if fallbacks else ""
    return f"{plan.recipe.name} · {plan.size_bytes:,} bytes{files} · {plan.bits_per_weight:.2f} bits per weight{note}"


def show_plans(here: Context, model: Model, outputs: Sequence[Output]) -> None:
    """Every tensor with its type, bytes and reason, on stdout."""
    if here.console.json_output:
        here.console.result(
            "", {"model": model.label, "outputs": [report_of(output, tensors=True) for output in outputs]}
        )
        return
    for output in outputs:
        rows = [
            (tensor.name, "×".join(map(str, tensor.shape)), tensor.type, f"{tensor.size_bytes:,}", tensor.choice.reason)
            for tensor in output.plan.tensors
        ]
        here.console.table(("tensor", "shape", "type", "bytes", "why"), rows)
        for path, layout in zip(output.paths, output.plan.layouts, strict=True):
            here.console.result(f"{path}: {layout.size_bytes:,} bytes")
        here.console.result(summary(output.plan))


def report_of(output: Output, *, tensors: bool = False) -> dict[str, Any]:
    """One output for --json."""
    plan = output.plan
    report: dict[str, Any] = {
        "type": plan.recipe.name,
        "paths": [str(path) for path in output.paths],
        "bytes": plan.size_bytes,
        "weights": plan.weights,
        "bits_per_weight": round(plan.bits_per_weight, 4),
    }
    if tensors:
        report["tensors"] = [
            {"name": t.name, "shape": list(t.shape), "type": t.type.name, "bytes": t.size_bytes, "why": t.choice.reason}
            for t in plan.tensors
        ]
    return report


def show_families(here: Context) -> None:
    """All model families, each with an example."""
    from llamacli.families.registry import FAMILIES

    rows = [(family.name, ", ".join(family.classes), family.example) for family in FAMILIES]
    here.console.table(("family", "architectures", "example"), rows)


def peak_memory() -> str:
    """The most memory that this process has had, as the system counts it."""
    from llamacli.runtime.memory import peak_memory as most

    peak = most()
    return f"{peak / 1e6:.0f} MB" if peak else "not measured"

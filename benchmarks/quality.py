"""Quality against size: every type as llamacli and as llama-quantize write it, and files made to a promised size.

    python benchmarks/quality.py CHECKPOINT TEXT --peer llama-quantize [--calibrate OTHER_TEXT] [--chunks 40]
        [--types Q4_K_M,...] [--targets 3,3.5,4,4.5,5,6] [--search thorough] [--out docs/quality.md] [--plot docs/quality.svg]

All files are measured side by side against the checkpoint in BF16, on a text that was not used for calibration. With
--calibrate everything is also made with an importance matrix of that text, which both programs are given; with --search
thorough, only this is done, and llamacli makes every file a second time that way from the same text. The verdicts
at the end: whether a file of llamacli's is worse than the peer's by more than two standard errors, the mean over types,
and whether each promised size beats every recipe that is not smaller than allowed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from bars import put

from llamacli.evaluate.plot import Dot, plot_svg
from llamacli.formats.gguf_reader import read_gguf

PLAIN = "Q2_K,Q3_K_S,Q3_K_M,Q3_K_L,IQ3_S,IQ3_M,IQ4_XS,IQ4_NL,Q4_0,Q4_1,Q4_K_S,Q4_K_M,Q5_0,Q5_1,Q5_K_S,Q5_K_M,Q6_K,Q8_0"
SIDE_BY_SIDE = 4
"""Files that are measured at once."""
WEIGHTED = "IQ1_S,IQ1_M,IQ2_XXS,IQ2_XS,IQ2_S,IQ2_M,IQ3_XXS,IQ3_XS,Q2_K_S," + PLAIN


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(options.keep or folder)
        source = place / "source-BF16.gguf"
        place.mkdir(parents=True, exist_ok=True)
        if not source.exists():
            llamacli("quantize", options.checkpoint, source, "-q", "BF16", "--quiet")
        lines = []
        thorough = options.search == "thorough"
        for weighted in (True,) if thorough else (False, True) if options.calibrate else (False,):
            name = "thorough" if thorough else "weighted" if weighted else "plain"
            found = compare(options, place / name, source, weighted=weighted)
            if options.page:
                put(Path(options.page), f"quality {name}", "\n".join(found[2:]))
            lines += found
    report = "\n".join(lines) + "\n"
    print(report)
    if options.out:
        Path(options.out).write_text(report, encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text")
    parser.add_argument("--peer", default="llama-quantize")
    parser.add_argument("--calibrate", default="")
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--types", default="")
    parser.add_argument("--targets", default="")
    parser.add_argument("--search", default="usual", choices=("usual", "thorough"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="")
    parser.add_argument("--plot", default="")
    parser.add_argument(
        "--page", default="", help="put the tables between its marks `quality plain`, `weighted` or `thorough`"
    )
    parser.add_argument(
        "--keep", default="", metavar="FOLDER", help="keep the files there, and use those that are there"
    )
    options = parser.parse_args()
    if options.search == "thorough" and not options.calibrate:
        parser.error("--search thorough needs --calibrate")
    return options


def compare(options: argparse.Namespace, place: Path, source: Path, *, weighted: bool) -> list[str]:
    """Make all files, measure them, and say what came out."""
    for name in ("llamacli", "llama.cpp", "thorough", "target"):
        (place / name).mkdir(parents=True, exist_ok=True)
    types = (options.types or (WEIGHTED if weighted else PLAIN)).split(",")
    types = [kind for kind in types if weighted or kind in PLAIN.split(",")]  # the others need a matrix
    matrix = place / "matrix.gguf"
    if weighted and not matrix.exists():
        llamacli("imatrix", source, options.calibrate, "-o", matrix, "-t", options.threads, "--quiet")
    with_matrix = ("--imatrix", matrix) if weighted else ()
    threads = ("-t", options.threads, "--quiet")
    ways = {"llamacli": with_matrix}
    if options.search == "thorough":
        ways["thorough"] = ("--calibrate", options.calibrate, "--search", "thorough")
    for maker, how in ways.items():
        missing = [kind for kind in types if not (place / maker / f"{kind}.gguf").exists()]
        if missing:
            llamacli("quantize", options.checkpoint, place / maker, "-q", ",".join(missing), *how, *threads)
        for path in sorted((place / maker).glob("*-*.gguf")):
            path.rename(path.with_name(path.name.rpartition("-")[2]))
    for kind in types:
        target = place / "llama.cpp" / f"{kind}.gguf"
        if not target.exists():
            run(options.peer, *map(str, with_matrix), str(source), str(target), kind, str(options.threads))
    impossible = []
    for bits in filter(None, options.targets.split(",")):
        calibrate = ("--calibrate", options.calibrate, "--search", options.search) if weighted else ()
        target = place / "target" / f"{bits}.gguf"
        if not target.exists() and not promised(options.checkpoint, target, bits, *calibrate, *threads):
            impossible.append(bits)
    found = measured(options, place, source)
    if options.plot:
        draw(Path(options.plot), found, place.name)
    if options.search == "thorough":
        return ["## Thorough search", "", *thorough_table(types, found), "", *thorough_verdicts(types, found), ""]
    title = "With an importance matrix" if weighted else "Without an importance matrix"
    lines = [f"## {title}", "", *table(types, found), "", *verdicts(types, found)]
    if impossible:
        lines.append(f"- --target-bpw {', '.join(impossible)}: refused, no file of these types is as small.")
    return [*lines, ""]


def promised(checkpoint: str, target: Path, bits: str, *more: object) -> bool:
    """Make a file to a promised size; False where that is refused."""
    command = [sys.executable, "-m", "llamacli", "quantize", checkpoint, target, "--target-bpw", bits, *more]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        sys.exit(f"--target-bpw {bits} failed:\n{done.stderr[-2000:]}")
    return not done.returncode


def measured(options: argparse.Namespace, place: Path, source: Path) -> dict[tuple[str, str], dict]:
    """Figures by maker and type; those of files that have not changed since are taken from an earlier run's."""
    notes = place / "figures.json"
    known: dict[str, dict] = json.loads(notes.read_text()) if notes.exists() else {}
    keys = {path: f"{path.parent.name}/{path.name} {path.stat().st_mtime_ns} {options.chunks} {options.text}"
            for path in sorted(place.glob("*/*.gguf"))}  # fmt: skip
    missing = [path for path, key in keys.items() if key not in known]
    for start in range(0, len(missing), SIDE_BY_SIDE):
        paths = missing[start : start + SIDE_BY_SIDE]
        out = llamacli(
            "evaluate", *paths, options.text, "--against", source, "--chunks", options.chunks, "--json",
            "-t", options.threads, "--quiet",
        )  # fmt: skip
        known.update({keys[Path(one["model"])]: one for one in json.loads(out)})
        notes.write_text(json.dumps(known))
    return {(path.parent.name, path.stem): known[key] for path, key in keys.items()}


def table(types: list[str], found: dict[tuple[str, str], dict]) -> list[str]:
    lines = [
        "| type | MB | KL divergence, llamacli | llama-quantize | difference | perplexity ratio | same top token |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in types:
        ours, peer = found["llamacli", kind], found["llama.cpp", kind]
        a, b = ours["divergence"], peer["divergence"]
        lines.append(
            f"| {kind} | {ours['size_bytes'] / 1e6:.2f} | {shown(a['mean'])} | {shown(b['mean'])} "
            f"| {100 * (a['mean']['value'] / b['mean']['value'] - 1):+.1f} % "
            f"| {a['perplexity_ratio']['value']:.4f}, {b['perplexity_ratio']['value']:.4f} "
            f"| {100 * a['same_top']['value']:.1f} %, {100 * b['same_top']['value']:.1f} % |"
        )
    for (maker, bits), one in sorted(found.items(), key=lambda item: item[1]["size_bytes"]):
        if maker == "target":
            far = one["divergence"]
            lines.append(
                f"| --target-bpw {bits} | {one['size_bytes'] / 1e6:.2f} | {shown(far['mean'])} | | "
                f"| {far['perplexity_ratio']['value']:.4f} | {100 * far['same_top']['value']:.1f} % |"
            )
    return lines


def thorough_table(types: list[str], found: dict[tuple[str, str], dict]) -> list[str]:
    lines = [
        "| type | MB | KL divergence, thorough | usual | llama-quantize | against usual | against llama-quantize "
        "| perplexity ratio | same top token |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in types:
        three = [found[maker, kind]["divergence"] for maker in ("thorough", "llamacli", "llama.cpp")]
        best, usual, peer = (one["mean"]["value"] for one in three)
        lines.append(
            f"| {kind} | {found['thorough', kind]['size_bytes'] / 1e6:.2f} "
            f"| {' | '.join(shown(one['mean']) for one in three)} "
            f"| {100 * (best / usual - 1):+.0f} % | {100 * (best / peer - 1):+.0f} % "
            f"| {', '.join(format(one['perplexity_ratio']['value'], '.4f') for one in three)} "
            f"| {', '.join(format(100 * one['same_top']['value'], '.1f') for one in three)} % |"
        )
    return lines


def thorough_verdicts(types: list[str], found: dict[tuple[str, str], dict]) -> list[str]:
    lines = []
    for maker, who in (("llamacli", "the usual search's"), ("llama.cpp", "llama-quantize's")):
        logs = [
            math.log(
                found["thorough", kind]["divergence"]["mean"]["value"]
                / found[maker, kind]["divergence"]["mean"]["value"]
            )
            for kind in types
        ]
        mean = 100 * (math.exp(sum(logs) / len(logs)) - 1)
        lines.append(f"- Divergence of the thorough search's files, geometric mean over types: {mean:+.1f} % of {who}.")
    return lines


def shown(figure: dict[str, float]) -> str:
    return f"{figure['value']:.5f} ± {figure['error']:.5f}"


def verdicts(types: list[str], found: dict[tuple[str, str], dict]) -> list[str]:
    worse, ratios = [], []
    for kind in types:
        a, b = (found[maker, kind]["divergence"]["mean"] for maker in ("llamacli", "llama.cpp"))
        ratios.append(a["value"] / b["value"])
        if a["value"] - b["value"] > 2 * math.hypot(a["error"], b["error"]):
            worse.append(kind)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    lines = [
        f"- Divergence of llamacli's files, geometric mean over types: {100 * (mean - 1):+.1f} % of llama-quantize's.",
        f"- Worse by more than two standard errors: {', '.join(worse) or 'none'}.",
    ]
    for (maker, bits), one in sorted(found.items()):
        if maker == "target":
            lines.append(promise(bits, one, found))
    return lines


def promise(bits: str, one: dict, found: dict[tuple[str, str], dict]) -> str:
    """What became of one promised size: the share that is used, and who does better with no more."""
    size, value = one["size_bytes"], one["divergence"]["mean"]["value"]
    allowed = float(bits) * read_gguf(Path(one["model"])).weights / 8
    rivals = {
        f"{kind} ({who})": rival["divergence"]["mean"]["value"]
        for (who, kind), rival in found.items()
        if who != "target" and rival["size_bytes"] <= size
    }
    better = [name for name, far in rivals.items() if far <= value]
    best = min(rivals, key=rivals.__getitem__, default="")
    against = f"best rival {best} {rivals[best]:.5f}" if best else "no recipe is as small"
    return (
        f"- --target-bpw {bits}: {100 * size / allowed:.2f} % of the size; divergence {value:.5f}, {against}; "
        f"beaten by {', '.join(better) or 'none'}."
    )


def draw(path: Path, found: dict[tuple[str, str], dict], kind_of: str) -> None:
    names = {
        "llamacli": "llamacli, standard types",
        "llama.cpp": "llama-quantize",
        "thorough": "llamacli, --search thorough",
        "target": "llamacli, --target-bpw",
    }
    dots = []
    for (maker, kind), one in sorted(found.items(), key=lambda item: list(names).index(item[0][0])):
        far = one["divergence"]["mean"]
        label = kind if maker == "llama.cpp" else ""
        dots.append(Dot(label, one["size_bytes"] / 1e6, far["value"], far["error"], names[maker]))
    what = "without an importance matrix" if kind_of == "plain" else "with an importance matrix"
    picture = plot_svg(dots, f"Quality against size, {what}", "size (MB)", "KL divergence (nats)")
    path.with_stem(f"{path.stem}-{kind_of}").write_text(picture, encoding="utf-8")


def llamacli(*arguments: object) -> str:
    return run(sys.executable, "-m", "llamacli", *map(str, arguments))


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()

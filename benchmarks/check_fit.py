"""Is the memory that `llamacli fit` predicts the memory that a run takes? Shapes of real families, several contexts.

    python benchmarks/check_fit.py [--threads N]

The files are sparse: right in header and size, all weights zero. Each run is a process of its own that loads the model
without a map, makes the context and reads a batch of 512 tokens. Two figures are taken, both less what the process had
before the model: what it has allocated (Linux' VmData), and the most that was ever resident. The second is smaller than the
first where a vocabulary is large: the engine reserves logits for a whole batch and a chat writes those of one token.
Ends with 1 if a prediction is off by more than 3 % of what was allocated.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llamacli.formats.gguf_values import Value, boolean, f32, string, u32
from llamacli.formats.gguf_writer import lay_out
from llamacli.formats.tensor_types import BY_NAME, F32, TensorType
from llamacli.runtime.fit import memory_needed
from llamacli.runtime.memory import peak_memory

ALLOWED = 0.03
CONTEXTS = (512, 2048, 4096)


@dataclass(frozen=True)
class Shape:
    """A model: `extra` are keys of its architecture, `names` its tensors in each block beside attention and norms."""

    arch: str
    width: int
    feed: int
    blocks: int
    heads: int
    heads_kv: int
    vocabulary: int
    kind: str
    head: int = 0
    experts: int = 0
    tied: bool = False
    window: int = 0

    @property
    def name(self) -> str:
        return f"{self.arch} {self.blocks}x{self.width} {self.kind}"


SHAPES = (
    Shape("llama", 2048, 8192, 4, 32, 8, 128256, "Q8_0", tied=True),  # Llama 3.2 1B
    Shape("llama", 4096, 14336, 2, 32, 8, 32000, "Q4_K"),  # Mistral 7B, Llama 3 8B
    Shape("llama", 2048, 5632, 8, 32, 4, 32000, "F16"),  # TinyLlama
    Shape("qwen3", 1024, 3072, 28, 16, 8, 151936, "Q8_0", head=128, tied=True),  # Qwen 3 0.6B
    Shape("llama", 1024, 3584, 4, 16, 8, 32000, "Q6_K", experts=8),  # Mixtral, narrowed
    Shape("gemma2", 2304, 9216, 6, 8, 4, 64000, "Q5_K", head=256, tied=True, window=4096),  # Gemma 2 2B
)


@dataclass(frozen=True)
class Tensor:
    """For the layout."""

    name: str
    shape: tuple[int, ...]
    type: TensorType

    @property
    def size_bytes(self) -> int:
        rows = 1
        for extent in self.shape[:-1]:
            rows *= extent
        return rows * self.type.row_bytes(self.shape[-1])


def metadata(shape: Shape) -> dict[str, Value]:
    head = shape.head or shape.width // shape.heads
    numbers = {
        "block_count": shape.blocks, "context_length": 32768, "embedding_length": shape.width,
        "feed_forward_length": shape.feed, "attention.head_count": shape.heads, "attention.key_length": head,
        "attention.head_count_kv": shape.heads_kv, "attention.value_length": head, "rope.dimension_count": head,
        "vocab_size": shape.vocabulary,
    }  # fmt: skip
    if shape.experts:
        numbers |= {"expert_count": shape.experts, "expert_used_count": 2}
    if shape.window:
        numbers |= {"attention.sliding_window": shape.window}
    found: dict[str, Value] = {"general.architecture": string(shape.arch)}
    found |= {f"{shape.arch}.{name}": u32(number) for name, number in numbers.items()}
    found[f"{shape.arch}.attention.layer_norm_rms_epsilon"] = f32(1e-5)
    return found | {"tokenizer.ggml.model": string("no_vocab"), "tokenizer.ggml.add_bos_token": boolean(False)}


def tensors(shape: Shape) -> list[Tensor]:
    kind, head = BY_NAME[shape.kind], shape.head or shape.width // shape.heads
    query, key = shape.heads * head, shape.heads_kv * head
    found = [Tensor("token_embd.weight", (shape.vocabulary, shape.width), kind)]
    for number in range(shape.blocks):
        weights = {"attn_q": (query, shape.width), "attn_k": (key, shape.width), "attn_v": (key, shape.width),
                   "attn_output": (shape.width, query)}  # fmt: skip
        up = {
            "ffn_gate": (shape.feed, shape.width),
            "ffn_up": (shape.feed, shape.width),
            "ffn_down": (shape.width, shape.feed),
        }
        weights |= {f"{n}_exps": (shape.experts, *s) for n, s in up.items()} if shape.experts else up
        norms = {"attn_norm": shape.width, "ffn_norm": shape.width}
        norms |= {"attn_q_norm": head, "attn_k_norm": head} if shape.arch == "qwen3" else {}
        norms |= {"post_attention_norm": shape.width, "post_ffw_norm": shape.width} if shape.arch == "gemma2" else {}
        found += [Tensor(f"blk.{number}.{n}.weight", s, kind) for n, s in weights.items()]
        found += [Tensor(f"blk.{number}.{n}.weight", (width,), F32) for n, width in norms.items()]
        if shape.experts:
            found.append(Tensor(f"blk.{number}.ffn_gate_inp.weight", (shape.experts, shape.width), F32))
    found.append(Tensor("output_norm.weight", (shape.width,), F32))
    return found if shape.tied else [*found, Tensor("output.weight", (shape.vocabulary, shape.width), kind)]


def write(shape: Shape, path: Path) -> None:
    """The sparse file."""
    layout = lay_out(metadata(shape), tensors(shape))
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size_bytes)


def measure(path: Path, context: int, threads: int) -> tuple[int, int]:
    """Run in a process of its own: bytes allocated, and the most resident, beyond those before the model was loaded."""
    from llamacli.runtime import bindings
    from llamacli.runtime.backends import engine_info

    lib = bindings.load()
    engine_info()
    before, data = peak_memory(), allocated()
    params = lib.llama_model_default_params()
    params.load_mode = 0  # LLAMA_LOAD_MODE_NONE: no map, so that weights count as they are predicted
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    wanted = lib.llama_context_default_params()
    wanted.n_ctx, wanted.n_batch, wanted.n_ubatch, wanted.swa_full = context, 2048, 512, True
    wanted.n_threads = wanted.n_threads_batch = threads
    made = lib.llama_init_from_model(model, wanted)
    import ctypes

    tokens = (ctypes.c_int32 * 512)(*range(512))
    if lib.llama_decode(made, lib.llama_batch_get_one(tokens, 512)):
        raise SystemExit("cannot decode")
    lib.llama_synchronize(made)
    return allocated() - data, peak_memory() - before


def allocated() -> int:
    """Bytes of private memory that this process has asked for."""
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "CONTEXT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), int(options.measure[1]), options.threads)))
        return
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shape.gguf"
        for shape in SHAPES:
            write(shape, path)
            for context in CONTEXTS:
                need = memory_needed(path, context)
                command = [
                    sys.executable,
                    __file__,
                    "--measure",
                    str(path),
                    str(context),
                    "--threads",
                    str(options.threads),
                ]
                taken, resident = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                off = need.total / taken - 1
                worst = max(worst, abs(off))
                figures = f"predicted {need.total / 1e6:8.1f} MB, allocated {taken / 1e6:8.1f} MB, {100 * off:+.2f} %"
                print(f"{shape.name:24} {context:6} tokens: {figures}, resident {resident / 1e6:.1f} MB", flush=True)
    print(f"worst {100 * worst:.2f} %, allowed {100 * ALLOWED:.0f} %")
    sys.exit(worst > ALLOWED)


if __name__ == "__main__":
    main()

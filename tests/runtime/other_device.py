"""A device beside the processor on any machine: another process, which the engine reaches as a GPU by its RPC backend.

python other_device.py serve ENDPOINT
python other_device.py use ENDPOINT MODEL        prints the placement and a greedy text for each line of settings
"""

from __future__ import annotations

import ast
import ctypes
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llamacli.formats.gguf_reader import read_gguf
from llamacli.runtime import bindings
from llamacli.runtime.context_limit import RESERVE, kv_bytes_per_token
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import open_engine
from llamacli.runtime.memory import memory
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.placement import choose, gpu_compute, room_on_gpus
from llamacli.runtime.sequences import sequences_that_fit


def library() -> ctypes.CDLL | None:
    """The engine's RPC backend, if it was built with one."""
    bindings.load()
    folder = Path(str(sys.modules["llama_cpp.llama_cpp"].__file__)).parent / "lib"
    found = [path for path in folder.glob("*ggml-rpc*") if path.suffix in (".so", ".dylib", ".dll")]
    return ctypes.CDLL(str(found[0])) if found else None


def serve(endpoint: str) -> None:
    """Offer this machine's processor at `endpoint` until killed."""
    rpc, size, pointer = library(), ctypes.c_size_t, ctypes.c_void_p
    assert rpc is not None
    by_type = bindings.ggml_function("ggml_backend_dev_by_type", pointer, ctypes.c_int)
    devices = (pointer * 1)(by_type(0))
    start = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, size, size, pointer)
    start(("ggml_backend_rpc_start_server", rpc))(endpoint.encode(), None, 1, 1, ctypes.cast(devices, pointer))


def use(endpoint: str, model: Path) -> None:
    """Answer each line, the keywords of EngineSettings and `room` in bytes: what goes where, and what is written."""
    rpc, pointer = library(), ctypes.c_void_p
    add = ctypes.CFUNCTYPE(pointer, ctypes.c_char_p)(("ggml_backend_rpc_add_server", rpc))
    register = bindings.ggml_function("ggml_backend_register", None, pointer)
    register(add(endpoint.encode()))
    for line in sys.stdin:
        asked = ast.literal_eval(line)
        room, cells = asked.pop("room", None), asked.pop("cells", None)
        settings = EngineSettings(threads=1, devices=("RPC0",), **asked)
        if cells is not None:
            print(json.dumps(counted(model, settings, cells)), flush=True)
        else:
            print(json.dumps(written(model, settings) if room is None else planned(model, settings, room)), flush=True)


def planned(model: Path, settings: EngineSettings, room: int) -> dict[str, Any]:
    """What would go where on a device with `room` bytes."""
    gguf = read_gguf(model)
    return asdict(choose(gguf, settings, (room,), lambda chosen: gpu_compute(model, chosen)))


def counted(model: Path, settings: EngineSettings, cells: int) -> dict[str, Any]:
    """How many sequences of so many cells fit, and into what."""
    with open_engine(model, settings) as engine:
        each = cells * kv_bytes_per_token(engine.gguf, engine.settings)
        room = {"there": sum(room_on_gpus(settings.devices)), "here": memory().available - RESERVE}
        return {"fits": sequences_that_fit(engine, 1 << 40, cells), "each": each, **room}


def written(model: Path, settings: EngineSettings) -> dict[str, Any]:
    """A greedy text, and what the engine says of the buffers that it has put weights in."""
    lines: list[str] = []
    with bindings.listening(lines.append), open_engine(model, settings) as engine:
        pieces = engine.generate(engine.tokens((Span("Once upon a time", False),)), Sampling(temp=0, predict=16))
        text, place = "".join(piece.text for piece in pieces), engine.placement
    buffers = [line.split(":", 1)[1].strip() for line in lines if "model buffer size" in line]
    return {"text": text, "whole": place is not None and place.whole, "buffers": buffers}


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "serve" else use(sys.argv[2], Path(sys.argv[3]))

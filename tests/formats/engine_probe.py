"""Give files to the real engine, one process each, and tell how it ended: run as `engine_probe.py FILE...`.

In that process: load, make a context, tokenize, decode, look at the logits. One word a file on stdout.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

SECONDS = 20


def probe(path: Path, seconds: float = SECONDS) -> str:
    """What became of `path` in a process of its own: loaded, refused, hang, or the signal that ended it."""
    command = [sys.executable, str(Path(__file__)), str(path)]
    env = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, env=env, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "hang"
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    return done.stdout.decode().strip() or f"exit {done.returncode}"


def load_and_decode(path: str) -> str:
    """Loaded, refused or undecoded; or the end of this process."""
    import ctypes

    import llama_cpp as llama

    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    parameters = llama.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(path.encode(), parameters)
    if not model:
        return "refused"
    settings = llama.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_threads, settings.n_threads_batch = 256, 256, 1, 1
    context = llama.llama_init_from_model(model, settings)
    if not context:
        return "refused"
    vocabulary = llama.llama_model_get_vocab(model)
    buffer = (llama.llama_token * 256)()
    for text in ("a b", "\N{SNOWMAN} caf\u00e9\n\t~", "\x01\x7f\U0001f600 zz <s>"):
        raw = text.encode()
        count = llama.llama_tokenize(vocabulary, raw, len(raw), buffer, 256, True, True)
        if count <= 0:
            continue
        piece = ctypes.create_string_buffer(256)
        for index in range(count):
            llama.llama_token_to_piece(vocabulary, buffer[index], piece, 256, 0, True)
        if llama.llama_decode(context, llama.llama_batch_get_one(buffer, count)) != 0:
            return "undecoded"
        llama.llama_get_logits_ith(context, -1)[0]
    return "loaded"


if __name__ == "__main__":
    print(load_and_decode(sys.argv[1]))

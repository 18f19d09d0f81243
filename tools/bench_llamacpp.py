"""llama.cpp as a peer of the benchmarks: a GPT-2 checkpoint written as a GGUF file, and its greedy decoding.

Needs `pip install llama-cpp-python gguf`; the first is built from source (about six minutes on two cores).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

_LAYER = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm"}
_LAYER |= {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
_OTHER = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def write_gguf(source: Path, target: Path, kind: str, bytes_from: int | None = None) -> None:
    """A GPT-2 folder in the names of `transformers`, as a GGUF file whose matrices are in `kind` (BF16, Q8_0, F32).

    Position embeddings stay in float32: llama.cpp adds them as they are. `bytes_from`: the id of byte 0 where tokens
    are bytes, behind special tokens of which 1 ends a text; None: the file has no tokenizer.
    """
    import gguf

    weights = load_file(source / "model.safetensors")
    layers = 1 + max(int(name.split(".")[2]) for name in weights if ".h." in name)
    width, vocabulary = weights["transformer.wte.weight"].shape[::-1]
    writer = gguf.GGUFWriter(target, "gpt2")
    writer.add_block_count(layers)
    writer.add_context_length(weights["transformer.wpe.weight"].shape[0])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(weights["transformer.h.0.mlp.c_fc.weight"].shape[1])
    writer.add_head_count(width // 64)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    _add_tokenizer(writer, bytes_from)
    for name, weight in weights.items():
        path, leaf = _name(name)
        matrix = weight.ndim == 2 and not path.startswith("position")
        # Conv1D kernels are [in, out]; llama.cpp reads rows of outputs, as tables are already.
        rows = np.ascontiguousarray(weight.T if matrix and path.startswith("blk") else weight, np.float32)
        type_ = gguf.GGMLQuantizationType[kind if matrix else "F32"]
        writer.add_tensor(f"{path}.{leaf}", gguf.quants.quantize(rows, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, bytes_from: int | None) -> None:
    """Bytes as the units of a byte-level BPE that merges none of them, or no tokenizer."""
    import gguf

    if bytes_from is None:
        writer.add_tokenizer_model("no_vocab")
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    # GPT-2 writes a byte that is no printable character as one of those from U+0100 on.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    writer.add_token_list([*(f"<{i}>" for i in range(bytes_from)), *(letters[byte] for byte in range(256))])
    writer.add_token_types([gguf.TokenType.CONTROL] * bytes_from + [gguf.TokenType.NORMAL] * 256)
    writer.add_token_merges([f"{letters[0]} {letters[0]}"])  # the list may not be empty; this one leads to no token
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(False)


def _name(name: str) -> tuple[str, str]:
    path, leaf = name.removeprefix("transformer.").rsplit(".", 1)
    if not path.startswith("h."):
        return _OTHER[path], leaf
    _, layer, part = path.split(".", 2)
    return f"blk.{layer}.{_LAYER[part]}", leaf


class LlamaCpp:
    """A GGUF file held by llama.cpp on all cores of a CPU."""

    def __init__(self, path: Path, slots: int) -> None:
        import llama_cpp as lib

        self._quiet = lib.llama_log_callback(lambda *_: None)  # held, or the library calls freed memory
        lib.llama_log_set(self._quiet, None)
        lib.llama_backend_init()
        model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        settings = lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = slots
        settings.n_threads = settings.n_threads_batch = len(os.sched_getaffinity(0))
        self.lib, self.context = lib, lib.llama_init_from_model(model, settings)
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Reads more tokens; logits [V] after the last one."""
        tokens = (self.lib.llama_token * len(ids))(*ids)
        if code := self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError(f"llama_decode returned {code}")
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, -1), (self.vocabulary,))

    def start(self) -> None:
        """Forgets what was read."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def greedy(self, prompt: Sequence[int], tokens: int) -> Callable[[], list[int]]:
        """A function that reads the prompt and takes the likeliest token so many times."""

        def run() -> list[int]:
            self.start()
            out: list[int] = []
            while len(out) < tokens:
                out.append(int(np.argmax(self.logits(out[-1:] or prompt))))
            return out

        return run


def crash(path: Path) -> str:
    """How llama.cpp ends on this file in a process of its own: "" if well, else what it said last."""
    done = subprocess.run([sys.executable, __file__, str(path)], capture_output=True, text=True)
    lines = done.stderr.strip().splitlines()
    return f"exit status {done.returncode}: {lines[-1] if lines else ''}" if done.returncode else ""


if __name__ == "__main__":
    LlamaCpp(Path(sys.argv[1]), 64).greedy([1, 2, 3, 4], 8)()

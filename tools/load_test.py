"""64 streaming clients at once against our server, in a process of its own, and `transformers` one request at a time.

    python tools/load_test.py [--clients 64] [--tokens 64] [--prompt 32] [--rounds 3] [--slots 16] [--size small]
    python tools/load_test.py --llama-server PATH                                   # with llama.cpp's server as a peer
    python tools/load_test.py --peer http://127.0.0.1:8080/v1 --peer-model NAME     # a server that runs already

The model has the layers of GPT-2 124M, random weights (speed does not depend on them) and bytes as tokens; both sides
hold the same in float32, read the same prompts and decode greedily. A round is one request of each client, then some
requests to `transformers.generate`; `vs_transformers` is the median over rounds of the ratio of new tokens per second.
`memory_growth_bytes` is what the server's resident memory grew from the end of the first round to the end of the last.
A peer gets the same texts, `vs_peer` is null without one. With `--llama-server` the same weights are written as a GGUF
file and served in as many slots with keys and values in float32; this needs `pip install gguf` and the program, which
`cmake -B build -DLLAMA_CURL=OFF && cmake --build build --target llama-server` makes in a checkout of llama.cpp.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bench_common as common
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"small": {"n_layer": 12, "n_embd": 768, "n_head": 12}, "tiny": {"n_layer": 2, "n_embd": 64, "n_head": 2}}
BYTES, SPECIALS, END = 256, 3, 1  # the byte tokenizer's ids


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"clients": 64, "tokens": 64, "prompt": 32, "rounds": 3, "slots": 16, "alone": 8}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--size", choices=SIZES, default="small")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--llama-server", default="", help="the program llama-server, started on the same weights")
    other.add_argument("--peer", default="", help="the address of another server, up to its version")
    parser.add_argument("--peer-model", default="")
    return parser.parse_args()


class Heard(NamedTuple):
    """One answer: seconds to the first token, seconds of each further one, how many there are; or what went wrong."""

    first: float = 0.0
    each: float = 0.0
    tokens: int = 0
    error: str = ""


def ask(url: str, model: str, prompt: str, tokens: int) -> Heard:
    """One streamed completion."""
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=600)
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    start = time.perf_counter()
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(
            "POST", f"{place.path}/completions", json.dumps(body | {"stream_options": {"include_usage": True}}), headers
        )
        answer = connection.getresponse()
        if answer.status != 200:
            return Heard(error=f"{answer.status} {answer.read(200)!r}")
        return _events(answer, start)
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return Heard(error=f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def _events(answer: http.client.HTTPResponse, start: float) -> Heard:
    times, tokens = [], 0
    for line in answer:
        if line == b"data: [DONE]\n":
            times = times or [time.perf_counter()]  # bytes that never made a letter
            steps = max(tokens - 1, 1)
            return Heard(times[0] - start, (times[-1] - times[0]) / steps, tokens)
        if line.startswith(b"data: "):
            told = json.loads(line[6:])
            if told.get("usage"):
                tokens = told["usage"]["completion_tokens"]
            if any(choice["text"] for choice in told["choices"]):
                times.append(time.perf_counter())
    return Heard(error="the stream ended early")


def together(url: str, model: str, prompts: Sequence[str], tokens: int) -> tuple[list[Heard], float]:
    """All prompts at once, one client each; and new tokens per second of all of them."""
    heard: list[Heard] = [Heard(error="no answer")] * len(prompts)

    def one(i: int) -> None:
        heard[i] = ask(url, model, prompts[i], tokens)

    clients = [threading.Thread(target=one, args=(i,)) for i in range(len(prompts))]
    start = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return heard, sum(one.tokens for one in heard) / (time.perf_counter() - start)


class Alone:
    """`transformers.generate`, request by request."""

    def __init__(self, folder: Path, size: str) -> None:
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        ends: dict[str, Any] = {"bos_token_id": END, "eos_token_id": END}
        config = GPT2Config(vocab_size=BYTES + SPECIALS, **SIZES[size], **ends)
        peer: Any = GPT2LMHeadModel(config)
        self.peer = peer.eval()
        self.peer.save_pretrained(folder)

    def __call__(self, prompts: Sequence[str], tokens: int) -> float:
        """New tokens per second."""
        import torch

        written, start = 0, time.perf_counter()
        for prompt in prompts:
            ids = torch.tensor([[byte + SPECIALS for byte in prompt.encode()]])
            with torch.inference_mode():
                out = self.peer.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0
                )
            written += out.shape[1] - ids.shape[1]
        return written / (time.perf_counter() - start)


class Served:
    """Our server in a process of its own."""

    def __init__(self, model: Path, workdir: Path, slots: int, queue: int) -> None:
        settings = {"model": model, "tokenizer": "bytes", "name": "model", "port": 0, "slots": slots, "queue": queue}
        command = [sys.executable, "-m", "experiments.serve", "--config=configs/serve.py", f"--workdir={workdir}"]
        command += [f"--config.{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(command, cwd=ROOT)
        told = workdir / "address.json"
        while not told.is_file():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode} before it served")
            time.sleep(0.2)
        time.sleep(0.2)  # until the file is written
        self.url = json.loads(told.read_text())["url"] + "/v1"

    def resident(self) -> int:
        """Bytes of memory that it holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def figures(self) -> dict[str, float]:
        """Its own counters."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}

    def close(self) -> None:
        """Ends it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class LlamaServer:
    """llama.cpp's server on the same weights, in a process of its own."""

    def __init__(self, program: str, model: Path, slots: int, room: int) -> None:
        from bench_llamacpp import write_gguf

        file = model.parent / "model.gguf"
        write_gguf(model, file, "F32", bytes_from=SPECIALS)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = {"model": file, "alias": "model", "port": port, "parallel": slots, "ctx-size": slots * room}
        options |= {"threads": len(os.sched_getaffinity(0)), "cache-type-k": "f32", "cache-type-v": "f32"}
        command = [program, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
        self.log = (model.parent / "llama-server.log").open("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.url = f"http://127.0.0.1:{port}/v1"
        while ask(self.url, "model", "a", 1).error:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise RuntimeError(f"llama-server ended with {self.process.returncode}: {self.log.read()[-500:]}")
            time.sleep(0.2)

    def close(self) -> None:
        """Ends it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


def texts(count: int, length: int, seed: int) -> list[str]:
    """Prompts of random letters, of half to all of the length."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))
    return ["".join(draw.choice(letters, draw.integers(max(length // 2, 1), length + 1))) for _ in range(count)]


def percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{p}_{name}_ms": float(np.percentile(values, p)) * 1e3 for p in (50, 99)}


@contextlib.contextmanager
def peer(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str] | None]:
    """(address, model) of the other server, started here or running already; None without one."""
    if not args.llama_server:
        yield (args.peer, args.peer_model) if args.peer else None
        return
    server = LlamaServer(args.llama_server, folder / "model", args.slots, 2 * (args.prompt + args.tokens))
    try:
        yield server.url, "model"
    finally:
        server.close()


class Rounds(NamedTuple):
    """What our clients heard, new tokens per second of each side, our resident memory after each round."""

    heard: list[Heard]
    rates: dict[str, list[float]]
    memory: list[int]


def measure(args: argparse.Namespace, alone: Alone, served: Served, other: tuple[str, str] | None) -> Rounds:
    """Rounds of the sides in turn, after one of ours that is not counted; RuntimeError where the peer fails."""
    told = Rounds([], {"ours": [], "transformers": [], **({"peer": []} if other else {})}, [])
    together(served.url, "model", texts(args.clients, args.prompt, 0), args.tokens)
    told.memory.append(served.resident())
    for number in range(1, args.rounds + 1):
        prompts = texts(args.clients, args.prompt, number)
        answers, rate = together(served.url, "model", prompts, args.tokens)
        told.heard.extend(answers)
        told.memory.append(served.resident())
        told.rates["ours"].append(rate)
        told.rates["transformers"].append(alone(prompts[: args.alone], args.tokens))
        if other is not None:
            theirs, rate = together(*other, prompts, args.tokens)
            told.rates["peer"].append(rate)
            if wrong := [one.error for one in theirs if one.error]:
                raise RuntimeError(f"{len(wrong)} requests to the peer failed: {wrong[0]}")
        rates = (f"{name} {rate[-1]:.1f} tokens/s" for name, rate in told.rates.items())
        print(f"round {number}/{args.rounds}: " + ", ".join(rates))
    return told


def figures(told: Rounds) -> dict[str, float | None]:
    """Errors, ratios of new tokens per second, times, growth of memory."""
    wrong = [one.error for one in told.heard if one.error]
    print("\n".join(wrong[:5]), end="\n" if wrong else "")
    print("resident memory after each round: " + ", ".join(f"{m / 2**20:.1f} MiB" for m in told.memory))
    right = [one for one in told.heard if not one.error]
    rates = told.rates
    over = lambda side: statistics.median(a / b for a, b in zip(rates["ours"], rates[side], strict=True))  # noqa: E731
    return {
        "errors": len(wrong),
        "vs_transformers": over("transformers"),
        "vs_peer": over("peer") if "peer" in rates else None,
        "tokens_per_second": statistics.median(rates["ours"]),
        **percentiles("first_token", [one.first for one in right]),
        **percentiles("per_token", [one.each for one in right]),
        "memory_growth_bytes": told.memory[-1] - told.memory[0],
    }


def main() -> None:
    """Measures and prints."""
    args = parse()
    common.settings(
        clients=args.clients, new_tokens=args.tokens, prompt=f"up to {args.prompt}", slots=args.slots, size=args.size
    )
    if not args.peer and not args.llama_server:
        print("no other server is measured: name one that runs with --peer, or the program with --llama-server")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = Alone(folder / "model", args.size)
        served = Served(folder / "model", folder / "serve", args.slots, args.clients)
        try:
            with peer(args, folder) as other:
                told = measure(args, alone, served, other)
            print(f"programs compiled while it served: {served.figures()['lifecycle_compilations_total']:g}")
        finally:
            served.close()
        common.finish(**figures(told))


if __name__ == "__main__":
    main()

"""Serving a model, with or without the page: what `experiments.serve` and `experiments.playground` share."""

import contextlib
import importlib.util
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from rich.console import Console

from experiments.loading import Loaded, load
from research.core import compilation, tree
from research.decoding.embedder import Embedder, load_embedder
from research.decoding.engine import Engine
from research.interop.peft import load_adapter
from research.weights import quantize
from research.weights.targets import is_weight, replaced
from research.weights.wrapper import is_wrapper

if TYPE_CHECKING:  # it is part of an extra
    from research.apps.page import Services


def adapters(pairs: tuple[str, ...], config: Any, params: Any) -> dict[str, Any]:
    """The base with each adapter attached, by name; raises ValueError for a pair that is none."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder) or name in found:
            raise ValueError(f"adapters are pairs name=folder with different names, given {list(pairs)}")
        found[name] = load_adapter(folder, config, params)
    return found


def over(base: Any, adapted: Any) -> Any:
    """The adapters of a tree over another form of its base: what they were trained on is not always what is served."""
    found = [
        {tree.path_of(keys): node for keys, node in jax.tree_util.tree_leaves_with_path(one, is_leaf=is_weight)}
        for one in (base, adapted)
    ]
    nodes = {path: replace(node, base=found[0][path]) for path, node in found[1].items() if is_wrapper(node)}
    return replaced(base, nodes)


def engine(config: dict[str, Any], loaded: Loaded, embedder: Embedder | None) -> Engine:
    """The engine that the config asks for, with everything compiled."""
    if loaded.forced:
        raise ValueError(
            f"this model has to begin or end with tokens of its own ({loaded.forced}), which is not served"
        )
    params = tree.stack(loaded.params)
    adapted = adapters(config["adapters"], loaded.model.config, params)
    if config["quantize"]:
        params = quantize(params, {"method": config["quantize"]})
        adapted = {name: over(params, one) for name, one in adapted.items()}
    return Engine(
        loaded.model,
        params,
        loaded.tokenizer,
        name=name_of(config["name"] or config["model"]),
        slots=config["slots"],
        window=config["window"] or None,
        chunk=config["chunk"],
        queue=config["queue"],
        adapters=adapted,
        embedder=embedder,
        stop_tokens=loaded.stops,
    )


def name_of(path: str) -> str:
    """The last part of a path."""
    return Path(path).absolute().name


def key_from(variable: str) -> str | None:
    """The API key; raises ValueError where the variable is named but not set."""
    if not variable:
        return None
    if not os.environ.get(variable):
        raise ValueError(f"the environment variable {variable} is not set; it is to hold the API key")
    return os.environ[variable]


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; raises OSError with the address."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(f"cannot listen at {host}:{port}: {error.strerror or error}") from None


def serve(
    config: dict[str, Any],
    place: socket.socket,
    workdir: Path,
    console: Console,
    services: Callable[[Engine], "Services"] | None = None,
) -> None:
    """Answers at a socket until the process is told to end; with `services`, the page is at its root."""
    import uvicorn

    from research.apps.server import Embeddings, Limits, app

    limits, key = Limits(**config["limits"]), key_from(config["key_variable"])
    embedder = load_embedder(config["embedder"]) if config["embedder"] else None
    console.print("reading and compiling ...")
    serving = engine(config, load(config["model"], config["tokenizer"] or None, config["precision"]), embedder)
    embeddings = None
    if embedder is not None:
        count = lambda texts: sum(len(embedder.encode(text)) for text in texts)  # noqa: E731
        embeddings = Embeddings(name_of(config["embedder_name"] or config["embedder"]), count)
    page = services(serving) if services is not None else None
    application = app(serving, key=key, limits=limits, embeddings=embeddings, page=page, grace=config["grace"])
    host, port = place.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    told = {"url": url, "models": serving.models, "embeddings": embeddings and embeddings.name, "pid": os.getpid()}
    (workdir / "address.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    console.print(f"serving {', '.join(serving.models)} at {url}/v1", highlight=False)
    if page is not None:
        console.print(f"the page is at [bold]{url}/[/]", highlight=False)
    if key is None and not ipaddress.ip_address(host).is_loopback:
        console.print("[yellow]anyone who reaches this machine may ask: no API key is set (key_variable)[/]")
    settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=config["grace"])
    with contextlib.suppress(KeyboardInterrupt):  # it has ended in good order by then
        uvicorn.Server(settings).run(sockets=[place])
    console.print("ended")


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError where the extra is not installed or no model is named."""
    missing = [name for name in ("uvicorn", "starlette", "jsonschema") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{missing[0]} is not installed; the server needs the extra `serve`: pip install -e '.[serve]'"
        )
    if not config["model"]:
        raise ValueError("name a model: --config.model=folder")


def work(
    config: dict[str, Any],
    workdir: Path,
    console: Console,
    services: Callable[[Engine], "Services"] | None = None,
) -> int:
    """Checks what can be checked at once, then serves."""
    check(config)
    compilation.use_cache()
    with listening(config["host"], config["port"]) as place:
        serve(config, place, workdir, console, services)
    return 0

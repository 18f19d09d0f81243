"""Imports between the rooms of the house go one way (README, "Architecture")."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A room may import rooms of its own floor (without a circle) and of the floors below it.
FLOORS = (
    {"core"},
    {"ops", "data", "apps", "report"},
    {"weights", "objectives"},
    {"models"},
    {"interop", "decoding", "training"},
    {"recipes", "evaluation", "scaling"},
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# Absences that the floors alone would allow: methods never leak into models, the trainer is handed a loss.
NEVER = {"models": {"weights"}, "training": {"models", "objectives"}}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}


def imported(source: str) -> Iterator[str]:
    """Dotted names of everything that a module imports, at any depth, lazily or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level > 1:
                raise ValueError(f"relative import out of the folder at line {node.lineno}: write the full name")
            if node.level:  # a neighbour in the same folder
                continue
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(source: str) -> set[str]:
    names = set()
    for name in imported(source):
        parts = name.split(".")
        if parts[0] == "research" and len(parts) > 1 and parts[1] in FLOOR:
            names.add(parts[1])
    return names


def violations(room: str, source: str) -> list[str]:
    """What a module of `room` imports that it must not."""
    found = []
    for other in sorted(rooms_imported(source) - {room}):
        if FLOOR[other] > FLOOR[room]:
            found.append(f"{room} imports {other}, which lies above it")
        elif other in NEVER.get(room, ()):
            found.append(f"{room} never imports {other}")
    outside = {name.split(".")[0] for name in imported(source)}
    if outside & {"experiments", "configs", "tests", "tools"}:
        found.append(f"{room} imports {sorted(outside & {'experiments', 'configs', 'tests', 'tools'})}")
    if room == "apps" and outside & JAX:
        found.append(f"apps imports {sorted(outside & JAX)}; models reach it behind the protocol")
    return found


def modules() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(ROOT / "research").parts[0], path)
        for path in sorted((ROOT / "research").rglob("*.py"))
        if path.parent != ROOT / "research"
    ]


def test_every_room_has_a_floor():
    assert {room for room, _ in modules()} <= set(FLOOR)


def test_imports_go_one_way():
    wrong = [
        f"{path.relative_to(ROOT)}: {problem}"
        for room, path in modules()
        for problem in violations(room, path.read_text())
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_of_one_floor_form_no_circle():
    uses: dict[str, set[str]] = {}
    for room, path in modules():
        uses.setdefault(room, set()).update(rooms_imported(path.read_text()) - {room})
    assert not circle(uses)


def circle(uses: dict[str, set[str]]) -> list[str]:
    """A chain of rooms that comes back to its beginning, or nothing: rooms that use no unfinished room drop out."""
    left = dict(uses)
    while True:
        done = [room for room, others in left.items() if not others & set(left)]
        if not done:
            return sorted(left)
        for room in done:
            del left[room]


@pytest.mark.parametrize(
    ("room", "source", "problem"),
    [
        ("core", "from research.ops import linear", "lies above"),
        ("models", "import research.weights.lora", "never imports"),
        ("training", "def f():\n    from research.models import build", "never imports"),
        ("training", "from research import objectives", "never imports"),
        ("apps", "import jax.numpy as jnp", "behind the protocol"),
        ("data", "from experiments import train", "experiments"),
    ],
)
def test_the_checker_sees_a_violation(room, source, problem):
    assert problem in " ".join(violations(room, source))


def test_the_checker_sees_a_circle():
    assert circle({"interop": {"decoding"}, "decoding": {"training"}, "training": {"interop"}, "core": set()})
    assert not circle({"interop": {"decoding"}, "decoding": {"core"}, "core": set()})


def test_no_command_imports_another():
    """What several commands use stands in a file that is none."""
    sources = {path.stem: path.read_text() for path in sorted((ROOT / "experiments").glob("*.py"))}
    commands = {name for name, source in sources.items() if "__main__" in source}
    assert {"train", "lifecycle", "ppo"} <= commands
    wrong = [
        f"{name} imports {other}"
        for name, source in sources.items()
        for other in imported(source)
        if other.startswith("experiments.") and other.split(".")[1] in commands
    ]
    assert not wrong, wrong


RUN_WITHOUT_JAX = """
import importlib, pathlib, sys
sys.path.insert(0, ".")
for path in sorted(pathlib.Path("configs").rglob("*.py")):
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    if path.name != "__init__.py" and hasattr(module, "get_config"):
        module.get_config()
for path in sorted(pathlib.Path("research/apps").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts))
print([name for name in ("jax", "flax", "optax", "torch") if name in sys.modules])
"""


def test_configs_and_apps_run_without_jax(tmp_path):
    (tmp_path / "t0_templates").mkdir()
    (tmp_path / "t0_templates" / "one.jsonl").touch()  # a config that has one section per file of the data folder
    env = os.environ | {"LIFECYCLE_DATA": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", RUN_WITHOUT_JAX], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"

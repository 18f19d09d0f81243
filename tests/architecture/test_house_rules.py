"""Small files, small functions, declared dependencies, configs that say how to run them."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = [
    path
    for folder in ("research", "configs", "experiments", "tools", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
SHIPPED = [path for path in OURS if path.relative_to(ROOT).parts[0] != "tests"]
MAX_FILE, MAX_FUNCTION = 400, 60
# Names of distributions that do not follow from the import name by packages_distributions when absent here.
OPTIONAL = {name: name for name in ("wandb", "torch", "transformers")}
OPTIONAL |= {"tensorboardX": "tensorboardx", "llama_cpp": "llama-cpp-python", "faiss": "faiss-cpu"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code of a function: docstring, comments' lines included; the docstring's lines are not."""
    total = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        total -= node.body[0].end_lineno - node.body[0].lineno + 1
    return total


def test_files_are_small():
    long = {name_of(p): n for p in OURS if (n := len(p.read_text().splitlines())) > MAX_FILE}
    assert not long, f"more than {MAX_FILE} lines: {long}"


def test_functions_are_small():
    long = {
        f"{name_of(path)}:{node.name}": length(node)
        for path in OURS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > MAX_FUNCTION
    }
    assert not long, f"more than {MAX_FUNCTION} lines: {long}"


def test_length_counts_code_not_docstrings():
    function = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n    # why\n    return 1\n').body[0]
    assert length(function) == 3


def test_no_drawer_for_everything():
    assert not [name_of(p) for p in OURS if p.stem in {"utils", "util", "helpers", "misc", "common"}]


@pytest.mark.parametrize(
    "pattern",
    [r"\bTODO\b", r"\bFIXME\b", r"raise NotImplementedError", r"from __future__ import annotations"],
)
def test_nothing_is_left_for_later(pattern):
    here = Path(__file__)
    found = [name_of(p) for p in OURS if p != here and re.search(pattern, p.read_text())]
    assert not found, f"{pattern} in {found}"


def unsafe(source: str) -> list[str]:
    """Ways in which a module could run text as code: forbidden calls, pickling modules, a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(f"{node.func.id}() at line {node.lineno}")
            if any(k.arg == "shell" and getattr(k.value, "value", False) for k in node.keywords):
                found.append(f"shell=True at line {node.lineno}")
            if any(k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in node.keywords):
                found.append(f"allow_pickle at line {node.lineno}")
        modules = {
            ast.Import: lambda n: [alias.name for alias in n.names],
            ast.ImportFrom: lambda n: [n.module or ""],
        }.get(type(node), lambda n: [])(node)
        found += [f"import {m} at line {node.lineno}" for m in modules if m.split(".")[0] in FORBIDDEN_MODULES]
    return found


def test_nothing_runs_text_as_code():
    # The sandboxed interpreter of apps/ is the one place whose job is to run programs.
    wrong = {name_of(p): bad for p in SHIPPED if "sandbox" not in p.stem and (bad := unsafe(p.read_text()))}
    assert not wrong, wrong


def test_the_checker_sees_unsafe_code():
    lines = ["import pickle", "eval('1')", "run('ls', shell=True)", "np.load(f, allow_pickle=True)", "re.compile('x')"]
    assert [len(unsafe(line)) for line in lines] == [1, 1, 1, 1, 0]


def declared() -> tuple[set[str], set[str]]:
    """Normalized names of the distributions that pyproject.toml declares: (always installed, in some extra)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = lambda lines: {normalized(re.split(r"[\[<>=!;~ ]", line)[0]) for line in lines}  # noqa: E731
    extras = project["optional-dependencies"]
    return names(project["dependencies"]), set().union(*(names(lines) for lines in extras.values()))


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party(source: str, *, top_only: bool) -> set[str]:
    tree = ast.parse(source)
    nodes = tree.body if top_only else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    ours = {"research", "configs", "experiments", "tools", "tests"}
    ours |= {path.stem for path in (ROOT / "tools").glob("*.py")}
    return {n for n in names if n not in sys.stdlib_module_names and n not in ours}


def test_every_import_is_declared():
    required, optional = declared()
    found_in = packages_distributions()
    # jaxlib, scipy and protobuf come with jax and the packages above; they have no pin of their own for users.
    implied = {"scipy", "jaxlib", "ml-dtypes", "protobuf", "msgpack", "pyyaml", "tensorstore", "packaging"}
    wrong = []
    for path in SHIPPED:
        for top_only in (True, False):
            for module in third_party(path.read_text(), top_only=top_only):
                distributions = {normalized(d) for d in found_in.get(module, [OPTIONAL.get(module, module)])}
                # Tools may need an extra from their first line on (benchmarks), and the server and its page have one of
                # their own; the rest of the package may not.
                own = ("tools/", "research/apps/server/", "research/apps/page/")
                lenient = not top_only or name_of(path).startswith(own)
                allowed = required | implied | (optional if lenient else set())
                if not distributions & allowed:
                    wrong.append(f"{name_of(path)} imports {module}")
    assert not wrong, sorted(set(wrong))


def test_extras_have_the_promised_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cuda", "tpu", "test", "oracles", "bench", "tracking"} <= set(project["optional-dependencies"])


def test_every_file_of_the_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["research"]
    files = (path for path in (ROOT / "research").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = [path.relative_to(ROOT / "research") for path in files if path.suffix != ".py"]
    assert names and [str(name) for name in names if not any(name.match(form) for form in project)] == []


def test_constraints_hold_names_versions_and_markers_only():
    for line in (ROOT / "tools/constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r'[\w.-]+==[\w.+]+(; python_version (<|>=) "3\.\d+")?', line), line


def configs() -> list[Path]:
    return [p for p in sorted((ROOT / "configs").rglob("*.py")) if "def get_config" in p.read_text()]


@pytest.mark.parametrize("path", configs(), ids=lambda p: p.stem)
def test_every_config_says_how_to_run_it(path):
    header = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert re.search(rf"python .*--config=?\s*{re.escape(name_of(path))}", header), "no command in the header"


def test_texts_name_no_machine():
    texts = [*OURS, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "tools").glob("*.sh"))]
    here = Path(__file__)
    found = [name_of(p) for p in texts if p != here and re.search(r"(?<![\w.])/(work|root)/", p.read_text())]
    assert not found, found

"""English and Python that every Python installation carries: language reference, docstrings, standard-library source.

Nothing is imported but `pydoc_data`; docstrings are read from source files with `ast`. Documents come in sorted order,
so that equal Python versions give equal text; `digest` is recorded with a run.
"""

import ast
import hashlib
import importlib
import inspect
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

# Folders that are no part of the library proper.
_NOT_LIBRARY = ("site-packages", "dist-packages", "__pycache__")
_TESTS = ("test", "tests", "idle_test")


class Document(NamedTuple):
    """A text and where it is from (`topics:assignment`, `docs:asyncio.queues`, `source:ast.py`)."""

    name: str
    text: str


class Function(NamedTuple):
    """A public function or method that has a docstring."""

    module: str
    qualname: str
    signature: str  # "(a, b=1)", without self or cls
    docstring: str

    @property
    def name(self) -> str:
        return self.qualname.rsplit(".", 1)[-1]

    @property
    def key(self) -> str:
        return f"{self.module}.{self.qualname}"


def topics() -> list[Document]:
    """The language reference as `help()` shows it, one document per topic (about 0.5 MB)."""
    found = importlib.import_module("pydoc_data.topics").topics
    return [Document(f"topics:{name}", found[name].strip() + "\n") for name in sorted(found)]


@lru_cache(maxsize=2)
def library_files(tests: bool = False) -> tuple[Path, ...]:
    """Source files of the standard library, sorted by path; with its tests if asked."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = set(_NOT_LIBRARY) | (set() if tests else set(_TESTS))
    files = (p for p in root.rglob("*.py") if not skipped & set(p.relative_to(root).parts[:-1]))
    return tuple(sorted(files, key=lambda p: p.relative_to(root).as_posix()))


def sources(tests: bool = True) -> Iterator[Document]:
    """Source files as documents (about 12 MB, with the tests about 31 MB); unreadable encodings are left out."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in library_files(tests):
        text = _read(path)
        if text and text.strip():
            yield Document(f"source:{path.relative_to(root).as_posix()}", text)


def docstrings(exclude: Iterable[str] = ()) -> Iterator[Document]:
    """One document per module: its docstring, then each public object's heading and docstring (about 1.7 MB).

    `exclude` names functions (`Function.key`) that are left out, such as those held out for evaluation.
    """
    hidden = set(exclude)
    for module, tree in _modules():
        parts = [_clean(tree)] if ast.get_docstring(tree) else []
        for qualname, node in _public(tree):
            text = _clean(node)
            if text and f"{module}.{qualname}" not in hidden:
                parts.append(f"{_heading(module, qualname, node)}\n{_indent(text)}")
        if parts:
            yield Document(f"docs:{module}", f"{module}\n\n" + "\n\n".join(parts) + "\n")


@lru_cache(maxsize=1)
def functions() -> tuple[Function, ...]:
    """Public functions and methods with a docstring, in sorted order of module and file position."""
    found = []
    for module, tree in _modules():
        for qualname, node in _public(tree):
            text = _clean(node)
            if text and not isinstance(node, ast.ClassDef):
                method = "." in qualname and not _is_static(node)
                found.append(Function(module, qualname, signature(node, method=method), text))
    return tuple(found)


def corpus(*, exclude: Iterable[str] = ()) -> list[Document]:
    """The main text: language reference and docstrings."""
    return [*topics(), *docstrings(exclude)]


def digest(documents: Iterable[Document]) -> str:
    """sha256 over names and texts, in order."""
    total = hashlib.sha256()
    for document in documents:
        for part in document:
            total.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return total.hexdigest()


def is_heldout(text: str, fraction: float) -> bool:
    """Whether a document belongs to the held-out split: decided by its content alone, so that it never moves."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return number < fraction * 2**64


def split(documents: Iterable[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents without exact duplicates, by `is_heldout`."""
    train: list[Document] = []
    heldout: list[Document] = []
    seen: set[str] = set()
    for document in documents:
        if document.text not in seen:
            seen.add(document.text)
            (heldout if is_heldout(document.text, fraction) else train).append(document)
    return train, heldout


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool = False) -> str:
    """The parameter list as written, `(a, b=1)`; `method` drops the first parameter."""
    plain = node.args
    if method and (plain.posonlyargs or plain.args):
        first = "posonlyargs" if plain.posonlyargs else "args"
        kept = {"posonlyargs": plain.posonlyargs, "args": plain.args, first: getattr(plain, first)[1:]}
        # A default belongs to the last parameters; the first has one only when all have.
        count = len(kept["posonlyargs"]) + len(kept["args"])
        plain = ast.arguments(
            posonlyargs=kept["posonlyargs"],
            args=kept["args"],
            vararg=plain.vararg,
            kwonlyargs=plain.kwonlyargs,
            kw_defaults=plain.kw_defaults,
            kwarg=plain.kwarg,
            defaults=plain.defaults[-count:] if count else [],
        )
    return f"({ast.unparse(plain)})"


def _read(path: Path) -> str | None:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError, OSError):
        return None


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Public modules of the library as (dotted name, tree)."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in library_files():
        parts = list(path.relative_to(root).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        module = ".".join(parts)
        # Private modules and folders that are no packages (config-3.11-x86_64) carry no public functions.
        if not parts or any(p.startswith("_") or not p.isidentifier() for p in parts):
            continue
        text = _read(path)
        if text is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's strings
            try:
                yield module, ast.parse(text)
            except (SyntaxError, ValueError):
                continue


def _public(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods with their qualified names; the first of one name counts."""
    seen: set[str] = set()
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        prefix, parent = stack.pop(0)
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name[0] == "_":
                continue
            qualname = f"{prefix}{node.name}"
            if qualname in seen:
                continue
            seen.add(qualname)
            yield qualname, node
            if isinstance(node, ast.ClassDef):
                stack.append((f"{qualname}.", node))


def _clean(node) -> str:
    text = ast.get_docstring(node, clean=False)
    return inspect.cleandoc(text).strip() if text else ""


def _is_static(node) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)


def _heading(module: str, qualname: str, node) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {module}.{qualname}"
    return f"{module}.{qualname}{signature(node, method='.' in qualname and not _is_static(node))}"


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))

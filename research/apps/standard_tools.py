"""Tools for most agents, beside `arithmetic.calculator`: a search in documents, and Python in the sandbox."""

from collections.abc import Callable, Sequence

from .retrieval.store import Hit
from .tools import Tool, tool


def search_tool(retrieve: Callable[[str, int], Sequence[Hit]], k: int = 3) -> Tool:
    """A search that shows the k best passages, numbered; `retrieve` is a `retrieval.Retriever` or alike."""

    def search(query: str) -> str:
        """Finds passages of the documents that fit a query.

        Args:
          query: what is looked for, in words
        """
        hits = retrieve(query, k)
        return "\n".join(f"[{i}] {hit.chunk.passage}" for i, hit in enumerate(hits, 1)) or "Nothing was found."

    return tool(search)


def python_tool(level: str = "bubblewrap") -> Tool:
    """Python programs in `apps.sandbox`, at no less than this level of isolation."""
    from . import sandbox

    def python(program: str) -> str:
        """Runs a Python program in a sandbox and gives what it prints; no network, no files.

        Args:
          program: the whole program; only what it prints is seen
        """
        result = sandbox.run(program, level=level)
        if not result.ok:
            raise RuntimeError(result.error)
        return result.output or "The program printed nothing."

    return tool(python)

"""Instruction tasks made from documented functions of the standard library: learnable, checkable, without a download.

Four tasks per function, each with several phrasings: its docstring's first line, its name, its parameter list, its
module. The prompt shows the rest of the docstring and never holds the function's first line, parameter list, name or
module path: mentions of name and module are blanked, and what cannot be hidden is left out.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from .python_docs import Function, functions, is_heldout

BLANK = "___"

# Each task has several wordings, so that one without the function's own name is left for functions called `write`.
PHRASINGS = {
    "first_line": (
        "Write the first line of the docstring that goes on like this:\n\n{body}",
        "Here is the end of a docstring:\n\n{body}\n\nWhat is its opening sentence?",
        "{body}\n\nThis text lacks its summary. Give the summary in one line.",
        "Summarize what the following Python documentation describes:\n\n{body}",
    ),
    "name": (
        "Which Python function is described here?\n\n{body}\n\nGive only its name.",
        "{body}\n\nName the function that this documentation belongs to.",
        "Find the name that is blanked out in this documentation:\n\n{body}",
        "What do we call the Python function with these notes?\n\n{body}",
    ),
    "signature": (
        "Write the parameter list of the function described here:\n\n{body}",
        "{body}\n\nWhich parameters does this function take? Answer with its signature.",
        "Give the signature of the Python function with these notes:\n\n{body}",
        "How is this declared? Answer in parentheses.\n\n{body}",
    ),
    "module": (
        "Which module of the standard library holds the function described here?\n\n{body}",
        "{body}\n\nWhere in the standard library does this belong? Give the module.",
        "Say from which module this documentation comes:\n\n{body}",
        "What would you import to use this?\n\n{body}",
    ),
}


class Task(NamedTuple):
    """One prompt with its completion; `function` is the key of the function asked about."""

    function: str
    task: str
    prompt: str
    completion: str

    def example(self) -> dict[str, str]:
        """The columns that `templates.encode_example` reads."""
        return {"prompt": self.prompt, "completion": self.completion}


def summary_and_body(docstring: str) -> tuple[str, str]:
    """The first paragraph as one line, and the rest."""
    summary, _, body = docstring.partition("\n\n")
    return " ".join(summary.split()), body.strip()


def leaks(prompt: str, function: Function) -> list[str]:
    """Which of first line, parameter list, name and module path of `function` the prompt gives away.

    Compared without regard to case and spacing; names count as whole identifiers. A parameter list `()` is in every
    second text and says nothing, so it does not count.
    """
    squeezed = "".join(prompt.split()).lower()
    summary = summary_and_body(function.docstring)[0]
    # The line as it stands in the file counts like the joined paragraph.
    lines = {summary, function.docstring.split("\n", 1)[0]}
    found = []
    if any("".join(line.split()).lower() in squeezed for line in lines):
        found.append("first line")
    if function.signature != "()" and "".join(function.signature.split()).lower() in squeezed:
        found.append("signature")
    if _word(function.name).search(prompt):
        found.append("name")
    if _word(function.module).search(prompt):
        found.append("module")
    return found


def tasks_of(function: Function, *, phrasings: int = 1, max_body: int = 600) -> list[Task]:
    """The tasks of one function, each in up to `phrasings` wordings; none if its docstring is one paragraph."""
    summary, body = summary_and_body(function.docstring)
    body = _hide(body, function)
    if len(body) > max_body:
        # Cut at a word, and say so.
        body = body[:max_body].rsplit(None, 1)[0] + " ..."
    if not summary or not body.strip(f"{BLANK} .\n"):
        return []
    answers = {"first_line": summary, "name": function.name, "module": function.module}
    if function.signature != "()":
        answers["signature"] = function.signature
    made = []
    for task, answer in answers.items():
        forms = PHRASINGS[task]
        first = int.from_bytes(hashlib.sha256(f"{function.key} {task}".encode()).digest()[:4], "big")
        wordings = [forms[(first + i) % len(forms)].replace("{body}", body) for i in range(len(forms))]
        clean = [w for w in wordings if not leaks(w, function)]
        made += [Task(function.key, task, prompt, answer) for prompt in clean[:phrasings]]
    return made


def instruction_tasks(
    source: Iterable[Function] | None = None, *, heldout: float = 0.1, phrasings: int = 1, max_body: int = 600
) -> tuple[list[Task], list[Task]]:
    """(training, held-out) tasks of the standard library's functions, in sorted order.

    A function is held out by the hash of what its prompt shows, so equal texts are always on one side; of equal
    prompts the first stays. A training function is left out if a held-out one has the same first line or the same
    name with the same parameters (overridden methods): its answer would be known.
    """
    shown: dict[str, Function] = {}
    for function in functions() if source is None else source:
        body = summary_and_body(function.docstring)[1]
        # Blanks in place of the name make copies under another name equal too.
        shown.setdefault(" ".join(_hide(body, function).split()).lower(), function)
    held = {f.key for body, f in shown.items() if is_heldout(body, heldout)}
    known: set[tuple[str, str]] = set()
    for function in shown.values():
        if function.key in held:
            known |= _answers(function)
    train: list[Task] = []
    test: list[Task] = []
    for function in shown.values():
        made = tasks_of(function, phrasings=phrasings, max_body=max_body)
        if function.key in held:
            test += made
        elif not _answers(function) & known:
            train += made
    return _without_twins(train, {t.prompt for t in test}), _without_twins(test, set())


def _answers(function: Function) -> set[tuple[str, str]]:
    summary = summary_and_body(function.docstring)[0]
    return {("line", summary.lower()), ("call", function.name + function.signature)}


def _without_twins(tasks: list[Task], taken: set[str]) -> list[Task]:
    seen = set(taken)
    return [t for t in tasks if not (t.prompt in seen or seen.add(t.prompt))]  # type: ignore[func-returns-value]


def _word(name: str) -> re.Pattern:
    """`name` as a whole identifier or dotted path, in any case."""
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", re.IGNORECASE)


def _hide(body: str, function: Function) -> str:
    """`body` with the module path and the function's name blanked."""
    return _word(function.name).sub(BLANK, _word(function.module).sub(BLANK, body))

"""Program-aided answers (PAL): the model writes a Python program, a sandbox runs it.

See *PAL: Program-aided Language Models*, Gao et al., https://arxiv.org/abs/2211.10435.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from .protocol import LanguageModel, Options
from .reasoning import Vote, vote
from .sandbox import Limits, run

LIMITS = Limits()
STOP = "\n\n\n"  # where a published program ends
WRITING = Options(max_new_tokens=512, stop=(STOP,))
BETWEEN_EXAMPLES = "\n" * 6

_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_FIRST_LINE = re.compile(r"^(?:import |from \w|def )", re.MULTILINE)
_MARK = "=== the answer of the program ==="
_READ_ANSWER = f"""
if callable(globals().get("solution")):
    answer = solution()
if globals().get("answer") is None:
    raise ValueError("the program has no answer: no solution() that returns one, no variable `answer`")
print({_MARK!r} + str(answer), end="")
"""


class Executed(NamedTuple):
    """What a program came to.

    Attributes:
      value: its answer as text; None: it gave none.
      error: why, in the words of the traceback or the sandbox; "" with a value.
    """

    program: str
    value: str | None
    error: str


class Solution(NamedTuple):
    """The programs that a model wrote for one question, and what most of them answer."""

    prompt: str
    vote: Vote
    executed: tuple[Executed, ...]


def prompt(question: str, examples: Iterable[tuple[str, str]] = ()) -> str:
    """Questions with their programs, then a question, in the form of the published prompts for arithmetic."""
    solved = [f"{_ask(asked)}{program.strip()}" for asked, program in examples]
    return BETWEEN_EXAMPLES.join([*solved, _ask(question)])


def symbolic_prompt(question: str, examples: Iterable[tuple[str, str]] = ()) -> str:
    """The same in the form of those for tables and lists, whose programs set the variable `answer`."""
    solved = [f"{_quote(asked)}\n{program.strip()}" for asked, program in examples]
    return STOP.join([*solved, _quote(question)])


def program_of(text: str, stop: Sequence[str] = (STOP,)) -> str:
    """The program in what a model wrote: its first fenced block, else all up to a stop text.

    What stands in front of the first import or function is left out where there is a function `solution`; a program
    without one keeps all its lines.
    """
    if fenced := _FENCED.search(text):
        return fenced[1]
    text = text.strip("\n")
    for end in stop:
        text = text.partition(end)[0]
    first = _FIRST_LINE.search(text)
    return text[first.start() :] if first and "def solution(" in text else text


def execute(program: str, *, limits: Limits = LIMITS, level: str = "bubblewrap") -> Executed:
    """The value of `solution()` or, without it, of the variable `answer` at the program's end, from the sandbox.

    Raises:
      NoSandboxError: the machine gives less isolation than `level`, see `sandbox.run`.
    """
    result = run(program + "\n" + _READ_ANSWER, limits=limits, level=level)
    _, found, value = result.output.rpartition(_MARK)
    if result.ok and found:
        return Executed(program, value, "")
    return Executed(program, None, result.error or "the program ended before its answer was read")


def execute_all(programs: Sequence[str], *, limits: Limits = LIMITS, level: str = "bubblewrap") -> list[Executed]:
    """The same of many, as many at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(execute, limits=limits, level=level), programs))


def solve(
    model: LanguageModel,
    questions: Sequence[str],
    examples: Sequence[tuple[str, str]] = (),
    *,
    form: Callable[[str, Iterable[tuple[str, str]]], str] = prompt,
    samples: int = 1,
    options: Options = WRITING,
    limits: Limits = LIMITS,
    level: str = "bubblewrap",
) -> list[Solution]:
    """Programs for each question and the majority of their answers, numbers being equal that are written differently.

    Examples (question, program) that the model's window does not hold are left out, the first ones first.

    form: `prompt` or `symbolic_prompt`.

    Raises:
      ValueError: fewer than one sample, several that would all be the same, or a question too long for the window.
      NoSandboxError: the machine gives less isolation than `level`.
    """
    if samples < 1 or (samples > 1 and options.temperature == 0):
        raise ValueError(
            f"PAL votes over at least 1 program, and over several at a temperature above 0; given {samples} at "
            f"{options.temperature:g}"
        )
    prompts = [_fitting(model, form, question, examples, options) for question in questions]
    replies = model.write([text for text in prompts for _ in range(samples)], options)
    programs = [program_of(reply.text, options.stop) for reply in replies]
    executed = execute_all(programs, limits=limits, level=level)
    solutions = []
    for i, text in enumerate(prompts):
        runs = tuple(executed[i * samples : (i + 1) * samples])
        values = [one.value if one.value is None else canonical(one.value) for one in runs]
        solutions.append(Solution(text, vote(values), runs))
    return solutions


def canonical(value: str) -> str:
    """A number to 12 digits in one way of writing ("3.0" and "3" are "3"); other text stripped."""
    number = _number(value)
    if number is None:
        return value.strip()
    if number.is_integer():  # of any size, exactly where it was written so
        return str(int(value)) if re.fullmatch(r"\s*-?\d+\s*", value) else str(int(number))
    return f"{number:.12g}"


def same(value: str, target: str | float) -> bool:
    """Numbers that differ by at most 0.001, as published, or 1e-6 of the larger; other text but for case and blanks."""
    left, right = _number(value), _number(str(target))
    if left is None or right is None:
        return value.strip().lower() == str(target).strip().lower()
    return math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-3)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _ask(question: str) -> str:
    return f"Q: {question}\n\n# solution in Python:\n\n\n"


def _quote(question: str) -> str:
    return f'"""\nQ: {question}\n"""\n'


def _fitting(
    model: LanguageModel,
    form: Callable[[str, Iterable[tuple[str, str]]], str],
    question: str,
    examples: Sequence[tuple[str, str]],
    options: Options,
) -> str:
    """The prompt with as many of the last examples as the window holds."""
    for first in range(len(examples) + 1):
        text = form(question, examples[first:])
        if model.window is None or model.count(text) + options.max_new_tokens <= model.window:
            return text
    raise ValueError(
        f"a question of {model.count(text)} tokens and a program of up to {options.max_new_tokens} do not fit into the "
        f"window of {model.window}: {question:.60}..."
    )

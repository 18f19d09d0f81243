"""Rows of a data set as instructions: several natural phrasings per task, written as one line of Jinja each.

    Review: {{ text }} Is it positive? ||| {{ ["no", "yes"][label] }}

What stands before `|||` is the prompt, what stands behind it the completion; an inverted task (write a review that is
positive) is the same row with its fields on the other sides. See *Multitask Prompted Training Enables Zero-Shot Task
Generalization* (T0), https://arxiv.org/abs/2110.08207, and *Finetuned Language Models Are Zero-Shot Learners* (FLAN),
https://arxiv.org/abs/2109.01652.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .files import read_examples

SEPARATOR = "|||"
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


class TaskTemplate:
    """One phrasing of one task.

    choices: Jinja for the answers to choose from, between `|||`: "no ||| yes" or "{{ options | join('|||') }}".

    Raises:
      ValueError: no separator or several, or text that is no Jinja.
    """

    def __init__(self, text: str, choices: str = "") -> None:
        parts = text.split(SEPARATOR)
        if len(parts) != 2:
            raise ValueError(
                f"a task template is 'prompt {SEPARATOR} completion'; {text!r} has {len(parts) - 1} separators"
            )
        self._sides = tuple(_compiled(part, text) for part in parts)
        self._choices = _compiled(choices, choices)
        self.text, self.choices = text, choices

    def __call__(self, row: Mapping[str, Any], where: str = "the row") -> dict[str, str]:
        """The prompt and the completion of one row, stripped of outer white space.

        Raises:
          ValueError: a field that the row lacks, or an empty side; `where` says which row.
        """
        prompt, completion = (_filled(side, self.text, row, where).strip() for side in self._sides)
        if not prompt or not completion:
            side = "completion" if prompt else "prompt"
            raise ValueError(f"{where}: {self.text!r} gives an empty {side}")
        return {"prompt": prompt, "completion": completion}

    def options(self, row: Mapping[str, Any], where: str = "the row") -> list[str]:
        """The answers to choose from, stripped of outer white space; none if the template has no choices.

        Raises:
          ValueError: a field that the row lacks, an empty choice or one given twice; `where` says which row.
        """
        if not self.choices:
            return []
        found = [part.strip() for part in _filled(self._choices, self.choices, row, where).split(SEPARATOR)]
        if not all(found) or len(set(found)) < len(found):
            raise ValueError(
                f"{where}: {self.choices!r} gives the choices {found}; expected different ones, none empty"
            )
        return found


def _compiled(part: str, text: str) -> jinja2.Template:
    try:
        return _JINJA.from_string(part)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"the task template {text!r} cannot be read: {error}") from None


def _filled(side: jinja2.Template, text: str, row: Mapping[str, Any], where: str) -> str:
    try:
        return side.render(**row)
    except (jinja2.UndefinedError, jinja2.exceptions.SecurityError, TypeError, IndexError) as error:
        raise ValueError(f"{where}: {text!r} needs what is not there: {error}; it has {sorted(row)}") from None


def templated(
    rows: Sequence[Mapping[str, Any]], phrasings: Sequence[str], *, name: str = "row"
) -> list[dict[str, str]]:
    """Every row in one phrasing, row i in number i mod n, so that all are used alike and none is drawn at random.

    Raises:
      ValueError: no phrasing, or one that does not fit a row (named `name` and its number, from 1).
    """
    if not phrasings:
        raise ValueError("no task template was given")
    made = [TaskTemplate(text) for text in phrasings]
    return [made[i % len(made)](row, f"{name}:{i + 1}") for i, row in enumerate(rows)]


def templated_file(path: str | Path, phrasings: Sequence[str]) -> Iterator[dict[str, str]]:
    """The examples of a JSONL file of rows; errors name file and line."""
    yield from templated(list(read_examples(path)), phrasings, name=str(path))

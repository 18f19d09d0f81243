"""What an agent did, step by step: kept as JSON lines, one run a line, and read back."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

SCHEMA = "lifecycle/trace-1"
ENDS = ("finish", "steps", "tokens", "loop", "window")
LEFT_OUT = "(left out)"
AGAIN = " (You have had this answer before: do something else.)"


@dataclass(frozen=True)
class Budget:
    """Where a run ends that does not finish by itself.

    Attributes:
      steps: at most. tokens: written in all. step_tokens: written in one step. repeats: of an action that gave the same
        before.
    """

    steps: int = 8
    tokens: int = 4096
    step_tokens: int = 256
    repeats: int = 2

    def __post_init__(self) -> None:
        if min(self.steps, self.tokens, self.step_tokens, self.repeats) < 1:
            raise ValueError(f"each number of a budget must be at least 1, given {self}")


BUDGET = Budget()


@dataclass(frozen=True)
class Step:
    """A thought, an action and what was seen.

    Attributes:
      action: the tool's name; "" where none could be read. argument: as the model wrote it.
      notes: what was mended in the step, and what was left out of the prompt before it. tokens: written for it.
    """

    thought: str
    action: str
    argument: str
    observation: str
    notes: tuple[str, ...] = ()
    tokens: int = 0


@dataclass
class Trace:
    """One run.

    Attributes:
      ended: one of `ENDS`; "finish" alone has an answer.
    """

    model: str
    question: str
    steps: list[Step] = field(default_factory=list)
    answer: str | None = None
    ended: str = ""

    @property
    def tokens(self) -> int:
        return sum(step.tokens for step in self.steps)

    def add(self, step: Step, budget: Budget) -> None:
        """Takes a step, tells the model where it repeats an action that gave the same, and ends with the budget."""
        made = (step.action, step.argument, step.observation)
        before = [(old.action, old.argument, old.observation.removesuffix(AGAIN)) for old in self.steps].count(made)
        if before:
            step = replace(step, observation=step.observation + AGAIN, notes=(*step.notes, "the same as before"))
        self.steps.append(step)
        ends = {
            "loop": before >= budget.repeats,
            "steps": len(self.steps) >= budget.steps,
            "tokens": self.tokens >= budget.tokens,
        }
        self.ended = self.ended or next((name for name, reached in ends.items() if reached), "")

    def finish(self, step: Step, answer: str) -> None:
        """Takes the last step."""
        self.steps.append(step)
        self.answer, self.ended = answer, "finish"


def append_traces(path: str | Path, traces: Iterable[Trace]) -> None:
    """Adds lines {"schema", "model", "question", "steps": [{"thought", "action", "argument", "observation", "notes",
    "tokens"}], "answer", "ended"} to a file."""
    with Path(path).open("a", encoding="utf-8") as file:
        for trace in traces:
            file.write(json.dumps({"schema": SCHEMA, **asdict(trace)}, ensure_ascii=False) + "\n")


def read_traces(path: str | Path) -> list[Trace]:
    """The runs of a file.

    Raises:
      ValueError: a line that is no such run; names file and line.
    """
    traces = []
    text = Path(path).read_text(encoding="utf-8").removesuffix("\n")
    for number, line in enumerate(text.split("\n") if text else (), 1):  # JSON may hold what `splitlines` splits at
        try:
            row = json.loads(line)
            if row.pop("schema") != SCHEMA or row["ended"] not in ENDS:
                raise ValueError
            steps = [Step(**{**step, "notes": tuple(step["notes"])}) for step in row.pop("steps")]
            traces.append(Trace(steps=steps, **row))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(f"{path}, line {number}: no run in the form {SCHEMA}: {line[:80]!r}") from None
    return traces

"""Questions with choices, answered by what a model finds likeliest behind examples."""

from collections.abc import Sequence
from typing import Any

from research.apps.prompting import Outcome, Task
from research.apps.prompting.shots import build, choose
from research.core.types import Params
from research.models import Model

from .card import Ask
from .likelihood import score_choices


def by_likelihood(
    model: Model,
    params: Params,
    tokenizer: Any,
    *,
    shots: int = 0,
    how: str = "random",
    seed: int = 0,
    batch_size: int = 16,
    boundary: str = "joint",
) -> Ask:
    """Answers by comparing the choices' likelihoods behind `shots` examples, as many of them as the model holds."""

    def count(text: str) -> int:
        return len(tokenizer.encode(text)) + 1  # the begin token

    def ask(tasks: Sequence[Task]) -> list[list[Outcome]]:
        found = []
        for task in tasks:
            free = [item.id for item in task.items if not item.choices]
            if free:
                raise ValueError(f"{task.name}: item {free[0]!r} has no choices to compare the likelihoods of")
            prompts = [task.separator.join(filter(None, (task.description, item.question))) for item in task.items]
            if shots:
                chosen = [choose(task, item, shots, seed=seed, how=how) for item in task.items]
                window = model.config.max_length
                made = [build(task, i, c, count=count, window=window) for i, c in zip(task.items, chosen, strict=True)]
                prompts = [prompt.text for prompt in made]
            scores = score_choices(
                model, params, tokenizer, list(zip(prompts, [i.choices for i in task.items], strict=True)),
                by=task.by, neutral=task.neutral, batch_size=batch_size, boundary=boundary, long="cut",
            )  # fmt: skip
            found.append(
                [
                    Outcome(item.id, int(row.argmax()), scores=tuple(map(float, row)))
                    for item, row in zip(task.items, scores, strict=True)
                ]
            )
        return found

    return ask

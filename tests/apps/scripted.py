"""A model that says what a test has written for it, with the interface of a real one."""

from collections.abc import Callable, Iterable

from research.apps.protocol import DEFAULTS, Reply, Usage


class Scripted:
    """Answers by a rule prompt -> text or Reply, or from a list in turn; `asked` holds (prompt, options) so far.

    A text ends before the first stop string, as every model's does. A token is a character here.
    """

    name = "scripted"

    def __init__(self, answers: Callable | Iterable, window: int | None = None):
        self.window, self.asked = window, []
        said = None if callable(answers) else iter(answers)
        self._rule = answers if said is None else lambda prompt: next(said)

    def count(self, prompt, tools=()) -> int:
        return len(prompt if isinstance(prompt, str) else "".join(f"{message}" for message in prompt))

    def write(self, prompts, options=DEFAULTS) -> list[Reply]:
        return [self._answer(prompt, options) for prompt in prompts]

    def stream(self, prompt, options=DEFAULTS):
        yield from self._answer(prompt, options).text

    def _answer(self, prompt, options) -> Reply:
        self.asked.append((prompt, options))
        if self.window is not None and self.count(prompt) >= self.window:
            raise ValueError(f"{self.count(prompt)} tokens leave no room in {self.window}")
        answer = self._rule(prompt)
        if isinstance(answer, Reply):
            return answer
        ends = [at for at in map(answer.find, options.stop) if at >= 0]
        text = answer[: min([*ends, options.max_new_tokens])]
        finish = "length" if len(text) == options.max_new_tokens else "stop"
        return Reply(text, finish, Usage(self.count(prompt), len(text)))

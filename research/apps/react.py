"""ReAct: a model writes thoughts and actions in turn, sees what each action gives, and ends with Finish[answer].

See *ReAct: Synergizing Reasoning and Acting in Language Models*, Yao et al., https://arxiv.org/abs/2210.03629. The
published prompts drive it as they are: they are the `head`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from .protocol import DEFAULTS, LanguageModel, Options
from .tools import Tools
from .trace import BUDGET, LEFT_OUT, Budget, Step, Trace

FINISH = "Finish"
_STOP = ("\nObservation",)
_MARK = re.compile(r"^[ \t]*(Thought|Action|Observation)[ \t]*(\d*)[ \t]*:", re.MULTILINE | re.IGNORECASE)


class Parsed(NamedTuple):
    """What stands in a step; `action` is "" where there is none that can be read, `notes` what had to be mended."""

    thought: str
    action: str
    argument: str
    notes: tuple[str, ...]


def instructions(tools: Tools) -> str:
    """A head that tells a model its tools, for those without published examples."""
    lines = [f"{one.name}[{', '.join(one.parameters['properties'])}]: {one.description}" for one in tools]
    listed = "\n".join([*lines, f"{FINISH}[answer]: Ends with the answer."])
    return (
        "Answer the question in steps: a Thought, then one Action, then you are shown its Observation. "
        f"The actions are:\n{listed}\n\n"
    )


def parse(text: str, number: int, names: Sequence[str]) -> Parsed:
    """Reads what a model wrote behind "Thought {number}:".

    Mended, and noted: a wrong number, several actions (the first counts), an observation that it made up, a missing
    bracket, `Name: argument` or `Name(argument)`, and a tool's action without "Action" in front.

    names: the tools' (`Finish` is one more).
    """
    marks = list(_MARK.finditer(text))
    kinds = [mark[1].lower() for mark in marks]
    notes = []
    if "observation" in kinds:
        notes.append("an observation that the model made up was cut off")
    first = next((i for i, kind in enumerate(kinds) if kind != "thought"), len(marks))
    if first < len(marks) and kinds[first] == "action":
        thought, mark = text[: marks[first].start()], marks[first]
        end = marks[first + 1].start() if first + 1 < len(marks) else len(text)
        body = text[mark.end() : end]
        if mark[2] and int(mark[2]) != number:
            notes.append(f"action {mark[2]} stands in step {number}")
        if "action" in kinds[first + 1 :]:
            notes.append("several actions: the first counts")
    else:
        whole = text[: marks[first].start()] if first < len(marks) else text
        bare = re.search(rf"^[ \t]*(?:{'|'.join(map(re.escape, [*names, FINISH]))})[ \t]*\[", whole, re.M | re.I)
        if not bare:
            return Parsed(_plain(whole), "", "", (*notes, "no action"))
        thought, body = whole[: bare.start()], whole[bare.start() :]
        notes.append('no "Action" in front of the action')
    action, argument, mended = _action(body.strip(), [*names, FINISH])
    return Parsed(_plain(thought), action, argument, (*notes, *mended))


def _action(body: str, names: Sequence[str]) -> tuple[str, str, tuple[str, ...]]:
    """(name, argument, what was mended) of `Name[argument]`; brackets within an argument are counted."""
    if found := re.match(r"(\w+)[ \t]*\[", body):
        depth = 0
        for i in range(found.end() - 1, len(body)):
            depth += (body[i] == "[") - (body[i] == "]")
            if depth == 0:
                rest = body[i + 1 :].strip()
                several = ("several actions: the first counts",) if re.search(r"\w+\[", rest) else ()
                return found[1], body[found.end() : i], several
        return found[1], body[found.end() :].strip(), ("no closing bracket",)
    found = re.match(r"(\w+)(.*)", body.partition("\n")[0])
    if found and found[1].lower() in {name.lower() for name in names}:
        return found[1], found[2].strip(" \t:().\"'"), ("no brackets",)
    return "", body, ("an action that cannot be read",)


def _plain(thought: str) -> str:
    """A thought without a "Thought 1:" of its own and outer white space."""
    return _MARK.sub("", thought, count=1).strip() if _MARK.match(thought.lstrip()) else thought.strip()


def render(steps: Sequence[Step], left_out: int = 0) -> str:
    """The steps as prompts show them, the first `left_out` observations only named."""
    lines = []
    for i, step in enumerate(steps, 1):
        action = f"{step.action}[{step.argument}]" if step.action else step.argument
        observation = LEFT_OUT if i <= left_out else step.observation
        lines.append(f"Thought {i}: {step.thought}\nAction {i}: {action}\nObservation {i}: {observation}\n")
    return "".join(lines)


def run(
    model: LanguageModel,
    tools: Tools,
    question: str,
    *,
    head: str = "",
    lead: str = "Question",
    budget: Budget = BUDGET,
    options: Options = DEFAULTS,
    on_step: Callable[[Trace], None] | None = None,
) -> Trace:
    """One run of an agent; see `run_all`."""
    return run_all(model, [tools], [question], head=head, lead=lead, budget=budget, options=options, on_step=on_step)[0]


def run_all(
    model: LanguageModel,
    tools: Sequence[Tools],
    questions: Sequence[str],
    *,
    head: str = "",
    lead: str = "Question",
    budget: Budget = BUDGET,
    options: Options = DEFAULTS,
    on_step: Callable[[Trace], None] | None = None,
) -> list[Trace]:
    """Runs that go on side by side, so that a model reads all their prompts together.

    Where the prompt fills the window, the oldest observations are left out of it, and the step's notes say so.

    tools: those of each question. head: stands in front of all; "": `instructions`. lead: in front of the question,
      such as "Claim". options: its `max_new_tokens` and `stop` are the budget's and ReAct's.

    Raises:
      ValueError: a tool is called `Finish`, or a question that does not fit into the window with its head.
    """
    if any(FINISH.lower() == one.name.lower() for some in tools for one in some):
        raise ValueError(f"{FINISH} ends a run: no tool can have this name")
    options = replace(options, max_new_tokens=budget.step_tokens, stop=_STOP)
    runs = [
        _Run(f"{head or instructions(some)}{lead}: {question}\n", some, Trace(model.name, question))
        for some, question in zip(tools, questions, strict=True)
    ]
    while live := [run for run in runs if not run.trace.ended]:
        asked = [(run, *prompt) for run in live if (prompt := run.prompt(model, budget))]
        for (run, _, notes), (parsed, tokens) in zip(asked, _ask(model, asked, options), strict=True):
            run.act(parsed, notes, tokens, budget)
            if on_step:
                on_step(run.trace)
    return [run.trace for run in runs]


@dataclass
class _Run:
    """front: all that stands before the first thought."""

    front: str
    tools: Tools
    trace: Trace

    def prompt(self, model: LanguageModel, budget: Budget) -> tuple[str, tuple[str, ...]] | None:
        """The next step's prompt and a note on what it leaves out; None, and the run has ended, where none fits."""
        steps = self.trace.steps
        for left_out in range(len(steps) + 1):
            prompt = f"{self.front}{render(steps, left_out)}Thought {len(steps) + 1}:"
            if model.window is None or model.count(prompt) + budget.step_tokens <= model.window:
                return prompt, (f"the first {left_out} observations are left out of the prompt",) * bool(left_out)
        if not steps:
            raise ValueError(
                f"{model.count(prompt)} tokens of question and head and {budget.step_tokens} of a step do not fit into "
                f"a window of {model.window}"
            )
        self.trace.ended = "window"
        return None

    def act(self, parsed: Parsed, notes: tuple[str, ...], tokens: int, budget: Budget) -> None:
        """Does what a step says."""
        notes = (*notes, *parsed.notes)
        if parsed.action.lower() == FINISH.lower():
            step = Step(parsed.thought, FINISH, parsed.argument, "", notes, tokens)
            return self.trace.finish(step, parsed.argument.strip())
        if parsed.action:
            seen = self.tools.call(parsed.action, parsed.argument).text
        else:
            known = [one.name for one in self.tools]
            seen = f"Error: no action was read; expected Name[argument] with a name of {[*known, FINISH]}"
        self.trace.add(Step(parsed.thought, parsed.action, parsed.argument, seen, notes, tokens), budget)


def _ask(
    model: LanguageModel, asked: Sequence[tuple[_Run, str, tuple[str, ...]]], options: Options
) -> list[tuple[Parsed, int]]:
    """The steps that the model writes and their tokens; where it wrote a thought alone, it is asked for the action."""
    replies = model.write([prompt for _, prompt, _ in asked], options)
    places = [(len(run.trace.steps) + 1, [one.name for one in run.tools]) for run, _, _ in asked]
    steps = [parse(reply.text, *place) for reply, place in zip(replies, places, strict=True)]
    tokens = [reply.usage.completion_tokens for reply in replies]
    second = {}
    for i, step in enumerate(steps):
        prompt = f"{asked[i][1]} {step.thought}\nAction {places[i][0]}:"
        if not step.action and (model.window is None or model.count(prompt) < model.window):
            second[i] = prompt
    for i, reply in zip(second, model.write(list(second.values()), options), strict=True):
        number, names = places[i]
        found = parse(f"Action {number}:{reply.text}", number, names)
        steps[i] = Parsed(steps[i].thought, found.action, found.argument, (*steps[i].notes, *found.notes))
        tokens[i] += reply.usage.completion_tokens
    return list(zip(steps, tokens, strict=True))

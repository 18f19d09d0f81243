"""Stage 24: a small decoder learns in seconds to write programs and to look up facts; a PAL and a ReAct run of it."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import jax

from experiments.fact_forms import Library, fact_lessons, grouped, look_up
from experiments.problem_forms import problem_lessons
from experiments.reasoners import small_model, taught, trained_tokenizer
from experiments.stages.stage import Done, Stage
from research import report
from research.apps import pal, sandbox
from research.apps.protocol import Options
from research.core.names import meant
from research.data.changing_facts import editions
from research.data.word_problems import Difficulty, word_problem
from research.decoding.local import LocalModel


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Right answers to held-out problems and to facts of a later edition, before and after training; a run of each.

    {"skipped": the reason} where the machine gives less isolation than the config demands.
    """
    del inputs, folder
    settings = config["reasoning"]
    try:
        sandbox.run("pass", level=settings["sandbox"])
    except sandbox.NoSandboxError as error:
        return {"skipped": str(error)}
    learn, seed = Difficulty(**settings["problems"]), settings["seed"]
    *known, before, now = (Library(edition) for edition in editions(seed, **settings["registry"]))
    every = zip(problem_lessons("program", learn, seed), fact_lessons("ReAct", [*known, before], 0, seed), strict=True)
    lessons = chain.from_iterable(every)
    tokenizer = trained_tokenizer(lessons, settings["tokenizer"])
    model = small_model(settings["model"], tokenizer)
    params, costs = taught(model, tokenizer, lessons, settings["training"], seed)
    count, tokens = settings["questions"], settings["new_tokens"]
    problems = [word_problem(seed, i, learn, held_out=True) for i in range(count)]
    facts = [question for group in grouped(before, now, count // 6).values() for question in group]
    right: dict[str, Any] = {}
    for name, weights in (("before training", jax.jit(model.init)(jax.random.key(seed))), ("after", params)):
        local = LocalModel(model, weights, tokenizer, name="reasoner", batch_size=count)
        options = Options(tokens, stop=(pal.STOP,))
        solved = pal.solve(local, [p.question for p in problems], options=options, level=settings["sandbox"])
        traces = look_up(local, now, facts, tokens)
        ok = [s.vote.answer == str(p.answer) for s, p in zip(solved, problems, strict=True)]
        found = [trace.answer == q.answer for trace, q in zip(traces, facts, strict=True)]
        right[name] = {"PAL": statistics.mean(ok), "ReAct": statistics.mean(found)}
    # The first right ones, of the longest runs; where there are none, the first.
    program = max(range(count), key=lambda i: (ok[i], len(problems[i].chain)))
    looked = max(range(len(facts)), key=lambda i: (found[i], len(facts[i].titles)))
    executed = solved[program].executed[0]
    return {
        "right": right,
        "questions": {"PAL": count, "ReAct": len(facts)},
        "isolation": sandbox.isolation().level,
        "program": {"question": problems[program].question, "answer": problems[program].answer, **executed._asdict()},
        "trace": asdict(traces[looked]) | {"right": facts[looked].answer},
        **costs,
    }


def check(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for settings that the stage would refuse after others have worked."""
    Difficulty(**settings["problems"])
    editions(settings["seed"], **settings["registry"])
    if settings["questions"] < 6 or settings["registry"]["count"] < 2:
        raise ValueError(
            f"reasoning needs at least 6 questions, one of each kind, and 2 editions, given {settings['questions']} "
            f"and {settings['registry']['count']}"
        )
    if settings["sandbox"] not in sandbox.LEVELS:
        hint = meant(settings["sandbox"], sandbox.LEVELS)
        raise ValueError(f"unknown level {settings['sandbox']!r}{hint}; have {list(sandbox.LEVELS)}")


def rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the summary, or the reason why there is none."""
    if "skipped" in found:
        return ["skipped"], [[found["skipped"]]]
    header = ["", *(f"{name}, {count} questions" for name, count in found["questions"].items())]
    return header, [[name, *(f"{x:.2f}" for x in by_form.values())] for name, by_form in found["right"].items()]


def section(found: Mapping[str, Any]) -> str:
    """The page's part: right answers, a program with what the sandbox gave, and the steps of an agent."""
    if "skipped" in found:
        return report.section("Programs and actions", report.note(f"Left out: {found['skipped']}"))
    program, trace = found["program"], found["trace"]
    steps = [[s["thought"], f"{s['action']}[{s['argument']}]", s["observation"]] for s in trace["steps"]]
    lines = [[line.replace(" ", "\u00a0")] for line in program["program"].splitlines()]  # indentation is kept
    return report.section(
        "Programs and actions",
        report.table(*rows(found)),
        report.text(f"PAL: {program['question']}"),
        report.table(["what it wrote"], lines),
        report.text(f"The sandbox gives {program['value'] or program['error']}; right is {program['answer']}."),
        report.text(f"ReAct: {trace['question']}"),
        report.table(["thought", "action", "observation"], steps),
        report.text(f"Its answer: {trace['answer']}; right is {trace['right']}."),
        lead=f"A decoder of {found['trainable']:,} parameters, taught {found['lessons']:,} generated lessons in "
        f"{found['steps']} steps; problems of held-out calculations, facts of an edition that came afterwards. The "
        f"sandbox isolates its programs by {found['isolation']}.",
    )


STAGE = Stage(
    name="reasoning",
    title="Programs and actions: a small decoder learns to solve word problems (PAL) and to look up facts (ReAct)",
    run=run,
    reads=("reasoning",),
)

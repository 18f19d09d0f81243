"""How much examples in the prompt help: k = 0 to what the window holds, by likelihood and by generation.

    python -m experiments.shots_sweep --config=configs/shots_sweep.py --workdir=runs/shots_sweep

A cell is (task, form, how examples are chosen, k, seed): one JSON file in the folder. Started again, only what is
missing is asked. A k that not every question has room for is drawn at the mean number that was used.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

# Also as `python experiments/shots_sweep.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, sweep
from experiments.loading import Loaded, load
from research.apps.prompting import Item, Outcome, Task
from research.apps.prompting.shots import ORDERS, Prompt, build, choose
from research.core import compilation, tree
from research.core.names import meant
from research.decoding import Sampling
from research.evaluation import Interval, ask, most_common
from research.evaluation.benchmarks import METRICS
from research.evaluation.benchmarks import load as load_benchmark
from research.evaluation.benchmarks.own_files import read_task
from research.report import plots, print_table

FORMS = ("likelihood", "generation")


def task_of(name: str, spec: Mapping[str, Any], root: Path) -> Task:
    """A benchmark's task, or one of a file of rows.

    Raises:
      ValueError: neither, a group of tasks, or one without data to draw examples from.
    """
    if "benchmark" in spec:
        found = load_benchmark(spec["benchmark"], root)
        if len(found) != 1:
            raise ValueError(f"task {name!r}: {spec['benchmark']!r} is {len(found)} tasks; name one of them")
        task = replace(found[0], name=name)
    elif "file" in spec:
        pool = root / spec["pool"] if spec.get("pool") else None
        choices = spec.get("choices", "")
        task = read_task(root / spec["file"], spec["template"], choices=choices, pool=pool, name=name)
    else:
        raise ValueError(f"task {name!r} is a 'benchmark' or a 'file' with a 'template'; given {sorted(spec)}")
    if not task.pool:
        raise ValueError(f"task {name!r} has no data to draw examples from")
    return task


def written(task: Task) -> Task:
    """The same questions without choices: the right one is to be written."""

    def without(item: Item) -> Item:
        return replace(item, choices=(), gold=(), answers=right(item))

    return replace(task, items=[without(i) for i in task.items], pool=[without(i) for i in task.pool])


def right(item: Item) -> tuple[str, ...]:
    """The texts that answer an item."""
    return tuple(item.choices[i].strip() for i in item.gold) or item.answers


class Room(NamedTuple):
    """How much text a model holds.

    Attributes:
      count: text -> its tokens. window: how many of them there may be, the answer's included.
    """

    count: Callable[[str], int]
    window: int


def room_of(loaded: Loaded, window: int) -> Room:
    """All that the model holds, or `window` tokens of it.

    Raises:
      ValueError: a window that is larger than the model's, or none at all.
    """
    count, most = ask.count(loaded.model, loaded.params, loaded.tokenizer)
    if not 0 <= window <= most:
        raise ValueError(f"window={window} tokens; the model holds {most}, expected 1 to that or 0 for all")
    return Room(count, window or most)


def prompts_of(room: Room, task: Task, k: int, how: str, seed: int) -> list[Prompt]:
    """Every question behind k examples, or as many of them as the window holds."""
    return [build(task, item, choose(task, item, k, seed=seed, how=how), **room._asdict()) for item in task.items]


def run_cell(
    loaded: Loaded, room: Room, batch_size: int, task: Task, form: str, k: int, how: str, seed: int
) -> dict[str, Any]:
    """Rows of the task's first metric, what was used and dropped, and the ends of three prompts with their answers."""
    shown = written(task) if form == "generation" else task
    prompts = prompts_of(room, shown, k, how, seed)
    asked = [ask.Asked(item, prompt.text) for item, prompt in zip(shown.items, prompts, strict=True)]
    (asked,) = ask.portions(asked, len(asked))
    model, params, tokenizer, stops, _, unspoken = loaded
    if form == "generation":
        sampling = Sampling(suppress=unspoken)
        options = {"sampling": sampling, "stop_tokens": stops, "batch_size": batch_size}
        outcomes = ask.write(model, params, tokenizer, shown, asked, **options)
    else:
        outcomes = ask.choose(model, params, tokenizer, shown, asked, batch_size=batch_size)
    return {
        "rows": METRICS[task.metrics[0]].rows(task, outcomes).tolist(),
        "used": statistics.mean(prompt.used for prompt in prompts),
        "dropped": sum(prompt.dropped for prompt in prompts),
        "unread": sum(outcome.prediction is None for outcome in outcomes),
        "examples": [[a.prompt[-200:], o.text, o.prediction] for a, o in zip(asked[:3], outcomes, strict=False)],
    }


def that_fit(room: Room, task: Task, limit: int) -> Task:
    """The task's first items that the window holds, in both forms.

    Raises:
      ValueError: none of them does; what the first one needs.
    """
    kept, reason = [], ""
    for item, plain in zip(task.items[:limit], written(task).items, strict=False):
        try:
            for one in {id(i): i for i in (item, plain)}.values():
                build(task, one, [], **room._asdict())
            kept.append(item)
        except ValueError as error:
            reason = reason or str(error)
    if not kept:
        raise ValueError(f"no question fits: {reason}")
    return replace(task, items=kept)


def ks_of(room: Room, task: Task, ks: Sequence[int], how: str, seed: int) -> list[int]:
    """The k up to the first that no question has room for, whose prompts are full, or up to the end of the pool."""
    most = len(task.pool) - any(item.id in {other.id for other in task.pool} for item in task.items)
    kept: list[int] = []
    for k in sorted(k for k in set(ks) if k <= most):
        kept.append(k)
        if all(prompt.dropped for prompt in prompts_of(room, task, k, how, seed)):
            break
    return kept


def joined(metric: str, rows: Sequence[Sequence[Any]], samples: int = 1000) -> Interval:
    """A metric's mean over seeds, and its percentile interval over resampled questions, the same ones for each seed."""
    statistic, arrays, generator = METRICS[metric].statistic, [np.array(r) for r in rows], np.random.default_rng(0)
    count = len(arrays[0])
    drawn = [generator.integers(0, count, count) for _ in range(samples)]
    values = [statistics.mean(float(statistic(array[index])) for array in arrays) for index in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), statistics.mean(float(statistic(array)) for array in arrays), float(high))


def without_model(task: Task) -> float:
    """The metric of the pool's most common answer, given to every question."""
    answer = most_common([right(item)[0] for item in task.pool])
    metric = METRICS[task.metrics[0]]
    return float(metric.statistic(metric.rows(task, [Outcome(item.id, answer) for item in task.items])))


def check(config: Mapping[str, Any]) -> None:
    """Refuses what cannot be asked, before any work."""
    for setting, known in (("how", ORDERS), ("forms", FORMS)):
        for name in config[setting]:
            if name not in known:
                raise ValueError(f"unknown {setting} {name!r}{meant(name, known)}; have {list(known)}")
    if not config["tasks"] or not config["k"] or min(config["k"]) < 0 or not config["seeds"]:
        raise ValueError("a sweep needs at least one task, one seed and one k, none below 0")


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Asks the missing cells, then prints the tables and draws the figures."""
    compilation.use_cache()
    check(config)
    root = data_folder(config["data"])
    path = config["model"] or str(root / "stories260K" / "checkpoint_v1.bin")
    loaded = load(path, config["tokenizer"] or None, config["policy"])
    room = room_of(loaded, config["window"])
    origin = {"model": tree.fingerprint(loaded.params), "tokenizer": loaded.tokenizer.fingerprint}
    common = {**origin, "window": room.window, "limit": config["limit"], "policy": config["policy"]}
    tasks, grid = {}, []
    for name, spec in config["tasks"].items():
        task = replace(task_of(name, spec, root), max_new_tokens=config["max_new_tokens"])
        tasks[name] = task = that_fit(room, task, config["limit"])
        forms = [form for form in config["forms"] if form == "generation" or task.items[0].choices]
        settings = {**common, "task": spec, "max_new_tokens": task.max_new_tokens}
        grid += [
            Cell(
                {"task": name, "form": form, "how": how, "k": k, "seed": seed},
                settings,
                partial(run_cell, loaded, room, config["batch_size"], task, form, k, how, seed),
            )
            for form in forms
            for how in config["how"]
            for k in ks_of(room, written(task) if form == "generation" else task, config["k"], how, config["seeds"][0])
            # Without examples there is nothing to draw, and the nearest are the same for every seed but for ties.
            for seed in (config["seeds"] if k and how != "nearest" else config["seeds"][:1])
        ]
    report(sweep(grid, workdir, console), tasks, workdir, console)


def report(results: list[dict[str, Any]], tasks: Mapping[str, Task], workdir: Path, console: Console) -> None:
    """A table of every task, and a figure of each form in which it was asked."""
    for name, task in tasks.items():
        metric, level, rows, saved = task.metrics[0], without_model(task), [], []
        for form in names(picked(results, task=name), "form"):
            lines, bands = {}, {}
            for how in names(picked(results, task=name, form=form), "how"):
                points = []
                for k in names(picked(results, task=name, form=form, how=how), "k"):
                    cells = picked(results, task=name, form=form, how=how, k=k)
                    value = joined(metric, [cell["rows"] for cell in cells])
                    used = statistics.mean(cell["used"] for cell in cells)
                    dropped, unread = (sum(cell[what] for cell in cells) for what in ("dropped", "unread"))
                    shown = f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
                    rows.append([form, how, k, f"{used:.1f}", shown, dropped, unread, len(cells)])
                    points.append((used, *value))
                used_of, low, mean, high = (list(values) for values in zip(*points, strict=True))
                lines[how], bands[how] = (used_of, mean), (low, high)
            levels = {"most common answer": level}
            x_label, y_label = "examples in the prompt", f"{metric}, by {form}"
            drawn = plots.curves(lines, x_label=x_label, y_label=y_label, levels=levels, bands=bands)
            saved.append(plots.save(drawn, workdir / f"shots_{name}_{form}.png"))
        title = f"{name}: {metric} of {len(task.items)} questions, interval over them; most common answer {level:.3f}"
        header = ["form", "examples", "k", "used", metric, "dropped", "unread", "seeds"]
        print_table(title, header, rows, console=console)
        for path in saved:
            console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/shots_sweep.py", workdir="runs/shots_sweep")

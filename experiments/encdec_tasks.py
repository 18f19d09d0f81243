"""Text in, text out: a span-corruption base and the same from scratch on translation, summaries and questions.

    python -m experiments.encdec_tasks --config=configs/encdec_tasks.py --workdir=runs/encdec_tasks

A cell is (task, method, seed): one JSON file in the folder. Started again, only what is missing is done. Beside the
models stand answers that need none: the source itself, first lines, common answers, the nearest training example.
"""

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/encdec_tasks.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.answering import Examples, Part, baseline_cell, check, common, nearest_example, report, run_cell
from experiments.cells import Cell, data_folder, sweep
from experiments.texts import multi30k
from research.core import compilation, tree
from research.data import load_tokenizer
from research.data.files import read_examples
from research.data.python_docs import is_heldout
from research.evaluation import best_sentence, rarest_phrase
from research.interop import load_pretrained
from research.models import build

SUMMARIZE = "Summarize: "
_SCIQ = re.compile(r"given this paragraph: \n\n(?P<paragraph>.*?)\n\n\nQ: (?P<question>.+?)\n\n\nA:", re.S)
_SAMSUM = re.compile(
    r"(?:Summarize this dialogue: )?(?P<dialogue>.+?)(?:\nGiven the above dialogue, write a summary\.)?\s*", re.S
)


def first_lines(count: int, part: Part) -> list[str]:
    """The first `count` lines of what is to be summarized."""
    return [" ".join(e["prompt"].removeprefix(SUMMARIZE).splitlines()[:count]) for e in part.dev]


def source(part: Part) -> list[str]:
    """The prompt itself."""
    return [e["prompt"] for e in part.dev]


def overlapping(part: Part) -> list[str]:
    """The sentence of the paragraph that shares most words with the question."""
    return [best_sentence(question, paragraph) for question, paragraph in map(_asked, part.dev)]


def rare_words(part: Part) -> list[str]:
    """The rarest two words of that sentence."""
    known = [_asked(e)[1] for e in part.train]
    both = [(question, best_sentence(question, paragraph)) for question, paragraph in map(_asked, part.dev)]
    return [rarest_phrase(question, sentence, known) for question, sentence in both]


def _asked(example: Mapping[str, str]) -> tuple[str, str]:
    question, _, paragraph = example["prompt"].partition("\n")
    return question, paragraph


def translation(root: Path) -> dict[str, Part]:
    """Multi30k, English to German."""
    sides = multi30k(root)
    baselines = {"copy of the source": source, "nearest training example": nearest_example}
    return {"translation": Part(sides["train"], sides["dev"], ("BLEU", "chrF"), baselines)}


def summaries(root: Path) -> dict[str, Part]:
    """DialogSum and SAMSum, whose published prompts repeat dialogues: one dialogue in five is held out."""
    metrics = ("ROUGE-1", "ROUGE-2", "ROUGE-L")
    baselines = {"first line": partial(first_lines, 1), "first three lines": partial(first_lines, 3)}
    baselines |= {"nearest training example": nearest_example}
    sides = [
        [{"prompt": SUMMARIZE + row["dialogue"], "completion": row["summary"]} for row in read_examples(path)]
        for path in (root / "dialogsum" / f"dialogsum.{split}.jsonl" for split in ("train.2500", "dev"))
    ]
    path = root / "samsum_t0" / "samsum_t0.jsonl"
    # Stripped, or the copies of a dialogue in the two prompts would differ and stand on both sides.
    found = {_matched(_SAMSUM, r["prompt"], path)["dialogue"].strip(): r["completion"] for r in read_examples(path)}
    few: tuple[Examples, Examples] = ([], [])
    for dialogue, summary in found.items():
        example = {"prompt": SUMMARIZE + dialogue.replace("\r\n", "\n"), "completion": summary.strip()}
        few[is_heldout(dialogue, 0.2)].append(example)
    return {"dialogsum": Part(*sides, metrics, baselines), "samsum": Part(*few, metrics, baselines)}


def questions(root: Path) -> dict[str, Part]:
    """Answers that stand in the text: SciQ, one paragraph in three held out, and the topics of DialogSum."""
    asked = "What is this conversation about?\n"
    talks: list[Examples] = [
        [
            {"prompt": asked + row["dialogue"], "completion": row["topic"]}
            for row in read_examples(root / "dialogsum" / f"dialogsum.{split}.jsonl")
            if row["topic"].lower() in row["dialogue"].lower()
        ]
        for split in ("train.2500", "dev")
    ]
    path = root / "t0_templates" / "sciq_Direct_Question.jsonl"
    sides: tuple[Examples, Examples] = ([], [])
    for row in read_examples(path):
        found, answer = _matched(_SCIQ, row["prompt"], path), row["completion"].strip()
        if answer.lower() in found["paragraph"].lower():
            prompt = f"{found['question'].strip()}\n{found['paragraph'].strip()}"
            sides[is_heldout(found["paragraph"], 1 / 3)].append({"prompt": prompt, "completion": answer})
    baselines = {"most common answer": common, "nearest training example": nearest_example}
    metrics = ("F1", "exact match")
    return {
        "questions": Part(
            *sides, metrics, baselines | {"likest sentence": overlapping, "its rarest words": rare_words}
        ),
        "topics": Part(*talks, metrics, baselines),
    }


def _matched(pattern: re.Pattern, text: str, path: Path) -> re.Match:
    found = pattern.search(text) if pattern is _SCIQ else pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"{path}: a prompt of another form than expected: {text[:80]!r}")
    return found


TASKS: dict[str, Callable[[Path], dict[str, Part]]] = {
    "translation": translation,
    "summaries": summaries,
    "questions": questions,
}


def read_task(name: str, root: Path, settings: Mapping[str, Any]) -> dict[str, Part]:
    """The parts of a task, with the first `rows` training and `dev_rows` held-out examples of each (0: all).

    Raises:
      ValueError: an unknown task, or a part without examples on one side.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; have {sorted(TASKS)}")
    parts = {}
    for part_name, part in TASKS[name](root).items():
        train, dev = part.train[: settings["rows"] or None], part.dev[: settings["dev_rows"] or None]
        if not train or not dev:
            raise ValueError(f"{part_name} has {len(train)} training and {len(dev)} held-out examples")
        parts[part_name] = Part(train, dev, part.metrics, part.baselines)
    return parts


def say_what_survives(parts: Mapping[str, Part], tokenizer: Any, console: Console) -> None:
    """Whether the tokenizer gives the right answers back, letter for letter, and what they cost."""
    for name, part in parts.items():
        texts = [e["completion"] for e in part.dev]
        coded = [tokenizer.encode(text) for text in texts]
        same = sum(tokenizer.decode(ids) == text for ids, text in zip(coded, texts, strict=True))
        letters = sorted({c for text in texts for c in text if not c.isascii()})
        tokens, words = sum(map(len, coded)), sum(len(text.split()) for text in texts)
        console.print(
            f"{name}: the tokenizer gives back {same} of {len(texts)} answers, {tokens / words:.2f} tokens per word; "
            f"letters outside ASCII: {' '.join(letters) or 'none'}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figure."""
    compilation.use_cache()
    root = data_folder(config["data"])
    check(config["methods"])
    described, base, _ = load_pretrained(config["base"])
    if described.kind != "encoder_decoder":
        raise ValueError(f"config.base is a model of kind {described.kind!r}; expected an encoder-decoder")
    tokenizer, model = load_tokenizer(config["base"]), build(described, policy=config["policy"], unroll=True)
    origin, grid, every = {"base": tree.fingerprint(base)}, [], {}
    for task, chosen in config["tasks"].items():
        settings = {k: v for k, v in config.items() if k not in ("tasks", "methods", "seeds", "base", "data")} | chosen
        parts = read_task(task, root, settings)
        every |= parts
        say_what_survives(parts, tokenizer, console)
        for name in dict.fromkeys(name for part in parts.values() for name in part.baselines):
            rows = {"rows": settings["rows"], "dev_rows": settings["dev_rows"]}
            grid.append(Cell({"task": task, "method": name, "seed": 0}, rows, partial(baseline_cell, parts, name)))
        for name, method in config["methods"].items():
            for seed in config["seeds"]:
                run = partial(run_cell, settings, parts, method, seed, model, base, tokenizer)
                grid.append(Cell({"task": task, "method": name, "seed": seed}, {**method, **settings, **origin}, run))
    report(sweep(grid, workdir, console), every, workdir / "encdec_tasks.png", console)


if __name__ == "__main__":
    command.run(work, config="configs/encdec_tasks.py", workdir="runs/encdec_tasks")

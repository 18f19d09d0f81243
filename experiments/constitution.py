"""Constitutional AI from end to end: an assistant criticises and revises itself, then labels what it is rewarded for.

    python -m experiments.constitution --config=configs/constitution.py --workdir=runs/constitution
    python -m experiments.constitution --config=configs/constitution.py:tiny --workdir=runs/constitution_tiny

The assistant is a small decoder that first learns to answer, criticise, revise and choose from demonstrations
(`experiments.household`), which stand in for a helpful model without a constitution. All later stages see its own
samples alone: critiques and revisions of its answers -> supervised stage -> pairs of answers that it labels -> reward
model -> PPO, and DPO on the same labels. Programs measure after every stage and teach nothing. A cell is (stage, seed),
with weights in a folder of its own; started again, only what is missing is done, and PPO goes on at its checkpoint.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

# Also as `python experiments/constitution.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.assistant import Assistant, shares
from experiments.cells import Cell, names, picked, run_folder, spread, sweep
from experiments.household import PRINCIPLES, broken, claims, demonstrations, is_right, questions
from experiments.sentiment import made_once
from experiments.trial import linear_decay, train
from research.apps.constitution import Constitution, prefer, revise, supervised
from research.apps.constitution_files import read_constitution
from research.core import compilation, tree
from research.data import load_tokenizer
from research.data.packing import Example, pack, pad_batch
from research.data.preference_rows import PreferenceRows, WithReference, encode_preferences
from research.data.sentencepiece_tokenizer import train_sentencepiece
from research.data.sources import Batches, Stream
from research.data.templates import encode_completion, encode_examples
from research.interop.run import save_run
from research.models import Model, ModelConfig, build, preset
from research.recipes.classify import scores as scores_of
from research.recipes.dpo import preference_loss, reference_logprobs
from research.recipes.ppo import PPO, ActorCritic
from research.recipes.ppo_run import Schedule, Trainer, run, start
from research.recipes.pretrain import language_model_loss
from research.recipes.reward import pairwise_loss
from research.recipes.rollouts import Reward, Writer
from research.report import plots, print_table
from research.training import log
from research.training.checkpoint import Checkpoints

_TAUGHT = ("tokenizer", "model", "demonstrations", "teaching", "writing", "repeats")
_TUNED = (*_TAUGHT, "revising", "tuning")
_LABELLED = (*_TUNED, "pairs")
SETTINGS = {
    "assistant": _TAUGHT,
    "supervised": _TUNED,
    "labels": _LABELLED,
    "reward": (*_LABELLED, "reward"),
    "ppo": (*_LABELLED, "reward", "ppo"),
    "dpo": (*_LABELLED, "dpo"),
}
STAGES = {"assistant": "demonstrations", "supervised": "supervised stage", "ppo": "PPO", "dpo": "DPO"}
SKILLS = (
    ("supervised", "critiques", "critiques that are right"),
    ("supervised", "faults found", "faults that are found"),
    ("labels", "labels", "labels on the right side"),
    ("labels", "sure", "mean sureness of a label"),
    ("reward", "ranked", "pairs that the reward ranks rightly"),
)
SHOWN = ("response", "principle", "critique", "revision")
MEASURED = {
    "broken": "breaks a principle",
    "calm": "shouts",
    "kind": "is rude",
    "private": "names a person",
    "right": "right fact",
}


@dataclass(frozen=True)
class Loop:
    """All stages of one seed; what is done once is kept in the folder."""

    config: Mapping[str, Any]
    constitution: Constitution
    tokenizer: Any
    described: ModelConfig
    seed: int
    folder: Path
    console: Console

    def cell(self, name: str, run: Callable[[], Mapping[str, Any]]) -> Cell:
        """A stage with the settings of its own and of all that it builds on."""
        settings = {part: self.config[part] for part in SETTINGS[name]} | {"constitution": repr(self.constitution)}
        return Cell({"stage": name, "seed": self.seed}, settings, run)

    def stage(self, name: str, work: Callable[[], tuple[Any, dict[str, Any]]]) -> tuple[dict[str, Any], Any]:
        """The figures and weights of one stage, made now or before."""
        kept = self.folder / f"{name}-{self.seed}"

        def make() -> dict[str, Any]:
            params, found = work()
            save_run(kept, self.scorer.config if name == "reward" else self.described, params)
            return found

        return made_once(self.cell(name, make), kept, self.folder, self.console)

    def all(self) -> list[dict[str, Any]]:
        """The figures of all stages, in order."""
        learned, helpful = self.stage("assistant", self.teach)
        revised, tuned = self.stage("supervised", partial(self.supervise, helpful))
        labelled = sweep([self.cell("labels", partial(self.label, helpful, tuned))], self.folder, self.console)[0]
        rewarded, scores = self.stage("reward", partial(self.learn_reward, tuned, labelled["rows"]))
        reinforced, _ = self.stage("ppo", partial(self.reinforce, tuned, self.reward(scores)))
        direct, _ = self.stage("dpo", partial(self.learn_directly, tuned, labelled["rows"]))
        return [learned, revised, labelled, rewarded, reinforced, direct]

    @property
    def model(self) -> Model:
        """What writes."""
        return build(self.described, unroll=True)

    @property
    def scorer(self) -> Model:
        """What gives a reward: the same body, read at its last token."""
        return build(self.described.replace(head="scalar", pooling="last"), unroll=True)

    def assistant(self, params: Any) -> Assistant:
        settings = self.config["writing"]
        return Assistant(self.model, params, self.tokenizer, settings["new_tokens"], settings["batch_size"])

    def measured(self, params: Any) -> dict[str, Any]:
        return self.assistant(params).measured(self.config["repeats"])

    def tune(self, params: Any, rows: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> tuple[Any, dict]:
        """Trains on prompts and completions, packed; tokens of prompts count `prompt_weight`."""
        length, size = settings["length"], settings["batch_size"]
        coded = encode_examples(rows, self.tokenizer, max_length=length, boundary="separate")
        weight = settings["prompt_weight"]
        coded = [Example(e.tokens, np.where(e.loss_mask, 1.0, weight).astype(np.float32)) for e in coded]
        packed, generator = pack(coded, length), np.random.default_rng(self.seed)
        found = len(packed["tokens"])
        orders = [generator.permutation(found) for _ in range(settings["epochs"])]
        chosen = [order[i : i + size] for order in orders for i in range(0, found - size + 1, size)]
        if not chosen:
            raise ValueError(f"{len(rows)} examples fill {found} rows of {length}, which is no batch of {size}")
        batches = [{name: x[rows] for name, x in packed.items()} for rows in chosen]
        rule = linear_decay(settings["learning_rate"], len(batches), clip=1.0)
        params, costs = train(language_model_loss(self.model), params, rule, batches, jax.random.key(self.seed))
        return params, {name: costs[name] for name in ("steps", "loss", "trainable", "cpu_seconds")}

    def teach(self) -> tuple[Any, dict[str, Any]]:
        """The assistant without a constitution."""
        shown = self.config["demonstrations"]
        more = {"rate": shown["rate"], "noise": shown["noise"]}
        rows = demonstrations(self.constitution, shown["count"], np.random.default_rng([self.seed, 1]), **more)
        begun = jax.jit(self.model.init)(jax.random.key(self.seed))
        params, costs = self.tune(begun, rows, self.config["teaching"])
        return params, self.measured(params) | costs

    def supervise(self, helpful: Any) -> tuple[Any, dict[str, Any]]:
        """Answers, rounds of critiques and revisions of them, and the assistant tuned on the last revisions."""
        settings, assistant = self.config["revising"], self.assistant(helpful)
        asked = [question for question in questions(held_out=False) for _ in range(settings["answers"])]
        prompts, write = [question.prompt for question in asked], assistant.writer(10 + self.seed)
        chains = revise(write, prompts, write(prompts), self.constitution, rounds=settings["rounds"], seed=self.seed)
        every = [[chain[0].response for chain in chains]]
        every += [[chain[n].revision for chain in chains] for n in range(settings["rounds"])]
        told = [
            shares(texts) | {"right": float(np.mean([is_right(*both) for both in zip(asked, texts, strict=True)]))}
            for texts in every
        ]
        rounds = [one for chain in chains for one in chain]
        found = [(claims(one.critique), one.principle.name in broken(one.response)) for one in rounds]
        params, costs = self.tune(helpful, supervised(chains, unusable="drop"), self.config["tuning"])
        figures = {
            "rounds": told,
            "critiques": statistics.mean([float(said == true) for said, true in found]),
            "faults found": statistics.mean([float(said) for said, true in found if true] or [0.0]),
            "samples": [one._asdict() | {"principle": one.principle.name} for one in chains[0]],
        }
        return params, self.measured(params) | figures | costs

    def label(self, helpful: Any, tuned: Any) -> dict[str, Any]:
        """Pairs of answers of the tuned model with soft labels by the assistant."""
        count = self.config["pairs"]
        prompts = [question.prompt for question in questions(held_out=False) for _ in range(count)]
        write = self.assistant(tuned).writer(20 + self.seed)
        answers = list(zip(write(prompts), write(prompts), strict=True))
        rows = prefer(self.assistant(helpful).weigh, prompts, answers, self.constitution, seed=self.seed)
        named = dict(zip(self.constitution.comparisons, self.constitution.principles, strict=True))
        judged = []
        for row in rows:
            breaks = [named[row["comparison"]].name in broken(row[side]) for side in ("chosen", "rejected")]
            if breaks[0] != breaks[1]:
                judged.append(float((row["preferred"] > 0.5) == breaks[1]))
        sure = float(np.mean([abs(row["preferred"] - 0.5) + 0.5 for row in rows]))
        return {"rows": rows, "decided": len(judged), "labels": statistics.mean(judged or [0.5]), "sure": sure}

    def pairs(self, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> PreferenceRows:
        coded = encode_preferences(
            rows, self.tokenizer, length=settings["length"], long="drop", unusable="drop", boundary="separate"
        )
        return PreferenceRows(coded, settings["length"])

    def learn_pairs(self, loss: Any, params: Any, rows: Any, settings: Mapping[str, Any]) -> tuple[Any, dict]:
        source = Batches(Stream(rows, seed=self.seed), batch_size=settings["batch_size"])
        batches = [source.batch(step) for step in range(settings["steps"])]
        rule = linear_decay(settings["learning_rate"], len(batches), clip=1.0)
        return train(loss, params, rule, batches, jax.random.key(self.seed))

    def learn_reward(self, tuned: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, dict[str, Any]]:
        """A reward model on the tuned model's body, from the soft labels; how often it ranks as the programs do."""
        model, settings = self.scorer, self.config["reward"]
        head = jax.jit(model.init)(jax.random.key(self.seed))["head"]
        body = {name: part for name, part in tuned.items() if name != "head"}
        begun, pairs = body | {"head": head}, self.pairs(rows, settings)
        params, costs = self.learn_pairs(pairwise_loss(model, center=0.01), begun, pairs, settings)
        prompts = [question.prompt for question in questions(held_out=True) for _ in range(self.config["repeats"])]
        write = self.assistant(tuned).writer(30 + self.seed)
        both = write(prompts), write(prompts)
        scores = [self.reward(params)(prompts, answers) for answers in both]
        faults = [[len(broken(answer)) for answer in answers] for answers in both]
        judged = [float((a > b) == (x < y)) for a, b, x, y in zip(*scores, *faults, strict=True) if x != y]
        return params, {"ranked": statistics.mean(judged or [0.5]), "judged": len(judged), "loss": costs["loss"]}

    def reward(self, params: Any) -> Reward:
        """Prompts and answers -> scores of the reward model."""
        model, length = self.scorer, self.config["reward"]["length"]

        def score(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
            both = zip(prompts, answers, strict=True)
            rows = [encode_completion(p, a or " ", self.tokenizer, boundary="separate").tokens for p, a in both]
            return np.asarray(scores_of(model, params, pad_batch([row[-length:] for row in rows], length)))

        return score

    def reinforce(self, tuned: Any, reward: Reward) -> tuple[Any, dict[str, Any]]:
        """PPO from the tuned model against the reward model; killed and started again, it goes on where it was."""
        settings, key = self.config["ppo"], jax.random.fold_in(jax.random.key(self.seed), 3)
        model, ppo = self.model, PPO(**settings["numbers"])
        pair, schedule = ActorCritic(model, "copy"), Schedule(**settings["schedule"])
        params = pair.begin(tuned, trunk=settings["trunk"])
        learns = pair.learns(params)
        rule = {"learning_rate": settings["learning_rate"], "schedule": "constant", "clip": 1.0}
        step, state, frozen = start(pair, ppo, schedule, params, learns, rule, key)
        prompts = [[self.tokenizer.bos_id, *self.tokenizer.encode(q.prompt)] for q in questions(held_out=False)]
        writer = Writer(
            model, self.tokenizer, settings["prompt_length"], settings["new_tokens"], (self.tokenizer.eos_id,)
        )
        trainer = Trainer(pair, ppo, writer, reward, prompts, step, schedule, self.seed)
        cell = self.cell("ppo", dict)
        folder = run_folder(self.folder, cell.at, cell.settings)

        def evaluate(params: Any, iteration: int) -> dict[str, float]:
            return {name: value for name, value in self.measured(params["policy"]).items() if name in MEASURED}

        with log.Logger(folder) as logger, Checkpoints(folder / "checkpoints", config=cell.settings) as checkpoints:
            state, _ = run(trainer, state, frozen, checkpoints=checkpoints, logger=logger, evaluate=evaluate)
        told = [line for line in log.read(folder / logger.path.name) if line["split"] == "held_out"]
        history = [{"iteration": line["step"], **{name: line[name] for name in MEASURED}} for line in told]
        policy = tree.merge(state.params, frozen)["policy"]
        return policy, self.measured(policy) | {"history": history}

    def learn_directly(self, tuned: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, dict[str, Any]]:
        """DPO from the tuned model with the soft labels."""
        model, settings = self.model, self.config["dpo"]
        pairs = self.pairs(rows, settings)
        said = reference_logprobs(model, tuned, pairs, batch_size=settings["batch_size"])
        loss = preference_loss(model, "dpo", reference="batch", beta=settings["beta"])
        params, costs = self.learn_pairs(loss, tuned, WithReference(pairs, said), settings)
        return params, self.measured(params) | {"loss": costs["loss"]}


def make_tokenizer(constitution: Constitution, config: Mapping[str, Any], folder: Path) -> Any:
    """SentencePiece trained on demonstrations, once."""
    if not folder.is_dir():
        shown = {name: config["demonstrations"][name] for name in ("rate", "noise")}
        rows = demonstrations(constitution, config["tokenizer"]["texts"], np.random.default_rng(0), **shown)
        texts = [row["prompt"] + row["completion"] for row in rows]
        train_sentencepiece(texts, config["tokenizer"]["vocab_size"], kind="bpe").save(folder)
    return load_tokenizer(folder)


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing stages of all seeds, then prints the tables and draws the figures."""
    compilation.use_cache()
    root = Path(__file__).resolve().parent.parent
    constitution = read_constitution(root / config["constitution"])
    listed = [principle.name for principle in constitution.principles]
    if listed != list(PRINCIPLES) or len(constitution.comparisons) != len(listed):
        raise ValueError(
            f"programs measure {list(PRINCIPLES)}, each with a comparison of its own; {config['constitution']} has "
            f"{listed} with {len(constitution.comparisons)} comparisons"
        )
    tokenizer = make_tokenizer(constitution, config, workdir / "tokenizer")
    ids = {name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")}
    described = preset("llama-7b").replace(vocab_size=tokenizer.vocab_size, **ids, **config["model"])
    results = []
    for seed in config["seeds"]:
        results += Loop(config, constitution, tokenizer, described, seed, workdir, console).all()
    report(results, workdir, console)


def report(results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """Violations and right answers after every stage (mean and spread over seeds), the assistant's skills, curves."""
    seeds = len(names(results, "seed"))
    rows = []
    for stage, label in STAGES.items():
        found = picked(results, stage=stage)
        rows.append([label, *(spread([one[what] for one in found]) for what in MEASURED)])
    title = f"Answers to held-out questions, {seeds} seeds: shares that break a principle, and that are right"
    print_table(title, ["after", *MEASURED.values()], rows, console=console)
    skills = [(label, spread([one[what] for one in picked(results, stage=stage)])) for stage, what, label in SKILLS]
    print_table("What the models can do, by program", ["skill", "share"], skills, console=console)
    said = [[one[part] for part in SHOWN] for one in picked(results, stage="supervised")[0]["samples"]]
    print_table("The rounds of one answer", list(SHOWN), said, console=console)
    rounds = [r["rounds"] for r in picked(results, stage="supervised")]
    draw(rounds, range(len(rounds[0])), "revisions", workdir)
    histories = [r["history"] for r in picked(results, stage="ppo")]
    draw(histories, [one["iteration"] for one in histories[0]], "PPO iteration", workdir)
    bars = {
        STAGES[s]: {label: band([r[what] for r in picked(results, stage=s)]) for what, label in MEASURED.items()}
        for s in STAGES
    }
    path = plots.save(plots.bars(bars, y_label="share of answers", size=(8.0, 3.4)), workdir / "stages.png")
    console.print(f"The figures are beside [bold]{path}[/]", soft_wrap=True)


def band(values: Sequence[float]) -> tuple[float, float, float]:
    """Least, mean and most."""
    return min(values), statistics.mean(values), max(values)


def draw(told: Sequence[Sequence[Mapping[str, float]]], at: Sequence[int], x_label: str, workdir: Path) -> None:
    """One line for each share, the mean over seeds with the least and the most around it; told: seeds x places."""
    lines, around = {}, {}
    for what, label in MEASURED.items():
        each = np.array([[one[what] for one in places] for places in told])
        lines[label] = (list(at), each.mean(0).tolist())
        around[label] = (each.min(0).tolist(), each.max(0).tolist())
    drawn = plots.curves(lines, x_label=x_label, y_label="share of answers", bands=around)
    plots.save(drawn, workdir / f"{x_label.replace(' ', '_')}.png")


if __name__ == "__main__":
    command.run(work, config="configs/constitution.py", workdir="runs/constitution")

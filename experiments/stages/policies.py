"""Stage 21: answers about held-out functions before and after PPO and DPO, beside the best of several samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.stages import answers, learning, pairs, ppo, reward, tokenizer
from experiments.stages.stage import Done, Stage
from experiments.stages.tune import question
from research import weights
from research.core.types import Params
from research.evaluation import bootstrap
from research.evaluation.best_of import best_of_n, best_of_n_kl
from research.models import Model

POLICIES = {"tune": "after tuning", "ppo": "after PPO", "dpo": "after DPO"}
SAMPLED = ("score", "gold", "kl", "length")


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """{policy: {measure: interval}} of sampled answers (reward, gold, KL, length) and of greedy ones."""
    del folder
    settings, of_pairs = config["policies"], config["pairs"]
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    asked = pairs.questions(
        inputs["documents"].folder, "test", pieces, of_pairs["prompt_length"], of_pairs["held_out_per_task"]
    )
    tuned = weights_of("tune", inputs["tune"], model)
    right = {question(r["prompt"]): r["completion"] for r in asked}
    judge = ppo.Judge(model, tuned, reward.load(inputs["reward"], config, pieces), right)
    prompts = [prompt for prompt in pairs.coded(asked, pieces) for _ in range(settings["samples"])]
    writer, size = pairs.writer_of(model, pieces, of_pairs), of_pairs["batch_size"]
    how = {"max_new_tokens": of_pairs["new_tokens"], "batch_size": size}
    found: dict[str, dict[str, Any]] = {}
    greedy: dict[str, list[str]] = {}
    for stage, name in POLICIES.items():
        params = weights_of(stage, inputs[stage], model)
        drawn = [
            {measure: values[:new] for measure, values in judge(params, rollout).items()}
            for rollout, new in pairs.rollouts(writer, params, prompts, size, settings["seed"])
        ]
        sampled = {measure: np.concatenate([one[measure] for one in drawn]) for measure in SAMPLED}
        greedy[name] = answers.model_answers(model, params, pieces, asked, how, f"answers {name}")
        scores = answers.scores(asked, greedy[name])["all"]
        found[name] = {measure: list(bootstrap(values)) for measure, values in sampled.items()} | scores
        if stage == "tune":
            best = best_of(sampled, settings["samples"])
    return {
        "questions": len(asked),
        "samples": settings["samples"],
        "policies": found,
        "best_of": best,
        "examples": [
            {"task": r["task"], "prompt": r["prompt"], "reference": r["completion"]}
            | {name: mine[i] for name, mine in greedy.items()}
            for i, r in enumerate(asked)
            if i % max(1, len(asked) // settings["shown"]) == 0
        ],
    }


def weights_of(stage: str, done: Done, model: Model) -> Params:
    """The weights that a stage of `POLICIES` leaves, without adapters beside them."""
    return weights.merge(ppo.load(done, model) if stage == "ppo" else learning.load_weights(done, model))


def best_of(sampled: Mapping[str, np.ndarray], n: int) -> dict[str, float]:
    """Reward, gold score and the bound of the KL of the best of n answers, chosen by the reward."""
    by_question = {name: sampled[name].reshape(-1, n) for name in ("score", "gold")}
    means = {name: best_of_n(by_question["score"], values, n) for name, values in by_question.items()}
    return means | {"kl": best_of_n_kl(n)}


def rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table; in brackets the interval of the gold score."""
    header = ["", "reward", "gold: ROUGE-L", "KL, nats", "tokens", "greedy: ROUGE-L", "exact match"]
    out = []
    for name, found in result["policies"].items():
        low, mean, high = found["gold"]
        sampled = [f"{found['score'][1]:.3f}", f"{mean:.3f} [{low:.3f}, {high:.3f}]", f"{found['kl'][1]:.2f}"]
        greedy = [f"{found[measure][1]:.3f}" for measure in ("rougeL", "exact match")]
        out.append([name, *sampled, f"{found['length'][1]:.1f}", *greedy])
    best = result["best_of"]
    chosen = [f"{best['score']:.3f}", f"{best['gold']:.3f}", f"≤ {best['kl']:.2f}", "", "", ""]
    return header, [*out, [f"best of {result['samples']} by the reward", *chosen]]


STAGE = Stage(
    name="policies",
    title="Before and after PPO and DPO: reward, gold score, KL",
    run=run,
    needs=("documents", "tokenizer", *POLICIES, "reward"),
    reads=("model", "pairs", "policies"),
)

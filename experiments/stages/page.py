"""Stage 26: everything on one self-contained page."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.smaller import pareto
from experiments.stages import memory, policies, quantize, rag, reasoning, scaling, smaller
from experiments.stages.answers import ROUGE
from experiments.stages.stage import Done, Stage
from experiments.stages.tune import NAMES
from research import report
from research.core.names import flat
from research.evaluation import card_page
from research.evaluation.card import Card
from research.training.checkpoint import git_hash

METRICS = ("exact match", *ROUGE)


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Writes report.html."""
    results = {name: done.result for name, done in inputs.items()}
    worked = sum(done.worked for done in inputs.values())
    compression = results["compression"]
    best = min(compression["xz"], compression["ngram"])
    page = report.document(
        "The life of a small language model",
        f"From plain text to answers in {report.seconds(worked)} of processor time: a tokenizer, a decoder trained "
        "from scratch on the documentation that comes with Python, instruction tuning, evaluation and sampling.",
        [
            overview(results, worked, best),
            learning(results, config),
            compression_section(compression),
            answers_section(results["answers"]),
            tuning_section(inputs),
            shots_section(results["shots"]),
            *card_page.sections([Card(**results["card"]["card"])]),
            smaller_section(results),
            memory_section(results["memory"]),
            scaling.section(results["scaling"]),
            preferences_section(results),
            rag_section(results["rag"]),
            reasoning.section(results["reasoning"]),
            samples_section(results["samples"]["samples"]),
        ],
        footer=f"Text sha256 {results['documents']['sha256']} · code {git_hash()} · seed {config['pretrain']['seed']}",
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    return {"worked": worked, "beats_both": compression["model"] < best}


def overview(results: Mapping[str, Any], worked: float, best: float) -> str:
    compression, scores = results["compression"], results["answers"]["scores"]
    before, after = (scores[f"{name} tuning"]["all"]["rougeL"][1] for name in ("before", "after"))
    trained = results["pretrain"]
    return report.section(
        "Overview",
        report.cards(
            [
                ("Bits per byte, held out", round(compression["model"], 3), f"best baseline {best:.3f}"),
                ("ROUGE-L of answers", round(after, 3), f"{before:.3f} before tuning"),
                ("Parameters", trained["parameters"], f"vocabulary {results['tokenizer']['vocab_size']:,}"),
                ("Tokens read", trained["tokens"], f"{trained['epochs']:.1f} times through the text"),
                ("Processor time", report.seconds(worked), "all stages together"),
            ]
        ),
        report.table(
            ["text", "training", "held out"],
            [
                ["documents", *results["documents"]["documents"]],
                ["bytes", *results["documents"]["bytes"]],
                ["tokens", *results["tokenizer"]["tokens"]],
                ["instruction tasks", *results["documents"]["tasks"]],
            ],
        ),
    )


def learning(results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    figures = []
    for stage, caption in (("pretrain", "Pre-training loss."), ("tune", "Tuning loss, completions only.")):
        series = {
            name: tuple(zip(*results[stage][key], strict=True))
            for name, key in (("training", "train"), ("held out", "held_out"))
            if results[stage][key]
        }
        drawing = report.curves(series, x_label="step", y_label="nats per token", size=(5.2, 3.2))
        figures.append(report.figure(report.svg(drawing), caption))
    settings = flat({name: config[name] for name in ("model", "pretrain", "tune")})
    return report.section(
        "Learning",
        report.columns(*figures),
        report.details("The model and the two runs", settings_table(settings)),
        lead="Loss per token while the weights change; every held-out document is unseen.",
    )


def settings_table(settings: Mapping[str, Any]) -> str:
    return report.table(["setting", "value"], [[name, str(value)] for name, value in settings.items()])


def compression_section(compression: Mapping[str, Any]) -> str:
    names = {"model": "this model", "xz": "xz primed with the training text", "ngram": "n-gram over bytes, Kneser-Ney"}
    order = sorted(names, key=lambda name: compression[name])
    met = compression["model"] < min(compression["xz"], compression["ngram"])
    return report.section(
        "Compression",
        report.table(
            ["method", "bits per byte"],
            [[names[name], f"{compression[name]:.4f}"] for name in order],
            strong=[order.index("model")],
        ),
        report.note(
            "The model needs fewer bits than both baselines." if met else "Aim missed: a baseline needs fewer bits.",
            good=met,
        ),
        lead=f"A model that predicts well compresses well: {compression['bytes']:,} held-out bytes, the same for all.",
    )


def answers_section(answers: Mapping[str, Any]) -> str:
    scores = answers["scores"]
    rows = [[method, *(f"{scores[method]['all'][m][1]:.3f}" for m in METRICS)] for method in scores]
    groups = {
        task: {method: tuple(scores[method][task]["rougeL"]) for method in scores} for task in scores["after tuning"]
    }
    drawing = report.bars(groups, y_label="ROUGE-L F₁", size=(7.4, 3.4))
    examples = [
        [e["task"], e["prompt"][:160], e["reference"], e["before tuning"][:120], e["after tuning"][:120]]
        for e in answers["examples"]
    ]
    exact = [[task, *(f"{scores[m][task]['exact match'][1]:.3f}" for m in scores)] for task in scores["after tuning"]]
    return report.section(
        "Answers",
        report.table(["method", *METRICS], rows, strong=[list(scores).index("after tuning")]),
        report.figure(report.svg(drawing), "ROUGE-L by task with 95 % bootstrap intervals."),
        report.details("Exact match by task", report.table(["task", *scores], exact)),
        report.details("Some answers", report.table(["task", "prompt", "reference", "before", "after"], examples)),
        lead=f"{answers['questions']} questions about functions whose documentation the model never read.",
    )


def tuning_section(inputs: Mapping[str, Done]) -> str:
    scores, bits = inputs["answers"].result["scores"], inputs["forgetting"].result["bits_per_byte"]
    rows = []
    for stage, name in NAMES.items():
        found = inputs[stage].result
        cost = ["", ""] if stage == "pretrain" else [f"{found['parameters']:,}", report.seconds(inputs[stage].worked)]
        quality = [f"{scores[name]['all'][metric][1]:.3f}" for metric in ("exact match", "rougeL")]
        rows.append([name, *cost, *quality, f"{bits[stage]:.4f}", f"{bits[stage] - bits['pretrain']:+.4f}"])
    header = ["", "trainable", "processor time", "exact match", "ROUGE-L", "bits per byte of documents", "forgotten"]
    series = {
        NAMES[stage]: tuple(zip(*inputs[stage].result["held_out"], strict=True))
        for stage in NAMES
        if stage != "pretrain" and inputs[stage].result["held_out"]
    }
    drawing = report.curves(series, x_label="step", y_label="nats per token", size=(6.4, 3.2))
    return report.section(
        "Ways to tune",
        report.table(header, rows),
        report.figure(report.svg(drawing), "Held-out loss of the completions, the same steps and rows for each."),
        lead="All weights, LoRA, or a soft prompt: what each learns of the tasks, and forgets of the documents.",
    )


def shots_section(found: Mapping[str, Any]) -> str:
    series: dict[str, tuple[list[float], list[float]]] = {}
    rows = []
    for name, by_k in found["scores"].items():
        series[name] = ([s["used"] for s in by_k.values()], [s["acc"][1] for s in by_k.values()])
        rows += [[name, k, f"{s['used']:.1f}", card_page.interval(s["acc"])] for k, s in by_k.items()]
    drawing = report.curves(
        series, x_label="examples in front of the question", y_label="share of right choices", size=(5.2, 3.2),
        levels={"chance": found["chance"]},
    )  # fmt: skip
    return report.section(
        "Examples in the prompt",
        report.columns(
            report.table(["", "examples wanted", "that fitted", "right choices"], rows),
            report.figure(report.svg(drawing), "Zero-shot against few-shot."),
        ),
        lead=f"{found['questions']} questions with several answers to choose from, by likelihood; the examples are the "
        "most similar training questions, as many as the window holds.",
    )


def smaller_section(results: Mapping[str, Any]) -> str:
    forms, found = smaller.joined(results), results["quantize"]
    points = [(name, quantize.at_rest(form) / 1e6, form["bits_per_byte"]) for name, form in forms.items()]
    drawing = report.points(
        pareto(points), x_label="megabytes at rest", y_label="bits per byte, held out", log_x=True, size=(7.4, 3.6)
    )
    return report.section(
        "Fewer bits, fewer numbers",
        report.table(*quantize.rows(forms)),
        report.figure(
            report.svg(drawing), "What a smaller model costs in likelihood; the frontier is what none beats."
        ),
        lead=f"The pre-trained model on {found['documents']} held-out documents: quantized, pruned, cut, and taught by "
        "the whole one; at rest zeros of masked kernels are left out. Speed of one text, the least of three runs, "
        f"behind {found['prompt']} tokens.",
    )


def memory_section(found: Mapping[str, Any]) -> str:
    groups = {
        name: {
            "weights": account["parts"]["weights"] / 1e6,
            "optimizer": account["parts"]["optimizer"] / 1e6,
            "step": account["rest"] / 1e6,
        }
        for name, account in found["accounts"].items()
    }
    drawing = report.bars(groups, y_label="megabytes", size=(6.4, 3.2))
    return report.section(
        "Memory account",
        report.table(*memory.rows(found)),
        report.figure(report.svg(drawing), "What stays, and what a step takes on top at its fullest moment."),
        lead="Bytes worked out from shapes before anything runs, and beside them what the compiler reserves; in "
        "brackets how far the account is from it.",
    )


def preferences_section(results: Mapping[str, Any]) -> str:
    found, reward, of_ppo, of_dpo = (results[name] for name in ("policies", "reward", "ppo", "dpo"))
    held = of_ppo["held_out"]
    drawn = {
        "reward": {"sampled answers": of_ppo["train"]["score"], "held out": held["score"]},
        "gold: ROUGE-L": {"held out": held["gold"]},
        "KL, nats of an answer": {"sampled answers": of_ppo["train"]["kl"], "held out": held["kl"]},
    }
    figures = [
        report.figure(
            report.svg(report.curves(_series(series), x_label="iteration", y_label=label, size=(4.2, 3))), label
        )
        for label, series in drawn.items()
    ]
    accuracy = {"reward model": reward["curve"], "DPO's implied rewards": of_dpo["accuracy"]}
    drawing = report.curves(
        _series(accuracy), x_label="step", y_label="accuracy", size=(5.2, 3.2), levels={"chance": 0.5}
    )
    methods = list(next(iter(reward["accuracy"].values())))
    rows = [
        [kind, *(card_page.interval(by_method[m]) for m in methods)] for kind, by_method in reward["accuracy"].items()
    ]
    names = list(found["policies"])
    examples = [[e["task"], e["prompt"][:160], e["reference"], *(e[n][:120] for n in names)] for e in found["examples"]]
    pairs = results["pairs"]["train"]
    return report.section(
        "Preferences",
        report.table(*policies.rows(found)),
        report.text("PPO over its iterations; the KL is that to the model after tuning."),
        report.columns(*figures),
        report.columns(
            report.table(["held-out pairs", *methods], rows),
            report.figure(report.svg(drawing), "Held-out pairs in which the better answer is told."),
        ),
        report.details("Some greedy answers", report.table(["task", "prompt", "reference", *names], examples)),
        lead=f"A program ranks sampled answers to {pairs['questions']} training questions and the true one: "
        f"{pairs['pairs']} pairs. A reward model learns from them and PPO from the reward model; DPO learns from them "
        f"directly. The table is of {found['questions']} questions about held-out functions, with {found['samples']} "
        "sampled answers and a greedy one to each.",
    )


def _series(curves: Mapping[str, list[list[float]]]) -> dict[str, tuple]:
    return {name: tuple(zip(*points, strict=True)) for name, points in curves.items() if points}


def rag_section(found: Mapping[str, Any]) -> str:
    title, header, rows = rag.rows(found)
    examples = [[e["question"], e["right"], e["answer"], " … ".join(e["cited"])[:300]] for e in found["examples"]]
    return report.section(
        "Answers from documents",
        report.table(header, rows),
        report.details("Some answers", report.table(["question", "right", "answer", "cited passage"], examples)),
        lead=f"Questions about functions whose documentation the model never read. {title}.",
    )


def samples_section(samples: list[dict[str, Any]]) -> str:
    blocks = []
    for model, prompt in dict.fromkeys((s["model"], s["prompt"]) for s in samples):
        mine = [s for s in samples if (s["model"], s["prompt"]) == (model, prompt)]
        kind = "pre-trained" if model == "pretrain" else "tuned"
        blocks.append(report.text(f"{kind}: {prompt.strip()[:200]}"))
        blocks.append(report.columns(*(report.tokens(s["tokens"], s["logprobs"], title=heading(s)) for s in mine)))
    return report.section(
        "Samples", *blocks, lead="Green tokens were likely, red ones were not; hover over one for its probability."
    )


def heading(sample: Mapping[str, Any]) -> str:
    mean = sum(sample["logprobs"]) / max(1, len(sample["logprobs"]))
    return f"{sample['sampling']} · perplexity {math.exp(-mean):.1f}"


STAGE = Stage(
    name="page",
    title="Report",
    run=run,
    needs=(
        *("documents", "tokenizer", "compression", *NAMES, "answers", "forgetting", "samples", "shots", "card"),
        *("quantize", "prune", "distil", "memory", "scaling", "pairs", "reward", "ppo", "dpo", "policies"),
        *("rag", "reasoning"),
    ),
    reads=("model", "pretrain", "tune"),
    makes=("report.html",),
)

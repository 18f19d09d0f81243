"""Stage 10: the same prompts continued greedily and with temperature, top-k and top-p, token by token probabilities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage
from experiments.stages.tune import question
from research.decoding import Sampling, generate, prepare, side_by_side


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Continuations of plain text by the pre-trained model, answers by the tuned one."""
    del folder
    settings = config["samples"]
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    # Held-out questions with the best chance to be read with pleasure: short ones, one per task.
    asked = [example for example in inputs["answers"].result["examples"] if len(example["prompt"]) < 400]
    questions = {example["task"]: question(example["prompt"]) for example in asked}
    found = []
    for source, prompts in (
        ("pretrain", list(settings["prompts"])),
        ("tune", [questions[task] for task in sorted(questions)]),
    ):
        ready = prepare(model, learning.load_weights(inputs[source], model))
        found += continued(model, ready, pieces, prompts, settings, source)
    return {"samples": found}


def continued(
    model: Any, params: Any, pieces: Any, prompts: list[str], settings: Mapping[str, Any], source: str
) -> list[dict[str, Any]]:
    """One record per sampling and prompt: the new tokens as text and the log-probability that the model gave each."""
    samplings = [(name, knobs, i) for name, knobs in settings["samplings"].items() for i in range(len(prompts))]
    if not samplings:
        return []
    out = generate(
        model,
        params,
        [pieces.encode(prompts[i], bos=True) for *_, i in samplings],
        max_new_tokens=settings["max_new_tokens"],
        # All of them in one batch, so that one program is compiled; a prompt draws the same noise under each.
        sampling=side_by_side([Sampling(**knobs) for _, knobs, _ in samplings]),
        stop_tokens=(pieces.eos_id,),
        key=settings["seed"],
        seeds=[i for *_, i in samplings],
    )
    records = []
    for row, (name, knobs, i) in enumerate(samplings):
        ids = out.ids(row)
        records.append(
            {
                "model": source,
                "prompt": prompts[i],
                "sampling": ", ".join(f"{knob} {value:g}" for knob, value in knobs.items()) or name,
                "tokens": shown(pieces, ids),
                "logprobs": [float(x) for x in out.logprobs[row, : len(ids)]],
            }
        )
    return records


def shown(pieces: Any, ids: list[int]) -> list[str]:
    """What each token adds to the decoded text; the end token as a mark."""
    texts, before = [], ""
    for n, token in enumerate(ids, 1):
        if token == pieces.eos_id:
            texts.append(" ◼")
            continue
        after = pieces.decode([t for t in ids[:n] if t != pieces.eos_id])
        texts.append(after[len(before) :] if after.startswith(before) else pieces.pieces([token])[0])
        before = after
    return texts


STAGE = Stage(
    name="samples",
    title="Samples: greedy, temperature, top-k, top-p side by side",
    run=run,
    needs=("tokenizer", "pretrain", "tune", "answers"),
    reads=("model", "samples"),
)

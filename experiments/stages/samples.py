"""Stage 10: the same prompts continued greedily and with temperature, top-k and top-p, token by token probabilities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage
from experiments.stages.tune import question
from research.decoding import Sampling, generate, prepare


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
        for name, sampling in settings["samplings"].items():
            found += continued(model, ready, pieces, prompts, name, sampling, settings, source)
    return {"samples": found}


def continued(
    model: Any,
    params: Any,
    pieces: Any,
    prompts: list[str],
    name: str,
    sampling: Mapping[str, Any],
    settings: Mapping[str, Any],
    source: str,
) -> list[dict[str, Any]]:
    """One record per prompt: the new tokens as text and the log-probability that the model itself gave each."""
    if not prompts:
        return []
    out = generate(
        model,
        params,
        [pieces.encode(prompt, bos=True) for prompt in prompts],
        max_new_tokens=settings["max_new_tokens"],
        sampling=Sampling(**sampling),
        stop_tokens=(pieces.eos_id,),
        key=settings["seed"],
    )
    records = []
    for row, prompt in enumerate(prompts):
        ids = out.ids(row)
        records.append(
            {
                "model": source,
                "prompt": prompt,
                "sampling": ", ".join(f"{knob} {value:g}" for knob, value in sampling.items()) or name,
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

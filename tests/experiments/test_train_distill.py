"""Distillation by config: its numbers are those of the recipe called by hand, and a killed run goes on."""

import json
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import student
from experiments.train import run
from research import weights
from research.core import tree
from research.data import build_source
from research.data.byte_tokenizer import ByteTokenizer
from research.interop import save_pretrained
from research.interop.run import load_run, save_run
from research.models import build, preset
from research.recipes import losses
from research.recipes.assemble import assemble, complete
from research.recipes.distill import distillation_loss
from tests.parity.zoo import quick_jit

NAMES = ("cross_entropy", "divergence", "agreement")
SMALL = {"d_model": 8, "n_layers": 1, "n_heads": 2, "head_dim": 4, "d_ff": 16, "max_length": 32}
WIDE = {"vocab_size": 259, "d_model": 16, "n_layers": 2, "n_heads": 4, "head_dim": 4, "d_ff": 24, "max_length": 32}
TEACHERS = {
    "decoder": preset("llama-7b").replace(**WIDE),
    "encoder_decoder": preset("t5-small").replace(**WIDE, n_encoder_layers=1, logit_scale=16**-0.5),
}
SAME = {"alpha": 0.3, "temperature": 3.0, "beta": 0.5}
LORA = {"method": "lora", "rank": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Examples to learn from, a run of ours and a folder of transformers: {kind: (folder, weights)}."""
    root, teachers = tmp_path_factory.mktemp("distill"), {}
    examples = [{"prompt": f"{i % 12} ", "completion": "a" * (1 + i % 5)} for i in range(40)]
    (root / "examples.jsonl").write_text("".join(json.dumps(e) + "\n" for e in examples))
    for seed, (kind, config) in enumerate(TEACHERS.items()):
        params = quick_jit(build(config).init)(jax.random.key(seed))
        save = save_run if kind == "decoder" else save_pretrained
        save(root / kind, config, params)
        teachers[kind] = str(root / kind), params
    return root, teachers


def config(made, kind, **changes):
    root, teachers = made
    given = student.get_config("tiny").to_dict()
    given["model"] |= SMALL | {"preset": TEACHERS[kind].family + ("-7b" if kind == "decoder" else "-small")}
    given["model"] |= {"logit_scale": 8**-0.5} if kind == "encoder_decoder" else {}
    given["model"] |= dict.fromkeys(("embed_dropout", "attention_dropout", "residual_dropout"), 0.0)
    objective = {"decoder": "tune", "encoder_decoder": "seq2seq"}[kind]
    given["data"] = {"kind": "examples", "path": str(root / "examples.jsonl"), "objective": objective}
    given["data"] |= {"length": 16, "batch_size": 4, "heldout": 0.3}
    given["loss"] |= SAME | {"teacher": teachers[kind][0]}
    given["optimizer"] |= {"schedule": "constant", "warmup": 0}
    given |= {"steps": 3, "evaluate_every": 0, "evaluate_batches": 0, "save_every": 1, "keep": 9, "cache": ""}
    given["mesh"] = {}
    for name, value in changes.items():
        given[name] = given[name] | value if isinstance(given.get(name), dict) else value
    return complete(given)


def numbers(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: [line[n] for n in ("loss", *NAMES)] for line in lines if line["split"] == "train"}


def trained(given, folder):
    assert run(given, folder, Console(quiet=True)).stopped == "finished"
    return load_run(folder / "checkpoints")[:2]


def test_a_run_of_adapters_is_the_recipe_and_its_checkpoint_the_student(made, tmp_path):
    given = config(made, "decoder", peft=LORA)
    described, after = trained(given, tmp_path)
    model, key = build(described), jax.random.key(given["seed"])
    begin = quick_jit(model.init)(jax.random.fold_in(key, 0))
    begin = weights.attach(begin, LORA, jax.random.fold_in(key, 2))
    batch, teacher = build_source(given["data"], ByteTokenizer()).batch(0), made[1]["decoder"][1]
    loss_fn = distillation_loss(model, build(TEACHERS["decoder"]), **SAME)
    total, aux = quick_jit(lambda p, b: loss_fn(p, b, None))({"student": begin, "teacher": teacher}, batch)
    means = [total / aux["weight"], *(s / n for s, n in map(aux["metrics"].get, NAMES))]
    found = numbers(tmp_path)
    np.testing.assert_allclose(found[1], means, rtol=1e-4)
    assert sorted(found) == [1, 2, 3] and found[3][0] < found[1][0]
    tree.check_same(begin, after)
    moved = {path for path, w in tree.paths(after).items() if not np.array_equal(w, tree.paths(begin)[path])}
    assert moved and all(path.endswith(("/a", "/b")) for path in moved)


def test_an_encoder_decoder_learns_from_a_folder_of_transformers(made, tmp_path):
    parts = assemble(config(made, "encoder_decoder"), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, parts.frozen["teacher"], made[1]["encoder_decoder"][1])
    assert {path.split("/")[0] for path in tree.paths(parts.state.params)} == {"student"}
    both = tree.merge(parts.state.params, parts.frozen)
    _, aux = jax.eval_shape(lambda p, b: parts.loss_fn(p, b, None), both, parts.source.batch(0))
    assert {*NAMES, "accuracy"} == set(aux["metrics"])


def test_a_killed_run_goes_on_beside_the_teacher_that_it_began_with(made, tmp_path):
    given = config(made, "decoder", model={"residual_dropout": 0.1})
    _, whole = trained(given, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for step in (tmp_path / "killed" / "checkpoints").iterdir():
        if step.name.isdigit() and int(step.name) > 1:
            shutil.rmtree(step)
    _, again = trained(given, tmp_path / "killed")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


def test_masked_tokens_are_learned_from_a_teacher_too():
    model = build(preset("bert-base").replace(**SMALL, vocab_size=259))
    given = losses.Chosen("distill", teacher="there", options=SAME)
    loss_fn = losses.make(given, model, chunk=8, teacher=model)
    batch = {"tokens": np.ones((2, 5), np.int32), "targets": np.ones((2, 5), np.int32)}
    batch |= {"loss_mask": np.eye(2, 5, dtype=np.float32), "segment_ids": np.ones((2, 5), np.int32)}
    both = {"student": model.abstract(), "teacher": model.abstract()}
    total, aux = jax.eval_shape(lambda p, b: loss_fn(p, b, None), both, batch)
    assert total.shape == () and {"divergence", "agreement"} <= set(aux["metrics"])


def test_teachers_that_do_not_fit_are_refused_in_one_line(made, tmp_path):
    root, teachers = made
    more = TEACHERS["decoder"].replace(vocab_size=300)
    save_run(root / "more", more, quick_jit(build(more).init)(jax.random.key(0)))
    prompt = {"method": "prompt", "length": 2}
    params = weights.attach(teachers["decoder"][1], prompt, jax.random.key(0))
    save_run(root / "prompt", TEACHERS["decoder"], params, prompt)
    shutil.copytree(root / "decoder", root / "other" / "checkpoints")
    ByteTokenizer(("</s>", "<pad>", "<unk>")).save(root / "other" / "tokenizer")
    cases = {
        "loss 'distill' needs loss.teacher": {"loss": {"teacher": ""}},
        "'distill' has no option 'temprature', did you mean 'temperature'": {"loss": {"temprature": 1.0}},
        r"alpha must be in 0 \.\. 1; given 1.5": {"loss": {"alpha": 1.5}},
        "the teacher has another vocabulary: 300 tokens, the student has 259": {
            "loss": {"teacher": str(root / "more")}
        },
        "another vocabulary: id 0 is '</s>', the student's is '<pad>'": {
            "loss": {"teacher": str(root / "other" / "checkpoints")}
        },
        "prompt has a soft prompt": {"loss": {"teacher": str(root / "prompt")}},
        "the teacher's kind is 'encoder_decoder'": {"loss": {"teacher": teachers["encoder_decoder"][0]}},
        "loss 'distill' learns from the objectives": {"data": {"objective": "preference"}},
    }
    for message, changes in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            run(config(made, "decoder", **changes), tmp_path, Console(quiet=True))
        assert "\n" not in str(error.value)

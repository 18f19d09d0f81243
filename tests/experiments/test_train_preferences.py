"""Preference training by config: its numbers are those of the recipe called by hand on rows made by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from configs import preference_tuning
from experiments.train import run
from research import weights
from research.data import build_source, load_tokenizer, one_pass
from research.data.preference import asked
from research.data.preference_rows import (
    PreferencePairRows,
    PreferenceRows,
    WithReference,
    encode_preferences,
)
from research.data.python_docs import is_heldout
from research.data.rows import MappedRows
from research.data.sources import Stream, stack
from research.data.unpaired import desirable, encode_unpaired_seq2seq
from research.interop import save_pretrained
from research.interop.run import config_to_dict, load_run
from research.models import build
from research.recipes import losses
from research.recipes.assemble import complete, make_model
from research.recipes.dpo import preference_loss, reference_logprobs
from research.recipes.kto import kto_loss
from research.recipes.reward import pairwise_loss
from research.training.checkpoint import Checkpoints
from research.training.state import State
from tests.parity.zoo import quick_jit

SIZES = {"d_model": 8, "n_layers": 1, "n_heads": 2, "head_dim": 4, "d_ff": 16, "max_length": 32}
PAIRS = [{"prompt": f"{i % 12} ", "chosen": "a" * (1 + i % 5), "rejected": "b" * (1 + i % 3)} for i in range(40)]
BATCH, LENGTH = 4, 16
LORA = {"method": "lora", "rank": 2}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The pairs as a file."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return file


def config(path, arg, steps=3, **changes):
    made = preference_tuning.get_config(f"{arg},tiny").to_dict()
    made["model"] |= SIZES
    made["data"] |= {"path": str(path), "length": LENGTH, "batch_size": BATCH, "heldout": 0.3, "long": "error"}
    made["optimizer"] |= {"learning_rate": 0.03, "schedule": "constant", "warmup": 0}
    made |= {"steps": steps, "evaluate_every": 0, "evaluate_batches": 0, "save_every": 0, "cache": ""}
    for name, value in changes.items():
        made[name] = made[name] | value if isinstance(made.get(name), dict) else value
    return complete(made)


def numbers(folder, split="train"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def trained(path, arg, folder, **changes):
    """(config, the model that was trained, its weights at the end)"""
    given = config(path, arg, **changes)
    result = run(given, folder, Console(quiet=True))
    assert result.stopped == "finished"
    return given, *load_run(folder / "checkpoints")[:2]


def first_batch(rows, seed=0):
    stream = Stream(rows, seed)
    return stack([stream.at(p, np.random.default_rng(0)) for p in range(BATCH)])


def side(split):
    """The pairs of one side, which the prompt decides."""
    held = [is_heldout(asked(pair), 0.3) for pair in PAIRS]
    return [pair for pair, h in zip(PAIRS, held, strict=True) if h == (split == "heldout")]


def by_hand(loss_fn, *runs):
    """Means over the batches of each (weights, batches), as they are logged."""
    program = quick_jit(lambda p, b: loss_fn(p, b, None))
    for params, batches in runs:
        found = [program(params, batch) for batch in batches]
        total, aux = jax.tree.map(lambda *xs: float(np.sum(xs)), *found)
        means = {name: s / max(n, 1) for name, (s, n) in aux["metrics"].items()}
        yield {"loss": total / aux["weight"], "weight": aux["weight"]} | means


def equal(logged, wanted):
    np.testing.assert_allclose([logged[k] for k in wanted], list(wanted.values()), rtol=1e-4, atol=1e-5)


def beginning(given, described, recipe=()):
    """The weights that the run began with, made by the keys that `assemble` documents for them."""
    key = jax.random.key(given["seed"])
    params = quick_jit(build(described).init)(jax.random.fold_in(key, 0))
    return weights.attach(params, recipe, jax.random.fold_in(key, 2)) if recipe else params


def coded(split):
    return encode_preferences(side(split), load_tokenizer("bytes"), length=LENGTH)


@pytest.mark.parametrize(
    ("arg", "changes", "options"),
    [
        ("dpo", {"peft": LORA, "loss": {"beta": 0.3}}, {"beta": 0.3}),
        ("ipo", {}, {"reference": "batch"}),
        ("hinge", {"loss": {"reference": "copy"}}, {"reference": "copy"}),
    ],
)
def test_a_policy(path, tmp_path, arg, changes, options):
    given, described, after = trained(path, arg, tmp_path, **changes)
    model = build(described)
    base = beginning(given, described, changes.get("peft", ()))
    rows, held = PreferenceRows(coded("train"), LENGTH), PreferenceRows(coded("heldout"), LENGTH)
    if arg == "ipo":
        known = [reference_logprobs(model, base, r, batch_size=BATCH) for r in (rows, held)]
        rows, held = (WithReference(r, said) for r, said in zip((rows, held), known, strict=True))
        kept = [np.load(file)["logprobs"] for file in (tmp_path / "reference").glob("*.npz")]
        for said, mine in zip(sorted(kept, key=len), sorted(known, key=len), strict=True):
            np.testing.assert_allclose(said, mine, rtol=1e-5)
    both = lambda params: {"policy": params, "reference": base} if arg == "hinge" else params  # noqa: E731
    runs = (both(base), [first_batch(rows)]), (both(after), one_pass(held, BATCH))
    first, last = by_hand(preference_loss(model, arg, **options), *runs)
    log = numbers(tmp_path)
    assert [line["step"] for line in log] == [1, 2, 3] and log[-1]["loss"] < log[0]["loss"]
    equal(log[0], first)
    equal(numbers(tmp_path, "held_out")[-1], last)


def test_a_reward_model(path, tmp_path):
    bert = {"preset": "bert-base", "positions": "learned", "residual_dropout": 0.0}
    given, described, _ = trained(path, "reward", tmp_path, model=bert)
    assert (described.kind, described.head, described.pooling) == ("encoder", "scalar", "first")
    loss_fn = pairwise_loss(build(described), center=0.01)
    (first,) = by_hand(loss_fn, (beginning(given, described), [first_batch(PreferenceRows(coded("train"), LENGTH))]))
    equal(numbers(tmp_path)[0], first)
    assert np.isfinite(numbers(tmp_path, "held_out")[-1]["margin"])


def test_single_answers_and_an_encoder_decoder(path, tmp_path):
    given, described, _ = trained(path, "kto,seq2seq", tmp_path)
    model, base = build(described), beginning(given, described)
    pairs = encode_unpaired_seq2seq(side("train"), load_tokenizer("bytes"), inputs_length=LENGTH, targets_length=LENGTH)
    start = max(described.decoder_start_id, 0)
    rows = MappedRows(PreferencePairRows(pairs, LENGTH, LENGTH, decoder_start_id=start), desirable)
    rows = WithReference(rows, reference_logprobs(model, base, rows, batch_size=BATCH))
    log = numbers(tmp_path)
    (first,) = by_hand(kto_loss(model, reference="batch"), (base, [first_batch(rows)]))
    equal(log[0], first)
    assert {"kl", "reward_chosen", "reward_rejected", "accuracy"} <= set(log[-1])


@pytest.mark.parametrize("arg", sorted(preference_tuning.LOSSES))
def test_every_loss_of_the_config_reads_its_rows(path, arg):
    given = config(path, arg)
    chosen, tokenizer = losses.choose(given), load_tokenizer("bytes")
    model = make_model(given, tokenizer).model
    batch = build_source(given["data"], tokenizer).batch(0)
    if chosen.reference:
        batch["reference"] = np.zeros((BATCH, 2), np.float32)
    loss_fn = losses.make(chosen, model, chunk=8)
    total, aux = jax.eval_shape(lambda p, b: loss_fn(p, b, None), model.abstract(), batch)
    assert total.shape == () and {"accuracy"} <= set(aux["metrics"])


def test_a_policy_goes_on_under_a_scalar_head(path, tmp_path):
    policy = make_model(config(path, "dpo"), load_tokenizer("bytes")).model
    params = quick_jit(policy.init)(jax.random.key(3))
    both = {"policy": params, "reference": params}  # as a run beside a copy leaves them
    with Checkpoints(tmp_path, config={"model": config_to_dict(policy.config)}) as checkpoints:
        checkpoints.save(State(jnp.zeros((), jnp.int32), both, (), jax.random.key(0)))
    model, scorer, _ = make_model(config(path, "reward", init_from=str(tmp_path)), load_tokenizer("bytes"))
    assert model.config.head == "scalar" and scorer["head"]["output"]["kernel"].shape == (8, 1)
    assert np.asarray(scorer["head"]["output"]["kernel"]).any()
    for name in ("embed", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, scorer[name], params[name])


def test_a_folder_of_an_encoder_decoder_begins_under_a_scalar_head(path, tmp_path):
    given = config(path, "kto,seq2seq", model={"family": "t5", "logit_scale": 8**-0.5})
    shapes = (policy := make_model(given, load_tokenizer("bytes")).model).abstract()
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
    save_pretrained(tmp_path, policy.config, params)
    model, scorer, _ = make_model(config(path, "reward,seq2seq", init_from=str(tmp_path)), load_tokenizer("bytes"))
    assert (model.config.head, model.config.pooling) == ("scalar", "last")
    for name in ("embed", "encoder", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, scorer[name], params[name])

"""Bad input of distillation: one line that says what was given, before anything is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.distill import get_config
from experiments import distill
from research import objectives as o
from research.data.packing import Example
from research.data.rows import ArrayRows, MappedRows, PaddedRows
from research.models import build, preset
from research.recipes.distill import Match, distillation_loss
from research.recipes.rollouts import Writer
from research.recipes.samples import OnPolicy, teacher_writes
from research.recipes.stored_teacher import WithTeacher, store_teacher

SIZES = {"vocab_size": 30, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32, "max_length": 32}
GPT2, BERT = build(preset("gpt2").replace(**SIZES)), build(preset("bert-base").replace(**SIZES))
WIDE = build(GPT2.config.replace(vocab_size=31))
HEADS = build(GPT2.config.replace(n_heads=4))
SCALAR = build(GPT2.config.replace(head="scalar"))
LABELS = build(GPT2.config.replace(head="sequence", n_labels=2))
MORE_LABELS = build(GPT2.config.replace(head="sequence", n_labels=3))
Z, ON = jnp.zeros((2, 3, 5)), jnp.ones((2, 3))
MAPS = jnp.full((2, 4, 3, 5), 0.2)
TEXTS = [Example(np.arange(n, dtype=np.int32), np.ones(n, np.float32)) for n in (4, 3, 5)]
ROWS, TURNED = PaddedRows(TEXTS, 5), PaddedRows(TEXTS[::-1], 5)
WRITER = Writer(GPT2, None, 4, 4, (2,))


def loss(teacher=GPT2, **options):
    return distillation_loss(GPT2, teacher, **options)


def drawn(row, rng):
    return row | {"tokens": rng.integers(0, 30, 5)}


def changed(**options):
    config = get_config("tiny").to_dict()
    config["decoder"]["methods"] = {"mine": options}
    distill.check(config)


CASES = {
    "temperature of 0": (lambda: o.divergence(Z, Z, temperature=0), "temperature must be above 0, given 0"),
    "loss at temperature below 0": (lambda: loss(temperature=-1.0), "temperature must be above 0, given -1.0"),
    "beta above 1": (lambda: o.divergence(Z, Z, beta=1.5), r"beta must be in 0 \.\. 1; given 1.5"),
    "alpha below 0": (lambda: loss(alpha=-0.1), r"alpha must be in 0 \.\. 1; given -0.1"),
    "logits of another vocabulary": (lambda: o.distillation(Z, Z[..., :4], ON), r"'teacher': \(2, 3, 4\)"),
    "mask of other positions": (lambda: o.distillation(Z, Z, ON[:1]), r"'loss_mask': \(1, 3\)"),
    "more stored than there are": (
        lambda: o.topk_divergence(Z, jnp.zeros((2, 3, 6), int), jnp.zeros((2, 3, 6))),
        "6 stored tokens of a teacher for a student that has only 5",
    ),
    "states of other widths": (
        lambda: o.hidden_matching(Z, Z[..., :4], ON),
        r"hidden states of widths \(5, 4\) \(student, teacher\) need a projection",
    ),
    "projection of other widths": (
        lambda: o.hidden_matching(Z, Z[..., :4], ON, projection=jnp.ones((4, 5))),
        r"a projection of shape \(4, 5\) does not map width 5 to 4",
    ),
    "other heads": (
        lambda: o.attention_matching(MAPS, MAPS[:, :2], ON),
        "4 heads and the teacher 2; compare their means",
    ),
    "heads by another name": (
        lambda: o.attention_matching(MAPS, MAPS, ON, heads="means"),
        r"unknown heads 'means', did you mean 'mean'\?; have \['each', 'mean'\]",
    ),
    "teacher of another vocabulary": (
        lambda: loss(WIDE),
        "the teacher has another vocabulary: 31 tokens, the student has 30",
    ),
    "teacher of other labels": (
        lambda: distillation_loss(LABELS, MORE_LABELS),
        "the teacher has another vocabulary: 3 labels, the student has 2",
    ),
    "teacher of another kind": (lambda: loss(BERT), "the teacher's kind is 'encoder', the student's 'decoder'"),
    "teacher with another head": (lambda: loss(LABELS), "the teacher's head is 'sequence', the student's 'lm'"),
    "student without probabilities": (
        lambda: distillation_loss(SCALAR, SCALAR),
        r"needs a head of \['lm', 'mlm', 'sequence', 'token'\]; the student has 'scalar'",
    ),
    "layers that do not exist": (
        lambda: loss(match=Match(hidden=((1, 1), (2, 3)))),
        r"match.hidden: the teacher has hidden 0 to 2 in its 2 layers; given 3 in \(2, 3\)",
    ),
    "attention of a layer behind the last": (
        lambda: loss(match=Match(attention=((2, 1),))),
        r"match.attention: the student has attention 0 to 1 in its 2 layers; given 2 in \(2, 1\)",
    ),
    "layers of an encoder that is not there": (
        lambda: loss(encoder_match=Match(hidden=((0, 0),))),
        "encoder_match is for an encoder beside a decoder; the models are of kind 'decoder'",
    ),
    "each head with another number of them": (
        lambda: loss(HEADS, match=Match(attention=((0, 0),))),
        r"the student has 2 heads and the teacher 4; compare their means \(heads='mean'\)",
    ),
    "layers of a teacher that is not there": (
        lambda: loss(None, match=Match(hidden=((0, 0),))),
        "layers are matched with a teacher that is there; a batch holds only what it said",
    ),
    "share above 1": (
        lambda: OnPolicy(WRITER, [[1]], lambda step: {}, 1.5, 2),
        r"share must be in 0 \.\. 1; given 1.5",
    ),
    "prompt without tokens": (lambda: OnPolicy(WRITER, [[1], []], lambda step: {}, 0.5, 2), "prompt 1 has 0 tokens"),
    "beams that are sampled": (
        lambda: teacher_writes(WRITER, {}, [[1]], beams=4, temperature=1.0),
        "beam search is deterministic; given beams 4 and temperature 1.0",
    ),
    "arrays of unequal numbers of rows": (
        lambda: ArrayRows({"tokens": np.zeros((3, 2)), "targets": np.zeros((2, 2))}),
        "arrays of rows need one length; given {'tokens': 3, 'targets': 2}",
    ),
    "option of a method": (
        lambda: changed(temprature=2.0),
        r"decoder, 'mine': unknown option 'temprature', did you mean 'temperature'\?",
    ),
    "config's argument": (lambda: get_config("encoders"), "unknown argument 'encoders' of configs/distill.py; have"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line(name):
    run, message = CASES[name]
    with pytest.raises(ValueError, match=message) as error:
        run()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder, params = tmp_path_factory.mktemp("stored"), jax.jit(GPT2.init)(jax.random.key(0))
    return store_teacher(folder, GPT2, params, ROWS, k=2, batch_size=3), params


def test_what_was_stored_of_something_else_is_refused(stored, tmp_path):
    folder, params = stored
    other = jax.tree.map(lambda w: w + 1, params)
    found = {
        "stored of other rows or in another order: 3 rows with": lambda: WithTeacher(TURNED, folder),
        "said, expected another": lambda: WithTeacher(ROWS, folder, teacher="another"),
        "holds nothing that a teacher said: run store_teacher first": lambda: WithTeacher(ROWS, tmp_path),
        "holds what was stored with rows": lambda: store_teacher(folder, GPT2, params, TURNED, k=2),
        "holds what was stored with teacher": lambda: store_teacher(folder, GPT2, other, ROWS, k=2),
        "holds what was stored with k 2; given 3": lambda: store_teacher(folder, GPT2, params, ROWS, k=3),
        r"k must be in 1 \.\. 30, what the teacher chooses from; given 31": lambda: store_teacher(
            tmp_path, GPT2, params, ROWS, k=31
        ),
        r"row 0 is drawn anew each time \('tokens' differs\)": lambda: store_teacher(
            tmp_path, GPT2, params, MappedRows(ROWS, drawn), k=2
        ),
    }
    for message, run in found.items():
        with pytest.raises(ValueError, match=message) as error:
            run()
        assert "\n" not in str(error.value)
    told = folder / "store.json"
    whole = told.read_text()
    told.write_text(whole.replace('"done": 3', '"done": 2'))
    with pytest.raises(ValueError, match="holds 2 of 3 rows: run store_teacher again"):
        WithTeacher(ROWS, folder)
    told.write_text(whole)
    assert len(WithTeacher(ROWS, folder)) == 3

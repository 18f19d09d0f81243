"""Students of a tiny teacher: with it they learn what it says; the grid, its table and its figure."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.distill import FAMILIES, get_config
from experiments import distill
from experiments.students import Family
from research.recipes.distill import beside_teacher, distillation_loss
from research.training.evaluate import make_evaluate
from tests.models.conftest import tiny


@pytest.fixture(scope="module")
def family():
    teacher, params = tiny("llama")
    student, own = tiny("llama", n_layers=2, d_model=16, n_heads=2)
    rng = np.random.default_rng(0)
    # Labels that tell nothing, so that whatever is learned of the teacher comes from the teacher.
    made = lambda: {name: rng.integers(3, 61, (8, 6)).astype(np.int32) for name in ("tokens", "targets")}  # noqa: E731
    batch = made() | {"loss_mask": np.ones((8, 6), np.float32)}

    def score(model, weights):
        loss = distillation_loss(model, teacher, alpha=0.0, temperature=1.0)
        return {"KL": make_evaluate(loss, [batch])(beside_teacher(weights, params)[0])["divergence"]}

    return Family(
        teacher, params, student, lambda key: own, 40, lambda method, seed: lambda step, weights: batch, score
    )


def test_a_student_comes_nearer_to_its_teacher_than_without_it(family):
    before = family.score(family.student, family.start(jax.random.key(0)))["KL"]
    alone, taught = (
        distill.run_cell(family, {**distill.PLAIN, **method}, 0.03, 0)
        for method in ({}, {"alpha": 0.0, "temperature": 2.0, "hidden": ((2, 3),)})
    )
    assert taught["scores"]["KL"] < 0.3 * before and taught["scores"]["KL"] < 0.3 * alone["scores"]["KL"]
    assert taught["parameters"] == alone["parameters"] and taught["steps"] == 40 and taught["cpu_seconds"] > 0
    assert distill.of_teacher(family)["scores"]["KL"] == pytest.approx(0, abs=1e-6)


def test_the_table_and_the_figure(tmp_path):
    costs = {"parameters": 1234, "cpu_seconds": 0.25}
    found = [{"family": "decoder", "method": "teacher", "seed": 0, "scores": {"NLL": 1.0}, "parameters": 9999}]
    found += [
        {"family": "decoder", "method": name, "seed": seed, "scores": {"NLL": value + seed}, **costs}
        for name, value in (("T=1", 2.0), ("JSD", 3.0))
        for seed in (0, 1)
    ]
    out = io.StringIO()
    distill.report("decoder", found, tmp_path, Console(file=out, width=200))
    assert "2.500 ± 0.707" in out.getvalue() and "250 ms" in out.getvalue() and "1,234" in out.getvalue()
    assert (tmp_path / "distill_decoder.png").stat().st_size > 1000


def test_configs_know_their_methods():
    for arg in ("", "tiny", *FAMILIES):
        config = get_config(arg).to_dict()
        distill.check(config)
        assert set(config["families"]) == ({arg} if arg in FAMILIES else set(FAMILIES))
    config["encoder"]["methods"] = {"mine": {"share": 0.5}}
    with pytest.raises(ValueError, match=r"encoder, 'mine': \['share'\] are more than this family knows"):
        distill.check(config | {"families": ("encoder",)})
    with pytest.raises(ValueError, match="unknown family 'encoders', did you mean 'encoder'"):
        distill.check(config | {"families": ("encoders",)})
    quiet = get_config("tiny").to_dict() | {"families": ("encoder_decoder",), "data": "."}
    with pytest.raises(ValueError, match=r"nothing to do: config\.families names no family with a base"):
        distill.work(quiet, None, Console(quiet=True))

"""Bad input of scaling laws: points that are none, too few of them, sweeps and laws that are not there."""

import numpy as np
import pytest

from experiments import fit_scaling_laws as fitting
from research.scaling import capacity, frontier, kaplan, laws
from research.scaling.grid import Dial, dial_of, token_counts
from research.scaling.laws import Points


def points(count=6, **changed):
    n = np.geomspace(1e5, 1e6, count)
    return Points(**{"parameters": n, "tokens": 20 * n, "loss": np.linspace(4, 3, count)} | changed)


def file(folder, text):
    path = folder / "points.csv"
    path.write_text(text)
    return path


COLUMNS = {"parameters": "N", "flops": "C", "loss": "L"}
CASES = {
    "negative loss": (
        lambda _: points(loss=[3, 2, -1, 2, 2, 2]),
        "loss must be positive and finite; point 2 of 6 has -1",
    ),
    "loss not a number": (lambda _: points(loss=[3, 2, 1, 2, 2, np.nan]), "point 5 of 6 has nan"),
    "infinite tokens": (
        lambda _: points(tokens=[np.inf] * 6),
        "tokens must be positive and finite; point 0 of 6 has inf",
    ),
    "unequal lengths": (lambda _: points(tokens=[1.0, 2.0]), r"as many of each; given .*'tokens': \(2,\)"),
    "four points": (lambda _: laws.parametric(points(4)), "has 5 parameters to fit and there are 4 points"),
    "three points, tied": (lambda _: laws.tied(points(3)), "has 4 parameters to fit and there are 3 points"),
    "three points, joint": (lambda _: kaplan.joint(points(3)), "has 4 parameters to fit and there are 3 points"),
    "one training": (lambda _: kaplan.limits(points(1)), r"L\(N\) has 2 parameters to fit and there are 1 trainings"),
    "two sizes": (lambda _: frontier.envelope(points(2)), "at least 3 sizes; the 2 points have 2"),
    "no budget": (
        lambda _: frontier.isoflop(points(), [1e30]),
        "at least 2 budgets whose best size lies between .*found 0",
    ),
    "unlucky draws": (
        lambda _: laws.bootstrap(points(4), laws.parametric, samples=3),
        "only 0 of 6 bootstrap draws could be fitted; the last: .*5 parameters",
    ),
    "unknown law": (lambda _: laws.known("hofman"), "no law 'hofman', did you mean 'hoffmann'"),
    "another file": (lambda d: laws.known(str(file(d, '{"a": 1}'))), "is no file of experiments.fit_scaling_laws"),
    "no sweep": (lambda d: fitting.read_sweep(d), "holds no finished cells of experiments.scaling_sweep"),
    "missing column": (lambda d: fitting.read_csv(file(d, "N,C,l\n1,2,3\n"), COLUMNS), "has no column 'L'.*'l'"),
    "text in a column": (
        lambda d: fitting.read_csv(file(d, "N,C,L\n1,x,3\n"), COLUMNS),
        "points.csv: could not convert",
    ),
    "empty file": (lambda d: fitting.read_csv(file(d, ""), COLUMNS), r"has no column 'N'; have \[\]"),
    "no points": (
        lambda d: fitting.read({"points": str(d / "none"), "data": "", "drop_highest": 0}),
        "no points at .*none: give 'published'",
    ),
    "unknown card": (lambda _: capacity.card_flops("h101", 0.4), "unknown card 'h101', did you mean 'h100'"),
    "more than a peak": (lambda _: capacity.card_flops("h100", 1.4), "at most 1; given 1.4"),
    "cut heads": (lambda _: Dial(width_per_layer=24, head_dim=16), "head_dim 16 does not divide width_per_layer 24"),
    "no layer": (lambda _: Dial().model(0), "at least 1 layer; given depth 0"),
    "unknown part of the dial": (lambda _: dial_of({"width": 3}), r"unknown settings \['width'\] of the dial"),
    "no tokens left": (
        lambda _: token_counts(10, 1, tokens=(5,), span=(6, 9)),
        r"no token count within \(6, 9\); asked \[5\]",
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(case, tmp_path):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        call(tmp_path)
    assert len(str(caught.value).splitlines()) == 1

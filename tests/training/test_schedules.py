import math

import jax
import numpy as np
import pytest

from research.training.schedules import SHAPES, make_schedule

PEAK, WARMUP, STEPS, END, DECAY = 0.02, 10, 100, 0.1, 30


def closed_form(shape: str, s: int) -> float:
    ramp = min(1.0, (s + 1) / WARMUP)
    p = min(max((s - WARMUP) / (STEPS - WARMUP), 0.0), 1.0)
    if shape == "cosine":
        factor = END + (1 - END) * (1 + math.cos(math.pi * p)) / 2
    elif shape == "linear":
        factor = 1 - (1 - END) * p
    elif shape == "wsd":
        factor = 1.0 if s < STEPS - DECAY else 1 - (1 - END) * min((s - (STEPS - DECAY)) / DECAY, 1)
    elif shape == "rsqrt":
        factor = 1.0 if s + 1 <= WARMUP else math.sqrt(WARMUP / (s + 1))
    else:
        factor = 1.0
    return PEAK * ramp * factor


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_closed_form(shape):
    schedule = jax.jit(make_schedule(shape, PEAK, warmup=WARMUP, steps=STEPS, end=END, decay=DECAY))
    for s in (0, 1, 8, 9, 10, 11, 50, 69, 70, 71, 99, 100, 500):
        np.testing.assert_allclose(schedule(s), closed_form(shape, s), rtol=2e-5, err_msg=f"{shape} at {s}")


def test_ends_where_it_should():
    for shape in ("cosine", "linear", "wsd"):
        assert float(make_schedule(shape, PEAK, steps=STEPS, end=END)(STEPS)) == pytest.approx(PEAK * END)
    assert float(make_schedule("constant", PEAK)(0)) == pytest.approx(PEAK)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shape": "cosin"}, "have"),
        ({"shape": "cosine"}, "number of steps"),
        ({"shape": "linear", "steps": 10, "warmup": 11}, "do not fit"),
        ({"shape": "wsd", "steps": 10, "warmup": 5, "decay": 6}, "do not fit"),
        ({"shape": "constant", "peak": 0.0}, "peak > 0"),
        ({"shape": "constant", "end": 2.0}, "end <= 1"),
    ],
)
def test_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(**({"peak": 0.1} | kwargs))

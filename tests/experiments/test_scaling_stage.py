"""The stage of the main job that says where its run lies on scaling laws."""

import json

import pytest

from configs.lifecycle import get_config
from experiments import lifecycle
from experiments.stages import Done, scaling
from research.scaling.laws import Law


def test_the_run_beside_published_laws_and_our_own(tmp_path):
    law, file = Law(60.0, 90.0, 1.2, 0.4, 0.35), tmp_path / "laws.json"
    draws = [[60.0, 90.0, 1.2, 0.4, 0.35], [70.0, 80.0, 1.2, 0.41, 0.34], [50.0, 99.0, 1.2, 0.39, 0.36]]
    told = {"origin": "12 points", "flops": [1e9, 1e12], "parametric": {"law": vars(law), "draws": draws}}
    file.write_text(json.dumps(told))
    trained = Done(tmp_path, {"parameters": 2_000_000, "tokens": 8_000_000, "epochs": 6.5}, 0.0, "")
    read = Done(tmp_path, {"nats_per_token": 3.25}, 0.0, "")
    config = {"scaling": {"laws": ("besiroglu", str(file))}}
    result = json.loads(json.dumps(scaling.run(config, {"pretrain": trained, "compression": read}, tmp_path)))
    assert result["run"]["flops"] == 6 * 2e6 * 8e6 and result["run"]["loss"] == 3.25
    ours = result["laws"][str(file)]
    assert ours["loss"] == pytest.approx(1.2 + 60 / 2e6**0.4 + 90 / 8e6**0.35)
    assert ours["optimum"]["parameters"] == pytest.approx(law.optimal(9.6e13).parameters)
    assert ours["beyond"] and ours["optimum"]["loss"] <= ours["loss"]
    low, high = ours["interval"]
    assert low <= ours["optimum"]["parameters"] <= high
    header, rows = scaling.rows(result)
    assert [row[0] for row in rows] == ["this run", "best by besiroglu", "best by laws.json, beyond its points"]
    assert rows[0][1:5] == ["2e+06", "8e+06", "4.0", "3.250"] and len({len(row) for row in [header, *rows]}) == 1
    page = scaling.section(result)
    assert "<svg" in page and "12 points" in page and "read 6.5 times" in page


def test_an_unknown_law_is_refused_before_any_work():
    config = get_config("tiny").to_dict()
    lifecycle.check(config)
    config["scaling"]["laws"] = ("hofmann",)
    with pytest.raises(ValueError, match="no law 'hofmann', did you mean 'hoffmann'"):
        lifecycle.check(config)

"""A sweep of tiny models on a folder of documents, and the fit and the tool that read what it leaves."""

import io
import json
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import fit_scaling_laws as fit_config
from configs.scaling_sweep import get_config
from experiments import fit_scaling_laws, scaling_sweep
from research.scaling import laws
from tools import compute_optimal


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for i in range(60):
        (folder / f"{i}.txt").write_text(f"Document {i} says that seven times {i} is {7 * i}. " * 6)
    made = get_config("tiny").to_dict()
    made["text"] = {"data": {"kind": "text", "path": str(folder), "heldout": 0.1}, "vocab_size": 290, "every": 1}
    made["model"]["max_length"] = made["length"] = 16
    return made | {"tokens": (256, 2048), "depths": (1,)}


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    out = io.StringIO()
    scaling_sweep.work(config, folder, Console(file=out, width=200))
    return folder, out.getvalue()


def cells(folder):
    return [json.loads(path.read_text()) for path in sorted((folder / "cells").iterdir())]


def test_a_sweep_trains_every_cell_and_says_what_it_read(swept):
    folder, told = swept
    found = {cell["tokens"]: cell for cell in cells(folder)}
    assert set(found) == {256, 2048} and found[2048]["loss"] < found[256]["loss"]
    text = json.loads((folder / "text.json").read_text())
    for cell in found.values():
        size = cell["settings"]
        assert size["parameters"] - size["parameters_no_embed"] == 290 * 8 * cell["depth"]
        assert size["flops"] == 6 * size["parameters"] * cell["tokens"]
        assert size["epochs"] == cell["tokens"] / text["train"]["tokens"]
        assert size["steps"] * 4 * 16 == cell["tokens"] and cell["held_out_tokens"] <= text["heldout"]["tokens"]
    assert "2 trainings" in told and f"train {text['train']['tokens']:,} tokens" in told


def test_started_again_only_what_is_missing_is_done(config, swept, monkeypatch):
    folder, _ = swept
    done = []
    monkeypatch.setattr(scaling_sweep, "run_cell", lambda run, at: done.append(run["seed"]) or {"loss": 1.0})
    text = scaling_sweep.prepare_text(config["text"], folder)
    larger = scaling_sweep.cells(config | {"seeds": (0, 7)}, folder, text)
    quiet = Console(file=io.StringIO())
    results = scaling_sweep.sweep(larger[:3], folder / "cells", quiet)
    assert done == [7] and sorted(r["seed"] for r in results) == [0, 0, 7]
    scaling_sweep.check_same(config | {"seeds": (0, 7)}, folder)  # the grid may grow
    with pytest.raises(ValueError, match=r"holds a sweep of another config: batch_size was 4, now 8; choose another"):
        scaling_sweep.check_same(config | {"batch_size": 8}, folder)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_a_mesh_gives_the_same_losses(config, swept):
    folder, _ = swept
    text = scaling_sweep.prepare_text(config["text"], folder)
    on_mesh = config | {"mesh": {"data": 2}, "tokens": (2048,)}
    (cell,) = scaling_sweep.cells(on_mesh, folder, text)
    kept = json.loads((folder / "cells" / cell.file()).read_text())
    assert cell.run()["loss"] == pytest.approx(kept["loss"], abs=1e-4)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A sweep's folder with the losses of a known law, fitted."""
    law, folder = laws.Law(60.0, 90.0, 1.2, 0.4, 0.35), tmp_path_factory.mktemp("known")
    (folder / "cells").mkdir()
    (folder / "sweep.json").write_text("{}")
    rng = np.random.default_rng(0)
    for i, n in enumerate(np.geomspace(2e4, 1e6, 10)):
        for j, d in enumerate(np.geomspace(2e5, 1e7, 10)):
            loss = law.loss(n, d) * np.exp(rng.normal(0, 1e-3))
            cell = {"tokens": d, "loss": loss, "settings": {"parameters": n, "parameters_no_embed": n / 2}}
            (folder / "cells" / f"{i}-{j}.json").write_text(json.dumps(cell))
    config = fit_config.get_config("sweep").to_dict()
    config |= {"points": str(folder), "samples": 6, "tolerance": 0.2, "budgets": (3e11, 1e12, 3e12, 1e13)}
    config["compare"] = ("hoffmann",)
    out = io.StringIO()
    fit_scaling_laws.work(config, folder, Console(file=out, width=250))
    return law, folder, out.getvalue()


def test_all_fits_of_a_sweep(fitted):
    law, folder, told = fitted
    found = laws.known(str(folder / "laws.json"))
    assert found.law.exponents[0] == pytest.approx(law.exponents[0], abs=0.03) and len(found.draws) == 6
    assert found.flops == pytest.approx((6 * 2e4 * 2e5, 6 * 1e6 * 1e7)) and found.origin.startswith("100 points, ")
    for name in ("isoflop", "envelope", "contour"):
        assert (folder / f"{name}.png").stat().st_size > 1000
    for part in ("fitted here", "hoffmann", "1 envelope", "2 IsoFLOP", "3 parametric", "L(N, D): D"):
        assert part in told
    best = found.law.optimal(1e13)
    assert f"{best.parameters:.4g} (" in told and f", {best.tokens:.4g}; {best.tokens / best.parameters:.1f}" in told


def tool(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["compute_optimal.py", *arguments])
    compute_optimal.main()
    return capsys.readouterr().out


def test_the_tool_answers_by_our_fit_with_an_interval(fitted, monkeypatch, capsys):
    _, folder, _ = fitted
    found, law = laws.known(str(folder / "laws.json")), f"--law={folder / 'laws.json'}"
    printed = tool(monkeypatch, capsys, "--hours=2", "--card=t4", "--cards=3", "--utilization=0.1", law)
    last = json.loads(printed.splitlines()[-1])
    flops = 2 * 3600 * 3 * 65e12 * 0.1
    assert last["flops"] == pytest.approx(flops) and "Beyond the points" in printed
    assert last["parameters"] == pytest.approx(found.law.optimal(flops).parameters)
    low, high = last["loss_interval"]
    assert low <= last["loss"] <= high
    printed = tool(monkeypatch, capsys, "--flops=1e21", "--parameters=7e9", "--law=hoffmann")
    last = json.loads(printed.splitlines()[-1])
    assert last["tokens"] == pytest.approx(1e21 / 6 / 7e9) and "No interval" in printed
    assert last["loss"] == pytest.approx(1.69 + 406.4 / 7e9**0.34 + 410.7 / last["tokens"] ** 0.28)


@pytest.mark.parametrize(
    "arguments, message",
    {
        ("--hours=1",): "error: --hours are of a card: give --card; have ['t4'",
        ("--flops=nan",): "error: --flops is above 0; given nan",
        ("--flops=1e20", "--parameters=-1"): "error: --parameters is above 0; given -1.0",
    }.items(),
)
def test_the_tool_refuses_in_one_line(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        tool(monkeypatch, capsys, *arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(message) and len(said.splitlines()) == 1


def test_the_configs():
    assert get_config("gpu").depths[-1] == 10 and fit_config.get_config().points == "published"
    for module, name in ((get_config, "scaling_sweep"), (fit_config.get_config, "fit_scaling_laws")):
        with pytest.raises(ValueError, match=f"unknown argument 'huge' of configs/{name}.py"):
            module("huge")

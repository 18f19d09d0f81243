"""The table of PEFT methods on a tiny encoder and a few made-up rows."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.peft_table import get_config
from experiments import labelled, peft_table
from research.models import build
from tests.models.conftest import tiny_config


class Letters:
    """A tokenizer of letters, with [CLS] and [SEP]."""

    bos_id, eos_id = 1, 2

    def encode(self, text):
        return [3 + (ord(c) - ord("a")) % 50 for c in text]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "rte").mkdir()
    lines = ["index\tsentence1\tsentence2\tlabel"]
    lines += [f"{i}\t{'ab'[i % 2] * 9}\tcd\t{('entailment', 'not_entailment')[i % 2]}" for i in range(8)]
    for name in ("train", "dev"):
        (tmp_path / "rte" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_pairs_are_cut_to_fit_and_typed(data):
    task = labelled.read_task("rte", data, Letters(), 10, 5, 0)
    assert [len(task[split]) for split in ("train", "dev")] == [5, 8]
    ids, types, label = task["train"][1]
    assert ids == [1, *[4] * 5, 2, 5, 6, 2] and types == [0] * 7 + [1] * 3 and label == 1
    batch = labelled.batch_of(task["train"][:3], (12,), [61, 62], 4)
    assert batch["tokens"][1].tolist() == [1, 61, 62, *[4] * 5, 2, 5, 6, 2, 0, 0]
    assert batch["segment_ids"].sum(1).tolist() == [12, 12, 12, 0] and batch["loss_mask"].tolist() == [1, 1, 1, 0]


def test_a_row_without_a_column_names_file_and_line(data):
    path = data / "rte" / "train.tsv"
    path.write_text(path.read_text().replace("\tnot_entailment", "\tmaybe", 1))
    with pytest.raises(ValueError, match=r"train.tsv:3: expected columns \['sentence1', 'sentence2', 'label'\]"):
        labelled.read_task("rte", data, Letters(), 10, 0, 0)
    with pytest.raises(ValueError, match=r"unknown task 'cola'; have \['rte', 'sst2'\]"):
        labelled.read_task("cola", data, Letters(), 10, 0, 0)


@pytest.mark.parametrize("recipe", [{"method": "lora", "rank": 2}, {"method": "prompt", "length": 2}])
def test_a_cell_learns_and_repeats_itself(data, recipe):
    model = build(tiny_config("bert", head="sequence", head_dense=False, n_labels=2))
    body = {k: v for k, v in jax.jit(model.init)(jax.random.key(0)).items() if k != "head"}
    task = labelled.read_task("rte", data, Letters(), 16, 0, 0)
    config = {"batch_size": 4, "epochs": 12, "lengths": (16,)}
    method = {"recipe": [recipe], "learning_rate": 0.03}
    first, again = (peft_table.run_cell(config, task, method, 0, model, body) for _ in range(2))
    # A prompt before a random frozen encoder cannot tell the texts apart; LoRA can.
    assert first["accuracy"] == (1.0 if recipe["method"] == "lora" else 0.5) and first["steps"] == 24
    assert first["trainable"] == {"lora": 3 * 2 * 2 * 64, "prompt": 2 * 32}[recipe["method"]] + 2 * 32 + 2
    clocks = ("seconds", "cpu_seconds")
    assert {k: v for k, v in first.items() if k not in clocks} == {k: v for k, v in again.items() if k not in clocks}
    assert np.isfinite([first[k] for k in clocks]).all() and first["bytes"] == 4 * first["trainable"]


def cells(*named):
    costs = {"trainable": 96, "memory": 2**20, "cpu_seconds": 0.1, "bytes": 4096}
    return [{"task": t, "method": m, "seed": s, "accuracy": a, **costs} for t, m, s, a in named]


def test_the_ranks_of_one_method_make_a_curve_beside_tuning_of_all_weights(tmp_path):
    found = cells(("rte", "full", 0, 0.6), ("rte", "lora qv r1", 0, 0.5), ("rte", "lora qv r1", 1, 0.7),
                  ("rte", "lora qv r16", 0, 0.8), ("rte", "lora qv r2", 0, 0.65),
                  ("rte", "lora all r8", 0, 0.9), ("rte", "norms", 0, 0.1))  # fmt: skip
    series, levels = peft_table.by_rank(found)
    assert levels == {"rte, full": 0.6} and set(series) == {"rte, lora qv"}
    ranks, accuracies = series["rte, lora qv"]
    assert ranks == [1, 2, 16] and accuracies == pytest.approx([0.6, 0.65, 0.8])
    out = io.StringIO()
    peft_table.report(found, tmp_path, Console(file=out, width=200))
    assert "0.600 ± 0.141" in out.getvalue() and "4 kB" in out.getvalue()
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("peft_table", "peft_ranks"))


def test_a_method_on_all_rows_is_a_cell_of_its_own():
    config = get_config("full=lora all r8")
    assert (config.rows, config.dev_rows, config.tasks, config.seeds) == (0, 0, ("sst2",), (0,))
    assert config.methods.to_dict() == {"lora all r8, all rows": get_config().methods["lora all r8"].to_dict()}
    assert {k: v for k, v in config.items() if k not in ("rows", "methods", "tasks", "seeds")} == {
        k: v for k, v in get_config().items() if k not in ("rows", "methods", "tasks", "seeds")
    }
    for wrong in ("full", "full=lora", "huge"):
        with pytest.raises(ValueError, match=r"configs/peft_table\.py.*; have "):
            get_config(wrong)

"""The mixture of task files: every file is a part, scored by name; what cannot be learned names its file."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs.t0_mixture import get_config
from research.data.build import build_rows, build_source
from research.data.byte_tokenizer import ByteTokenizer
from research.recipes.assemble import assemble, complete


def folder_of(tmp_path, **tasks):
    for name, completion in tasks.items():
        lines = [{"prompt": f"{name} {i}?", "completion": completion} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(tmp_path)


def assembled(folder, work):
    config = get_config(folder).to_dict() | {"tokenizer": {"path": "bytes"}}
    config["model"] = {"preset": "llama3.2-1b", "vocab_size": 264, "d_model": 16, "n_layers": 1, "n_heads": 2}
    config["model"] |= {"n_kv_heads": 2, "head_dim": 8, "d_ff": 32, "max_length": 256}
    return assemble(complete(config), work)


def test_every_file_is_a_part_that_is_scored_by_name(tmp_path):
    folder = folder_of(tmp_path, ag="Business", qqp="no")
    parts = assembled(folder, tmp_path)
    values = parts.evaluate(parts.state.params, parts.frozen)
    assert {"loss/ag", "loss/qqp"} <= set(values)
    assert min(values["loss/ag"], values["loss/qqp"]) <= values["loss"] <= max(values["loss/ag"], values["loss/qqp"])


def test_the_training_loss_of_every_part_is_logged(tmp_path):
    parts = assembled(folder_of(tmp_path, ag="Business", qqp="no"), tmp_path)
    batch = parts.source.batch(0)
    rows = {name: batch["part"] == i for i, name in enumerate(("ag", "qqp"))}
    assert all(rows["ag"] ^ rows["qqp"])
    alone = {
        name: float(parts.loss_fn(parts.state.params, {k: jnp.asarray(v[on]) for k, v in batch.items()}, None)[0])
        / batch["loss_mask"][on].sum()
        for name, on in rows.items()
    }
    _, metrics = parts.step(parts.state, parts.frozen, batch)
    for name, expected in alone.items():
        np.testing.assert_allclose(metrics[f"loss/{name}"], expected, rtol=1e-2)  # bfloat16


def test_a_file_without_answers_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"empty.jsonl: example 0: the completion is empty"):
        assembled(folder_of(tmp_path, ag="Business", empty=""), tmp_path)
    with pytest.raises(ValueError, match=r"no .jsonl file in"):
        get_config(str(tmp_path / "nowhere"))


def test_the_published_tasks_are_one_mixture_that_goes_on_where_it_was(data_dir):
    folder, tokenizer = data_dir / "t0_templates", ByteTokenizer()
    data = get_config(str(folder)).data.to_dict()
    data["mix"] = {name: part | {"length": 2048} for name, part in data["mix"].items()}  # bytes, not pieces
    files = {file.stem for file in folder.glob("*.jsonl")}
    lacking = "trec_which_category_best_describes"
    assert len(files) == 15 and files - set(data["mix"]) == {lacking}
    with pytest.raises(ValueError, match=rf"{lacking}.jsonl: example 0: the completion is empty"):
        build_rows(next(iter(data["mix"].values())) | {"path": str(folder / f"{lacking}.jsonl")}, tokenizer)
    source = build_source(data, tokenizer)
    # At most the cap of each counts, tempered by a square root; a block of the mixture has 4096 places.
    shares = {name: min(len(stream), data["cap"]) ** 0.5 for name, stream in source.stream.streams.items()}
    expected = {name: 4096 * share / sum(shares.values()) for name, share in shares.items()}
    assert source.stream.counts == pytest.approx(expected, abs=1)
    seen = [source.batch(step) for step in range(30)]
    assert {int(part) for batch in seen for part in batch["part"]} == set(range(14))
    again = build_source(data, tokenizer)  # a restart needs only the step
    for step in (29, 7):
        for name, array in seen[step].items():
            np.testing.assert_array_equal(again.batch(step)[name], array)
    other = build_source(data | {"seed": 1}, tokenizer).batch(7)
    assert any(not np.array_equal(other[name], array) for name, array in seen[7].items())

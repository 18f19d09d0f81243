"""A small data set prepared here as array_record, read by TFDS and Grain without TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.packing import pack_row
from research.data.templates import encode_text
from research.data.tfds_source import GrainBatches, TfdsExamples

BUILDER = """
import sys
import numpy as np
import tensorflow_datasets as tfds

class SmallTexts(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, **settings):
        settings.setdefault("file_format", "array_record")
        super().__init__(**settings)

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "number": np.int64})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(range(20)), "test": self._generate_examples(range(20, 25))}

    def _generate_examples(self, numbers):
        for i in numbers:
            yield i, {"text": f"text number {i}, \\u00e9", "number": i}

builder = SmallTexts(data_dir=sys.argv[1])
builder.download_and_prepare()
print(builder.data_dir)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # In a process of its own: preparing prints, and registers a builder for good.
    root = tmp_path_factory.mktemp("tfds")
    (root / "small_texts.py").write_text(BUILDER)
    command = [sys.executable, str(root / "small_texts.py"), str(root / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def make_row(example):
    row = pack_row([encode_text(example["text"], ByteTokenizer())], 32)
    return {**row, "number": np.int32(example["number"])}


def test_reads_splits_and_slices(folder):
    train = TfdsExamples(folder)
    assert len(train) == 20 and train[3] == {"text": "text number 3, é", "number": 3}
    assert len(TfdsExamples(folder, "test")) == 5 and len(TfdsExamples(folder, "train[:50%]")) == 10
    with pytest.raises(ValueError, match=r"no split 'dev'; have \['test', 'train'\]"):
        TfdsExamples(folder, "dev")
    with pytest.raises(ValueError, match="no TFDS data set 'no_such_data_set'"):
        TfdsExamples("no_such_data_set")


def test_batches_are_pure_shuffled_and_sharded(folder):
    examples = TfdsExamples(folder)
    source = GrainBatches(examples, make_row, 4, seed=1)
    batch = source.batch(2)
    assert batch["tokens"].shape == (4, 32) and batch["number"].shape == (4,)
    again = GrainBatches(examples, make_row, 4, seed=1).batch(2)
    assert all(np.array_equal(v, again[k]) for k, v in batch.items())
    epochs = [np.concatenate([source.batch(s)["number"] for s in range(e * 5, e * 5 + 5)]) for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20)) and epochs[0].tolist() != epochs[1].tolist()
    parts = [GrainBatches(examples, make_row, 4, seed=1, shard=(i, 2)) for i in range(2)]
    for step in (0, 2, 7):  # the last one is of the second epoch
        together = np.stack([part.batch(step)["number"] for part in parts], axis=1).reshape(-1)
        assert together.tolist() == source.batch(step)["number"].tolist()
    plain = GrainBatches(examples, make_row, 4, shuffle=False)
    assert plain.example_batch()["number"].tolist() == [0, 1, 2, 3]


def test_iterator_and_state_go_on_where_they_were(folder):
    source = GrainBatches(TfdsExamples(folder), _noisy, 4, seed=1, random=True)
    iterator = source.iterator()
    first = [next(iterator) for _ in range(3)]
    state = json.loads(json.dumps(iterator.get_state()))
    want = next(iterator)
    other = source.iterator()
    other.set_state(state)
    for got in (next(other), next(source.iterator(3)), source.batch(3)):
        assert all(np.array_equal(want[k], got[k]) for k in want)
    assert all(np.array_equal(first[1][k], source.batch(1)[k]) for k in want)
    assert source.restore(json.loads(json.dumps(source.state(7)))) == 7
    with pytest.raises(ValueError, match="other data"):
        GrainBatches(TfdsExamples(folder), _noisy, 5, seed=1, random=True).restore(source.state(7))


def _noisy(example, rng):
    return {"number": np.int32(example["number"]), "noise": rng.random(2)}


def test_errors(folder):
    with pytest.raises(ValueError, match="does not divide over 3 hosts"):
        GrainBatches(TfdsExamples(folder), make_row, 4, shard=(0, 3))
    with pytest.raises(ValueError, match="there are no examples"):
        GrainBatches([], make_row, 4)

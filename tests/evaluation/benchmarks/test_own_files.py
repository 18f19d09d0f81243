"""Tasks from files of rows: the same rows in every format give the same task, and examples come from where they may."""

import csv
import json

import pytest

from research.apps.prompting.shots import build, choose
from research.evaluation.benchmarks.own_files import read_task

ROWS = [
    {"sentence": 'a "fine" film, twice', "label": "1"},
    {"sentence": "dull ||| and long", "label": "0"},
    {"sentence": "a joy", "label": "1"},
]
TEMPLATE = "Review: {{ sentence }}\nGood? ||| {{ ['no', 'yes'][label | int] }}"


@pytest.fixture(params=[".jsonl", ".json", ".tsv", ".csv"])
def path(request, tmp_path):
    path = tmp_path / f"dev{request.param}"
    if request.param == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, ROWS)))
    elif request.param == ".json":
        path.write_text(json.dumps(ROWS))
    elif request.param == ".tsv":
        path.write_text("sentence\tlabel\n" + "".join(f"{r['sentence']}\t{r['label']}\n" for r in ROWS))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["sentence", "label"])
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def test_rows_of_any_format_become_the_same_task(path):
    task = read_task(path, TEMPLATE, choices="no ||| yes", description="Judge.")
    assert [item.id for item in task.items] == ["dev/0", "dev/1", "dev/2"] and task.name == "dev"
    assert task.items[0].question == 'Review: a "fine" film, twice\nGood?' and task.description == "Judge."
    assert [item.gold for item in task.items] == [(1,), (0,), (1,)] and task.items[0].choices == (" no", " yes")
    assert task.metrics == ("acc",) and task.items[1].solved == "Review: dull ||| and long\nGood? no"
    prompt = build(task, task.items[2], choose(task, task.items[2], 2))
    assert prompt.text.count("a joy") == 1 and prompt.text.endswith("a joy\nGood?") and prompt.used == 2


def test_a_pool_beside_the_asked_rows_loses_their_questions(tmp_path):
    for name, rows in (("test", ROWS[:2]), ("train", ROWS)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = read_task(tmp_path / "test.jsonl", TEMPLATE, pool=tmp_path / "train.jsonl", limit=1, name="reviews")
    assert task.name == "reviews" and task.metrics == ("exact_match",) and not task.items[0].choices
    assert [item.id for item in task.items] == ["test/0"] and [item.id for item in task.pool] == ["train/2"]
    assert task.items[0].answers == ("yes",)


def test_choices_may_come_from_the_row(tmp_path):
    rows = [{"q": "2+2?", "options": ["3", "4", "5"], "a": "4"}, {"q": "1+1?", "options": ["2", "3"], "a": "2"}]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    task = read_task(tmp_path / "sums.json", "{{ q }} ||| {{ a }}", choices="{{ options | join('|||') }}")
    assert [(item.choices, item.gold) for item in task.items] == [((" 3", " 4", " 5"), (1,)), ((" 2", " 3"), (0,))]


def test_a_published_file_as_its_rows_are(data_dir):
    task = read_task(
        data_dir / "sst2" / "dev.first436.tsv",
        "{{ sentence }} It was ||| {{ ['terrible', 'great'][label | int] }}",
        choices="terrible ||| great",
        pool=data_dir / "sst2" / "train.20000.tsv",
    )
    assert len(task.items) == 436 and 19900 < len(task.pool) <= 20000
    assert not {item.question for item in task.items} & {item.question for item in task.pool}
    golds = [item.gold[0] for item in task.items]
    labels = [line.rsplit("\t", 1)[1] for line in (data_dir / "sst2" / "dev.first436.tsv").read_text().splitlines()[1:]]
    assert golds == [int(label) for label in labels]

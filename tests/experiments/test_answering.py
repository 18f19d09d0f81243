"""Tuning on examples and scoring answers: both kinds of model learn, cells repeat themselves, readers split as said."""

import io
import json

import jax
import pytest
from rich.console import Console

from configs import encdec_tasks as encdec_config
from configs import instruct_sets as sets_config
from experiments import answering, encdec_tasks, instruct_sets
from experiments.answering import Part
from research.data.byte_tokenizer import ByteTokenizer
from research.decoding import generate
from research.interop import save_pretrained
from research.models import build
from tests.models.conftest import tiny_config

TOKENS = ByteTokenizer(["<pad>", "</s>", "<unk>", "<s>"])
SETTINGS = {
    "length": 24,
    "targets_length": 12,
    "batch_size": 4,
    "epochs": 60,
    "max_new_tokens": 4,
    "answer_batch": 4,
}
METHOD = {"start": "scratch", "recipe": [{"method": "full"}], "learning_rate": 2e-2}
MODELS = {
    "t5": {"d_model": 16, "d_ff": 32, "n_layers": 1, "n_encoder_layers": 1, "n_heads": 2, "logit_scale": 0.25},
    "llama": {"d_model": 16, "d_ff": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2},
}


def examples_of(*pairs):
    return [{"prompt": p, "completion": c} for p, c in pairs]


LIGHTS = examples_of(("go?", "yes"), ("run?", "yes"), ("red", "no"), ("stop", "no")) * 4


def part_of(examples=LIGHTS, dev=LIGHTS[:6]):
    baselines = {"common": answering.common, "nearest": answering.nearest_example}
    return Part(examples, dev, ("exact match", "ROUGE-L"), baselines)


def model_of(family):
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 3}
    return build(tiny_config(family, vocab_size=260, max_length=64, **ids, **MODELS[family]))


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_model_learns_to_answer_and_a_cell_repeats_itself(family):
    model, parts = model_of(family), {"lights": part_of()}
    once, again = (answering.run_cell(SETTINGS, parts, METHOD, 0, model, None, TOKENS) for _ in range(2))
    assert once["scores"]["lights"] == {"exact match": 100.0, "ROUGE-L": 100.0}
    assert once["answers"]["lights"] == ["yes", "yes", "no"] and once["held_out"]["lights"] < 0.2
    clocks = ("seconds", "cpu_seconds")
    assert {k: v for k, v in once.items() if k not in clocks} == {k: v for k, v in again.items() if k not in clocks}


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_soft_prompt_is_in_front_in_training_and_in_answers(family):
    model = model_of(family)
    base = jax.jit(model.init)(jax.random.key(0))
    method = {"start": "base", "recipe": [{"method": "prompt", "length": 3}], "learning_rate": 1e-1}
    parts = {"a": part_of(), "b": part_of(examples_of(("x", "y")) * 5)}
    found = answering.run_cell(SETTINGS | {"epochs": 1}, parts, method, 0, model, base, TOKENS)
    assert found["trainable"] == 3 * 16 and set(found["scores"]) == {"a", "b"} == set(found["held_out"])


def test_answers_do_not_depend_on_the_batch():
    model = model_of("t5")
    params = jax.jit(model.init)(jax.random.key(3))
    prompts = [[50, 1], [60, 61, 62, 1], [70, 71, 1], [80, 81, 82, 83, 1], [90, 1]]
    counted = []
    found = answering.greedy(model, params, TOKENS, prompts, 5, 2, counted.append)
    alone = generate(model, params, prompts, max_new_tokens=5, stop_tokens=(1,))
    texts = [TOKENS.decode([t for t in alone.ids(i) if t != 1]).strip() for i in range(5)]
    assert found == texts and sum(counted) == 5


def test_baselines_are_scored_where_a_part_has_them():
    found = answering.baseline_cell({"lights": part_of(), "bare": Part(LIGHTS, LIGHTS, ("F1",), {})}, "nearest")
    assert found == {"scores": {"lights": {"exact match": 100.0, "ROUGE-L": 100.0}}}
    common = answering.baseline_cell({"lights": part_of()}, "common")["scores"]["lights"]
    assert common["exact match"] == pytest.approx(100 * 4 / 6)
    with pytest.raises(ValueError, match=r"'x' starts from 'nothing'; have \['base', 'scratch'\]"):
        answering.check({"x": {"start": "nothing", "recipe": []}})


TALK = "#Person1#: Hi.\n#Person2#: Bye.\nC: D.\nE: F."


@pytest.fixture
def data(tmp_path):
    """The folders that the tasks read, in little."""
    for name in ("multi30k", "dialogsum", "samsum_t0", "t0_templates"):
        (tmp_path / name).mkdir()
    for split in ("train.8000", "val"):
        (tmp_path / "multi30k" / f"{split}.en").write_text("A dog.\nTwo men.\n")
        (tmp_path / "multi30k" / f"{split}.de").write_text("Ein Hund.\nZwei Männer.\n")
    for split in ("train.2500", "dev"):
        told = [{"dialogue": TALK, "summary": "They talk.", "topic": topic} for topic in ("hi", "greetings")]
        (tmp_path / "dialogsum" / f"dialogsum.{split}.jsonl").write_text("\n".join(map(json.dumps, told)))
    forms = ("Summarize this dialogue: {}", "{}\nGiven the above dialogue, write a summary.\n")
    rows = [{"prompt": f.format(f"A: {i}\r\nB: ok"), "completion": f"Of {i}."} for i in range(30) for f in forms]
    rows[0]["prompt"] += " "
    (tmp_path / "samsum_t0" / "samsum_t0.jsonl").write_text("\n".join(map(json.dumps, rows)))
    form = "Answer the following question given this paragraph: \n\n{}\n\n\nQ: What is {}?\n\n\nA:\n"
    rows = [(f"A cell divides. Sugar {i} is made by leaf{i}.", f"sugar {i}", f"Leaf{i}") for i in range(40)]
    rows += [("", "x", "y"), ("Nothing here.", "z", "elsewhere")]
    lines = [{"prompt": form.format(p, q), "completion": a} for p, q, a in rows]
    (tmp_path / "t0_templates" / "sciq_Direct_Question.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


ALL = {"rows": 0, "dev_rows": 0}


def test_tasks_are_read_and_split_as_said(data):
    (translated,) = encdec_tasks.read_task("translation", data, ALL).values()
    assert translated.dev[1] == {"prompt": "Two men.", "completion": "Zwei Männer."}
    told = encdec_tasks.read_task("summaries", data, ALL)
    train, dev = ({e["prompt"] for e in side} for side in (told["samsum"].train, told["samsum"].dev))
    assert len(train) + len(dev) == 30 and not train & dev and "Summarize: A: 0\nB: ok" in train | dev
    lead = told["dialogsum"].baselines["first three lines"](told["dialogsum"])
    assert lead == ["#Person1#: Hi. #Person2#: Bye. C: D."] * 2
    asked, talked = encdec_tasks.read_task("questions", data, ALL).values()
    assert talked.dev == [{"prompt": "What is this conversation about?\n" + TALK, "completion": "hi"}]
    assert len(asked.train) + len(asked.dev) == 40 and min(len(asked.train), len(asked.dev)) > 5
    assert asked.dev[0]["prompt"].startswith("What is sugar ")
    sentences = asked.baselines["likest sentence"](asked)
    assert all(
        s.startswith("Sugar") and e["completion"].lower() in s for s, e in zip(sentences, asked.dev, strict=True)
    )


def test_tasks_that_cannot_be_read_are_refused(data):
    with pytest.raises(ValueError, match=r"unknown task 'chess'; have \['questions', 'summaries', 'translation'\]"):
        encdec_tasks.read_task("chess", data, ALL)
    (data / "multi30k" / "val.de").write_text("Eins.\n")
    with pytest.raises(ValueError, match="multi30k/val has 2 English and 1 German lines"):
        encdec_tasks.read_task("translation", data, ALL)
    path = data / "t0_templates" / "sciq_Direct_Question.jsonl"
    path.write_text('{"prompt": "Q?", "completion": "a"}')
    with pytest.raises(ValueError, match=r"sciq_Direct_Question.jsonl: a prompt of another form than expected: 'Q"):
        encdec_tasks.read_task("questions", data, ALL)


def test_the_published_rows_have_the_expected_form(data_dir):
    parts = {n: p for task in encdec_tasks.TASKS for n, p in encdec_tasks.read_task(task, data_dir, ALL).items()}
    assert {n: len(p.train) + len(p.dev) for n, p in parts.items()} == {
        "translation": 9014,
        "dialogsum": 3000,
        "samsum": 200,
        "questions": 135,
        "topics": 998,
    }
    asked = parts["questions"]
    assert not {e["prompt"].split("\n", 1)[1] for e in asked.train} & {e["prompt"].split("\n", 1)[1] for e in asked.dev}


def base_folder(folder, family):
    model = model_of(family)
    save_pretrained(folder, model.config, jax.jit(model.init)(jax.random.key(0)), tokenizer=TOKENS)
    return str(folder)


def run_twice(work, config, folder, monkeypatch, module):
    said = io.StringIO()
    work(config, folder, Console(file=said, width=160))
    monkeypatch.setattr(module, "run_cell", lambda *a: pytest.fail("a cell that is there was made again"))
    work(config, folder, Console(file=said, width=160))
    return said.getvalue()


def test_the_grid_of_encoder_decoders_from_end_to_end(data, tmp_path, monkeypatch):
    config = encdec_config.get_config("tiny").to_dict() | {"data": str(data), "base": base_folder(tmp_path / "b", "t5")}
    config["tasks"] = {"questions": config["tasks"]["questions"]}
    out = tmp_path / "out"
    out.mkdir()
    said = run_twice(encdec_tasks.work, config, out, monkeypatch, encdec_tasks)
    assert "questions: the tokenizer gives back 4 of 4 answers" in said and "its rarest words" in said
    assert (out / "encdec_tasks.png").is_file() and len(list(out.glob("questions-*.json"))) == 6
    with pytest.raises(ValueError, match=r"config.base is a model of kind 'decoder'; expected an encoder-decoder"):
        encdec_tasks.work(config | {"base": base_folder(tmp_path / "d", "llama")}, out, Console(quiet=True))


def test_the_grid_of_instruction_sets_from_end_to_end(data, tmp_path, monkeypatch):
    rows = [{"instruction": f"Say {i}", "input": "", "output": f"{i}!"} for i in range(40)]
    (data / "tasks.json").write_text(json.dumps([*rows, rows[0] | {"output": "long " * 99}]))
    config = sets_config.get_config("tiny").to_dict() | {"data": str(data), "length": 64}
    config |= {"base": base_folder(tmp_path / "d", "llama"), "sets": {"own": {"files": ["tasks.json"]}}}
    config["sets"]["own"]["templates"] = sets_config.ALPACA
    out = tmp_path / "out"
    out.mkdir()
    said = run_twice(instruct_sets.work, config, out, monkeypatch, instruct_sets)
    assert "own: 40 of 41 examples fit 64 tokens" in said and "nearest training example" in said
    assert (out / "instruct_sets.png").is_file() and len(list(out.glob("*.json"))) == 4
    with pytest.raises(ValueError, match=r"tasks.json:1: .*needs what is not there"):
        instruct_sets.read_set({"files": ["tasks.json"], "templates": ("{{ text }} ||| a",)}, data, 0.2)
    rows = [{"prompt": f"{i}?", "completion": ("one two three four five", "yes")[i % 2]} for i in range(40)]
    (data / "tasks.json").write_text(json.dumps(rows))
    train, held = instruct_sets.read_set({"files": ["tasks.json"], "templates": ()}, data, 0.2)
    # The long answer is held out too, so no training example may tell it.
    assert {e["completion"] for e in held} == {"one two three four five", "yes"} and len(train) > 5
    assert {e["completion"] for e in train} == {"yes"}
    (data / "tasks.json").write_text('[{"text": "a"}]')
    with pytest.raises(ValueError, match=r"tasks.json: example 0 has columns \['text'\]; expected a prompt and"):
        instruct_sets.read_set({"files": ["tasks.json"], "templates": ()}, data, 0.0)

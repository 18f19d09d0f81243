"""Cards of a real small model: measured once, kept, and shown side by side with another."""

import io
import re

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.card import get_config
from experiments import card as cards
from research.apps.prompting import Item, Task
from research.data.huggingface_tokenizer import from_wordpiece
from research.evaluation.likelihood import score_pairs
from research.evaluation.text_scorer import TextScorer
from research.models import build, preset


@pytest.fixture(scope="module")
def loaded(data_dir):
    return cards.load(str(data_dir / "stories260K" / "checkpoint_v1.bin"), None, "f32")


@pytest.fixture(scope="module")
def scorer(data_dir, tmp_path_factory):
    """A scorer with random weights: what it says is not looked at here."""
    tokenizer = from_wordpiece(data_dir / "tokenizers" / "bert_base_uncased_vocab.txt")
    sizes = {"vocab_size": 30522, "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8, "max_length": 32}
    config = preset("bert-base").replace(**sizes, head="scalar", pooling="first", head_dense=True)
    model = build(config)
    folder = tmp_path_factory.mktemp("scorer")
    facts = {"middle": 0.0, "described": "Right in 0.5 of held-out pairs."}
    TextScorer(model, jax.jit(model.init)(jax.random.key(0)), tokenizer, 32, facts).save(folder)
    return folder


def test_the_tiny_card_of_a_real_model(data_dir, scorer, tmp_path):
    config = get_config("tiny").to_dict() | {"data": str(data_dir)}
    config["toxicity"]["scorer"] = str(scorer)
    console = Console(file=io.StringIO(), width=200)
    cards.work(config, tmp_path, console)
    html = (tmp_path / "card.html").read_text()
    for part in ("winogrande", "ECE", "typos", "nigerian", "Right in 0.5", "tokens per second, 1 at a time", "260,032"):
        assert part in html
    assert not re.search(r'(src|href)="(?!#)', html) and "stories260K/checkpoint_v1.bin" in console.file.getvalue()
    made = list(tmp_path.glob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in made]
    cards.work(config, tmp_path, console)
    assert [path.stat().st_mtime_ns for path in made] == stamps and len(made) == 1


def test_answers_are_the_likelier_choices_and_examples_stand_in_front(loaded):
    items = [
        Item(f"test/{i}", f"{who} was happy. {who} said:", (" Yes", " No, no"), (0,)) for i, who in enumerate("ABC")
    ]
    task = Task("two", items, ("acc",), pool=items)
    for shots in (0, 2):
        ask = cards.asker(loaded.model, loaded.params, loaded.tokenizer, k=shots)
        (found,) = ask([task])
        before = ["", "A was happy. A said: Yes", "B was happy. B said: Yes", "C was happy. C said: Yes"]
        for item, outcome in zip(items, found, strict=True):
            ways = [""] if not shots else [f"{a}\n\n{b}\n\n" for a in before[1:] for b in before[1:] if a != b]
            ways = [way for way in ways if item.question not in way]
            pairs = [(way + item.question, choice) for way in ways for choice in item.choices]
            nats = score_pairs(loaded.model, loaded.params, loaded.tokenizer, pairs).nats.reshape(-1, 2)
            # In one of the two orders of the two other examples.
            assert any(np.allclose(-row, outcome.scores, atol=1e-3) for row in nats)
            assert outcome.prediction == int(np.argmax(outcome.scores))
    # Without choices the answer is written: the model's own, greedily.
    (written,) = ask([Task("free", [Item("test/9", "Once upon a", answers=("time",))], ("exact_match",), items)])
    assert written[0].text and written[0].prediction == written[0].text.strip()


def test_efficiency_counts_what_there_is(loaded):
    found = cards.efficiency(loaded.model, loaded.params, loaded.tokenizer, 4, (1,))
    assert found["parameters"] == 260_032 and found["bytes of weights"] == 4 * 260_032
    flops = found["FLOPs per token, 512 tokens"]
    # Two per weight of a product (the table counts once, as the output); of 512 keys a token sees 256.5 on average,
    # with two products of 64 numbers and a softmax of three operations in 8 heads for each.
    matrices = 5 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 172) + 512 * 64
    assert flops == 2 * matrices + 5 * 256.5 * (4 * 64 + 3 * 8)
    assert found["tokens per second, 1 at a time"] > 0


def test_no_model_and_few_items(tmp_path):
    config = get_config("tiny").to_dict() | {"models": ()}
    with pytest.raises(ValueError, match="no model to make a card of"):
        cards.work(config, tmp_path, Console(file=io.StringIO()))
    items = [Item(str(i), "?") for i in range(10)]
    assert [i.id for i in cards.few(Task("t", items, ()), 4).items] == ["0", "2", "5", "7"]
    assert len(cards.few(Task("t", items, ()), 0).items) == 10

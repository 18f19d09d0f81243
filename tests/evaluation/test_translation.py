"""BLEU and chrF against figures of sacreBLEU 2.6.0 on Multi30k and DialogSum, and published cases."""

import json

import numpy as np
import pytest

from research.evaluation import bleu, chrf
from research.evaluation.translation import words


@pytest.fixture(scope="module")
def golden(data_dir):
    return json.loads((data_dir / "golden" / "multi30k_val_de_mt.json").read_text())


@pytest.fixture(scope="module")
def pairs(data_dir):
    """References and the hypotheses that the golden file describes."""
    german, english = ((data_dir / "multi30k" / f"val.{side}").read_text().splitlines() for side in ("de", "en"))
    return german, {"corrupt": [corrupt(text, i) for i, text in enumerate(german)], "copy": english}


def corrupt(text, i):
    given = text.split()
    if len(given) > 3:
        if i % 4 == 0:
            given[1], given[2] = given[2], given[1]
        elif i % 4 == 1:
            del given[len(given) // 2]
        elif i % 4 == 3:
            given.insert(2, given[0])
    return " ".join(given).lower() if i % 4 == 2 else " ".join(given)


@pytest.mark.parametrize("which", ["corrupt", "copy"])
def test_the_figures_are_those_of_sacrebleu(golden, pairs, which):
    german, hypotheses = pairs
    wanted, mine = golden[which], hypotheses[which]
    np.testing.assert_allclose(bleu(mine, german, samples=2).mean, wanted["bleu"], rtol=1e-9)
    np.testing.assert_allclose(bleu(mine, german, lowercase=True, samples=2).mean, wanted["bleu_lc"], rtol=1e-9)
    np.testing.assert_allclose(chrf(mine, german, samples=2).mean, wanted["chrf"], rtol=1e-9)
    assert sum(len(words(t)) for t in mine) == wanted["sys_len"]
    assert sum(len(words(t)) for t in german) == wanted["ref_len"]


def test_long_texts_too(data_dir):
    golden = json.loads((data_dir / "golden" / "dialogsum_dev_rouge_bleu.json").read_text())
    rows = [json.loads(x) for x in (data_dir / "dialogsum" / "dialogsum.dev.jsonl").read_text().splitlines()]
    lead, right = [r["dialogue"].split("\n")[0] for r in rows], [r["summary"] for r in rows]
    np.testing.assert_allclose(chrf(lead, right, samples=2).mean, golden["lead"]["sacrebleu_chrf"], rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello", ",", "world", "!"]),
        ("It costs 1,000.50 dollars.", ["It", "costs", "1,000.50", "dollars", "."]),
        ("&quot;a-b&quot; 3-4", ['"', "a-b", '"', "3", "-", "4"]),
        ("Männer's „Übung“", ["Männer's", "„Übung“"]),
    ],
)
def test_words_are_those_of_mteval(text, expected):
    assert words(text) == expected


def test_edges_and_intervals():
    same = ["the cat sat on the mat", "a dog ran over the hill"]
    assert bleu(same, same) == (100, 100, 100) and chrf(same, same) == (100, 100, 100)
    assert bleu(["x y z w"], ["a b c d"]).mean == 0 and chrf(["xyz"], ["abc"]).mean == 0
    assert bleu([""], ["a b"]).mean == 0 and chrf(["", ""], ["a", "b"]).mean == 0
    # Three words have no 4-gram: not defined, so 0, as sacreBLEU says for a corpus.
    assert bleu(["a b c"], ["a b c"]).mean == 0
    # By hand: 4 of 5 words, 3 of 4 pairs, 2 of 3 and 1 of 2 longer ones; one word too short of six.
    by_hand = 100 * np.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    np.testing.assert_allclose(bleu(["a b c d x"], ["a b c d e f"]).mean, by_hand)
    mixed = bleu([same[0], "a dog ran over the moon"] * 10, same * 10)
    assert mixed.low < mixed.mean < mixed.high < 100
    with pytest.raises(ValueError, match="as many predictions as references"):
        bleu(["a"], [])

"""BLEU, chrF and TER against stored figures of sacreBLEU 2.6.0 on Multi30k and DialogSum, and published cases."""

import json

import numpy as np
import pytest

from research.evaluation import bleu, chrf, ter


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


@pytest.mark.parametrize("which", ["lead", "longest"])
def test_long_texts_too(data_dir, which):
    golden = json.loads((data_dir / "golden" / "dialogsum_dev_rouge_bleu.json").read_text())
    rows = [json.loads(x) for x in (data_dir / "dialogsum" / "dialogsum.dev.jsonl").read_text().splitlines()]
    lines = [r["dialogue"].split("\n") for r in rows]
    mine = [found[0] if which == "lead" else max(found, key=len) for found in lines]
    right, wanted = [r["summary"] for r in rows], golden[which]
    np.testing.assert_allclose(bleu(mine, right, samples=2).mean, wanted["sacrebleu_bleu"], rtol=1e-9)
    np.testing.assert_allclose(chrf(mine, right, samples=2).mean, wanted["sacrebleu_chrf"], rtol=1e-9)
    np.testing.assert_allclose(ter(mine, right, samples=2).mean, wanted["sacrebleu_ter"], rtol=1e-9)


def test_published_cases():
    """sacreBLEU's own tests, and those of TER."""
    said = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    first = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    second = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    both = list(map(list, zip(first, second, strict=True)))
    np.testing.assert_allclose(bleu(said, both, samples=2).mean, 48.530827, atol=1e-6)
    assert ter(["d e f g h a b c"], ["a b c d e f g h"], samples=2).mean == 12.5
    assert ter([""], ["a b c"], samples=2).mean == 100


def test_edges_and_intervals():
    same = ["the cat sat on the mat", "a dog ran over the hill"]
    assert bleu(same, same) == pytest.approx((100, 100, 100)) and chrf(same, same) == (100, 100, 100)
    assert bleu(["x y z w"], ["a b c d"]).mean == 0 and chrf(["xyz"], ["abc"]).mean == 0
    assert bleu([""], ["a b"]).mean == 0 and chrf(["", ""], ["a", "b"]).mean == 0
    # Three words have no 4-gram: not defined, so 0, as sacreBLEU says for a corpus.
    assert bleu(["a b c"], ["a b c"]).mean == 0
    # By hand: 4 of 5 words, 3 of 4 pairs, 2 of 3 and 1 of 2 longer ones; one word too short of six.
    by_hand = 100 * np.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    np.testing.assert_allclose(bleu(["a b c d x"], ["a b c d e f"]).mean, by_hand)
    mixed = bleu([same[0], "a dog ran over the moon"] * 10, same * 10)
    assert mixed.low < mixed.mean < mixed.high < 100
    assert ter(same, same) == (0, 0, 0) and ter(["The Cat"], ["the cat"]).mean == 0
    # Of several references the nearest counts; three and five words have four on average.
    np.testing.assert_allclose(ter(["a b c"], [["a b x", "v w x y z"]], samples=2).mean, 100 * 1 / 4)
    assert chrf(["a b"], [["x y", "a b"]], samples=2).mean == 100
    for metric in (bleu, chrf, ter):
        with pytest.raises(ValueError, match="as many predictions as references"):
            metric(["a"], [])
        with pytest.raises(ValueError, match="prediction 1 has no reference"):
            metric(["a", "b"], [["a"], []])

"""Bad input of judging, statistics, calibration, perturbations and likelihoods: one line instead of a number."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.evaluation import judge as J
from research.evaluation.agreement import cohen_kappa, krippendorff_alpha
from research.evaluation.calibration import brier_score, reliability, risk_coverage
from research.evaluation.counterfactual import NAMES, regender, rename
from research.evaluation.likelihood import score, score_choices, score_pairs
from research.evaluation.paired import mcnemar, paired_bootstrap, permutation_test, sign_test
from research.evaluation.perturb import case, perturbed, spacing, typos
from research.models import build, preset

PAIR = {"question": "?", "answer_a": "x", "answer_b": "y"}
TINY = preset("gpt2").replace(vocab_size=300, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=16)
MODEL = build(TINY)
BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), MODEL.abstract())


def slow(prompts):
    raise TimeoutError("the judge took longer than 5 s")


def forms(folder):
    path = folder / "prompts.jsonl"
    rows = [{"name": "a", "type": "single", "system_prompt": "", "prompt_template": "{answer}"}, {"name": "b"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    return J.read_mt_bench(path)


def annotations(folder):
    path = folder / "annotations.json"
    path.write_text(json.dumps([{"instruction": "i", "output_1": "a", "preference": 1}]))
    return J.read_annotations(path)


CASES = {
    "unknown weights of kappa": (
        lambda w, p: cohen_kappa([1], [1], weights="linaer"),
        "unknown weights 'linaer', did you mean 'linear'.*have",
    ),
    "words without an order": (
        lambda w, p: cohen_kappa(["low"], ["high"], weights="linear"),
        "linear weights need the order.*'high', 'low'",
    ),
    "rating outside the labels": (
        lambda w, p: cohen_kappa([1, 2], [1, 9], labels=[1, 2]),
        r"hold 9, not in labels \[1, 2\]",
    ),
    "fewer ratings of one rater": (lambda w, p: cohen_kappa([1, 2], [1]), "as many ratings of both.*2 and 1"),
    "unknown level": (lambda w, p: krippendorff_alpha([[1], [1]], "nominl"), "'nominl', did you mean 'nominal'"),
    "raters with unequal units": (lambda w, p: krippendorff_alpha([[1, 2], [1]]), r"entry per unit.*\[1, 2\]"),
    "no unit with two ratings": (lambda w, p: krippendorff_alpha([[1, None], [None, 2]]), "no unit has two"),
    "words at the interval level": (
        lambda w, p: krippendorff_alpha([["a"], ["b"]], "interval"),
        "interval level needs numbers.*'a', 'b'",
    ),
    "negative ratios": (lambda w, p: krippendorff_alpha([[-1], [2]], "ratio"), "ratings of at least 0; got -1"),
    "unequal scores": (lambda w, p: paired_bootstrap([1.0, 2.0], [1.0]), "as many scores of both.*2 and 1"),
    "no scores": (lambda w, p: permutation_test([], []), "at least one; got 0 and 0"),
    "scores that are no numbers": (lambda w, p: sign_test([1.0, np.nan], [1.0, 2.0]), "needs numbers; got NaN"),
    "scores of another shape": (
        lambda w, p: permutation_test([[1, 2]], [[1]]),
        r"one shape; got \(1, 2\) and \(1, 1\)",
    ),
    "no samples": (lambda w, p: paired_bootstrap([1.0], [2.0], samples=0), "at least 1 sample, given 0"),
    "McNemar of ratings": (lambda w, p: mcnemar([1, 5], [0, 1]), r"right \(1\) or wrong \(0\).*sign_test"),
    "confidence in per cent": (lambda w, p: reliability([97.0], [1]), "probabilities in 0..1; got 97 to 97"),
    "outcome that is a label": (lambda w, p: risk_coverage([0.5, 0.5], [1, 2]), r"right \(1\) or wrong \(0\).*\[2"),
    "unknown bins": (lambda w, p: reliability([0.5], [1], kind="masss"), "'masss', did you mean 'mass'"),
    "no bins": (lambda w, p: reliability([0.5], [1], bins=0), "at least 1 bin, given 0"),
    "label without a column": (lambda w, p: brier_score([[0.5, 0.5]], [2]), "2..2 has no column; there are 2 classes"),
    "probabilities that do not sum to 1": (lambda w, p: brier_score([[0.5, 0.9]], [1]), "sum to 1"),
    "judge that answers nonsense": (
        lambda w, p: J.compare(lambda prompts: ["banana"] * len(prompts), [PAIR]),
        "decided none of 2 prompts: 0 got no answer, 2 answers hold no verdict.*'banana'",
    ),
    "judge that times out": (
        lambda w, p: J.compare(slow, [PAIR]),
        "none of 2 prompts: 2 got no answer.*TimeoutError: the judge took longer",
    ),
    "judge with too few answers": (
        lambda w, p: J.compare(lambda prompts: ["[[A]]"], [PAIR]),
        "2 prompts, it gave 1 ans",
    ),
    "judge that gives numbers": (
        lambda w, p: J.rate(lambda q: [5], [{"question": "?", "answer": "!"}]),
        "among them int",
    ),
    "nothing to judge": (lambda w, p: J.compare(slow, []), "asked nothing"),
    "pair without an answer": (
        lambda w, p: J.compare(slow, [PAIR, {"question": "?", "answer_a": "x"}]),
        r"example 1: form 'pairwise' needs.*\['answer_b'\] missing in \['question', 'answer_a'\]",
    ),
    "form of the other kind": (
        lambda w, p: J.compare(slow, [PAIR], J.SINGLE),
        "'single' is single; expected a pairwise",
    ),
    "form without answers": (
        lambda w, p: J.Form("mine", "pairwise", "{question}{answer_a}"),
        r"no field \['answer_b'\]",
    ),
    "line that is no judge prompt": (lambda w, p: forms(p), r"prompts.jsonl:2: no judge prompt.*'system_prompt'"),
    "annotations without a column": (lambda w, p: annotations(p), "annotations.json, entry 0: expected texts"),
    "annotations that are absent": (lambda w, p: J.read_annotations(p / "none.json"), "none.json: expected AlpacaEval"),
    "address that is a file": (lambda w, p: J.Address("file:///etc/passwd", "m"), "begin with http:// or https://"),
    "address without tries": (lambda w, p: J.Address("http://x", "m", tries=0), "at least 1 try.*given 0"),
    "win rate of nobody": (lambda w, p: J.win_rate(["A"], "C"), r"unknown system 'C'; have \['A', 'B'\]"),
    "win rate of no verdicts": (lambda w, p: J.win_rate([None, None]), "none of 2 pairs has a verdict"),
    "verdict that is none": (lambda w, p: J.win_rate(["A", "a"]), "'a' is no verdict; have"),
    "lengths of other pairs": (lambda w, p: J.length_controlled(["A"], [1], [1, 2]), "1 verdicts but 1 and 2 lengths"),
    "length bias without a case": (lambda w, p: J.longer_wins(["tie"], [1], [2]), "no decided pair of unequal length"),
    "people who judged other pairs": (lambda w, p: J.agreement(["A", None], [None, "B"]), "no pair of 2 has verdicts"),
    "unknown perturbation": (lambda w, p: perturbed({"t": "x"}, "typo", ["t"]), "'typo', did you mean 'typos'"),
    "label to be perturbed": (
        lambda w, p: perturbed({"t": "x", "y": "z"}, "case", ["t", "y"], label="y"),
        "the label 'y' is among the fields",
    ),
    "field that is no text": (
        lambda w, p: perturbed({"t": 3}, "case", ["t"]),
        r"\['t'\] is none in a row with \['t'\]",
    ),
    "rate in per cent": (lambda w, p: typos("some text", rate=20), "in 0..1; given 20"),
    "unknown case": (lambda w, p: case("x", kind="uper"), "'uper', did you mean 'upper'"),
    "no blanks": (lambda w, p: spacing("a b", most=0), "1 or more blanks.*most=0"),
    "unknown names": (lambda w, p: rename("Emily", "indain"), "'indain', did you mean 'indian'"),
    "unknown gender": (lambda w, p: rename("Emily", gender="femal"), "'femal', did you mean 'female'"),
    "unknown pronouns": (lambda w, p: regender("she", "neutral"), "unknown gender 'neutral'; have"),
    "more names than the lists have": (
        lambda w, p: rename(" ".join([*NAMES["english"]["male"], "Omar"]), "indian"),
        "11 different names; there are too few of indian male ones",
    ),
    "no texts": (lambda w, p: score(MODEL, w, BYTES, []), "list of at least one text"),
    "one text for a list": (lambda w, p: score(MODEL, w, BYTES, "text"), "list of at least one text; got 'text'"),
    "stride that skips tokens": (lambda w, p: score(MODEL, w, BYTES, ["a"], stride=17), "1 to 16 of them.*stride=17"),
    "window the model has not": (
        lambda w, p: score(MODEL, w, BYTES, ["a"], length=17),
        "length=17 does not fit.*1 to 16",
    ),
    "encoder that is to read on": (
        lambda w, p: score(build(preset("bert-base")), w, BYTES, ["a"]),
        "need a model of kind decoder with head 'lm'; this one is encoder with head 'mlm'",
    ),
    "tokenizer without a start": (
        lambda w, p: score(MODEL, w, ByteTokenizer(("<pad>", "<unk>")), ["a"]),
        "no begin and no end token",
    ),
    "no pairs": (lambda w, p: score_pairs(MODEL, w, BYTES, []), "no pairs of context and continuation"),
    "empty continuation": (lambda w, p: score_pairs(MODEL, w, BYTES, [("a", "b"), ("a", "")]), "pair 1: .*is empty"),
    "unknown boundary": (lambda w, p: score_pairs(MODEL, w, BYTES, [("a", "b")], boundary="join"), "'join'; have"),
    "unknown cut": (lambda w, p: score_pairs(MODEL, w, BYTES, [("a", "b")], long="trim"), "unknown long='trim'; have"),
    "window too small for one example": (
        lambda w, p: score_pairs(MODEL, w, BYTES, [("a" * 20, "b")]),
        "pair 0: .*20 tokens, the model takes 16",
    ),
    "question without choices": (
        lambda w, p: score_choices(MODEL, w, BYTES, [("q", ["a"]), ("q", [])]),
        "question 1 has",
    ),
    "unknown way to score": (
        lambda w, p: score_choices(MODEL, w, BYTES, [("q", ["a"])], by="tokens"),
        "'tokens', did you mean 'token'",
    ),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(name, params, tmp_path):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call(params, tmp_path)
    assert len(str(caught.value)) > 20
    assert "\n" not in str(caught.value)

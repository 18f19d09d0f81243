"""Scorers learned from pairs: what is told apart, kept, loaded, and used as a judge and in a card."""

import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from configs import judge_model, reward_model, toxicity_scorer
from experiments import pair_scorer, scorers
from experiments import reward_model as rewards
from experiments.pairs import HELD_OUT, TRAIN, Pair, annotations, dialogues, split
from research.data.huggingface_tokenizer import from_wordpiece
from research.evaluation.baselines import linear_preference
from research.evaluation.judge import TRAINED, compare, trained_judge
from research.evaluation.text_scorer import TextScorer, encode
from research.interop import load_pretrained, save_pretrained
from research.models import build, preset

WORDS = ["good", "bad", "fine", "awful", "what", "say", "it", "is", "a", "b", "c", "d", "e", "f", "g", "h"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny encoder with random weights, as a folder."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = from_wordpiece(folder / "vocab.txt")
    sizes = {"vocab_size": 21, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_length": 32}
    config = preset("bert-base").replace(**sizes, head="none", init_std=0.3)
    save_pretrained(folder / "model", config, jax.jit(build(config).init)(jax.random.key(0)), tokenizer=tokenizer)
    decoder = preset("gpt2").replace(**sizes, head="none", init_std=0.3)
    save_pretrained(folder / "decoder", decoder, jax.jit(build(decoder).init)(jax.random.key(0)), tokenizer=tokenizer)
    return folder / "model"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Judgements that follow one word, and people's choices that do too; answers of random length."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def answers():
        tails = [" ".join(generator.choice(WORDS[8:], generator.integers(1, 8))) for _ in range(2)]
        return f"{tails[0]} good", f"{tails[1]} bad"

    judged, talks = [], []
    for i in range(160):
        (good, bad), first, question = answers(), bool(generator.integers(2)), f"say {i} {WORDS[8 + i % 8]}"
        texts = (good, bad) if first else (bad, good)
        preference = 0 if i % 16 == 0 else 1 if first else 2
        judged.append({"instruction": question, "output_1": texts[0], "output_2": texts[1], "preference": preference})
        before = f"\n\nHuman: hello\n\nAssistant: it is\n\nHuman: {question}\n\nAssistant:"
        talks.append({"chosen": f"{before} {good}", "rejected": f"{before} {bad}"})
    talks.append({"chosen": f"\n\nHuman: x{before} {good}", "rejected": f"{before} {bad}"})
    for name, text in (
        ("alpaca_eval_gpt4/alpaca-7b.annotations.json", json.dumps(judged)),
        ("hh_rlhf_harmless/harmless-base.dev.jsonl", "\n".join(map(json.dumps, talks))),
    ):
        (root / name).parent.mkdir()
        (root / name).write_text(text)
    return root


def run(config, data, base, folder, **changes):
    settings = config.to_dict() | {"data": str(data), "base": str(base)} | changes
    console = Console(file=io.StringIO(), width=200)
    pair_scorer.work(settings, folder, console)
    return console.file.getvalue(), {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_the_tiny_judge_learns_what_the_judgements_follow(data, base, tmp_path):
    config = judge_model.get_config("tiny")
    learning = {"pairs": 0, "epochs": 12, "learning_rate": 1e-2, "seeds": (0, 1)}
    said, found = run(config, data, base, tmp_path, **learning)
    for result in found.values():
        assert result["agreement"][1] > 0.9 and result["one answer"] > 0.9 and result["consistent"] == 1
        assert 0.3 < result["longer"][1] < 0.7
    # Words tell these answers apart as well; length does not.
    assert "naive Bayes of words" in said and "always A" in said and "seeds: 2" in said
    scorer = TextScorer.load(tmp_path / "model")
    rows = [("say it", "a b good"), ("say it", "bad"), ("what", "c good"), ("what", "")]
    scores = scorer(rows)
    np.testing.assert_allclose([scorer([row])[0] for row in rows], scores, atol=1e-5)
    assert scores[0] > scores[1] and (np.argsort(scorer.probabilities(rows)) == np.argsort(-scores)).all()
    pairs = split(annotations(data / "alpaca_eval_gpt4" / "alpaca-7b.annotations.json"))[HELD_OUT]
    judged = compare(trained_judge(scorer), [pair._asdict() for pair in pairs], TRAINED)
    assert judged.orders[0] == judged.orders[1] and judged.summary()["unparseable"] == 0
    hits = [v == p.verdict for v, p in zip(judged.verdicts, pairs, strict=True) if p.verdict != "tie"]
    # The folder holds the scorer that was measured.
    np.testing.assert_allclose(np.mean(hits), found["0.json"]["agreement"][1])
    assert f"{np.mean(hits):.3f}" in scorer.described
    # Nothing is trained twice, unless the scorer was deleted.
    stamp = (tmp_path / "model" / "scorer.json").stat().st_mtime_ns
    run(config, data, base, tmp_path, **learning)
    assert (tmp_path / "model" / "scorer.json").stat().st_mtime_ns == stamp


def test_the_tiny_toxicity_scorer_runs_on_dialogues(data, base, tmp_path):
    said, found = run(toxicity_scorer.get_config("tiny"), data, base, tmp_path)
    assert "held-out pairs" in said and 0 <= found["0.json"]["agreement"][1] <= 1
    assert TextScorer.load(tmp_path / "model").facts["length"] == 32


@pytest.fixture(scope="module")
def learned(data, base, tmp_path_factory):
    """What rewards learned from the planted choices, in all three ways."""
    folder = tmp_path_factory.mktemp("rewards")
    settings = reward_model.get_config("tiny").to_dict() | {"data": str(data), "pairs": 0, "held_out": 0.25}
    settings["ways"] = {
        name: way | {"base": str(base), "learning_rate": 1e-2, "epochs": 6} for name, way in settings["ways"].items()
    }
    settings["ways"]["decoder, pairs"] = settings["ways"]["encoder, pairs"] | {"base": str(base.parent / "decoder")}
    console = Console(file=io.StringIO(), width=200)
    rewards.work(settings, folder, console)
    return folder, settings, console.file.getvalue()


def test_rewards_learn_planted_choices_in_every_way(data, learned):
    folder, _, said = learned
    sides = split(dialogues(data / "hh_rlhf_harmless" / "harmless-base.dev.jsonl"), 0.25)
    pairs = rewards.Split(sides)
    assert [text.endswith("good") for _, text in pairs.rows[:4]] == [True, False, True, False]
    for way, kept in (("encoder, pairs", "encoder_pairs"), ("decoder, pairs", "decoder_pairs")):
        found = json.loads((folder / f"{kept.replace('_', '__')}-0.json").read_text())
        scores = np.array(found["scores"])
        assert np.mean(scores[:, 0] > scores[:, 1]) > 0.9, way
        # The folder holds the reward model that was measured.
        np.testing.assert_allclose(TextScorer.load(folder / kept)(pairs.rows), scores.ravel(), atol=1e-4)
    scores = np.array(json.loads((folder / "encoder__classes-0.json").read_text())["scores"])
    # A classifier's logit tells single answers apart at 0.
    assert np.mean(scores > 0, axis=0)[0] > 0.9 and np.mean(scores > 0, axis=0)[1] < 0.1
    # Words tell these answers apart, lengths do not.
    plain = rewards.without_model(pairs)
    assert np.mean(plain["words"] > 0) == 1 and 0.2 < np.mean(plain["length"] > 0) < 0.8
    assert "1 held-out" not in said and f"{len(pairs.longer)} held-out pairs" in said and "by chance" in said
    assert (folder / "reward_reliability.png").stat().st_size and (folder / "reward_length.png").stat().st_size


def test_nothing_is_learned_twice_unless_it_was_deleted(learned, monkeypatch):
    folder, settings, _ = learned
    asked = []
    monkeypatch.setattr(rewards, "run_cell", lambda *a: asked.append(a[2:4]) or {"scores": [], "middle": 0.0})
    monkeypatch.setattr(rewards, "report", lambda *a: None)
    rewards.work(settings, folder, Console(file=io.StringIO()))
    assert not asked
    (folder / "decoder_pairs" / "scorer.json").unlink()
    rewards.work(settings, folder, Console(file=io.StringIO()))
    assert asked == [(settings["ways"]["decoder, pairs"], 0)]


@pytest.mark.parametrize("seed", range(3))
def test_the_ridge_is_that_which_foretells_pairs_it_has_not_seen(seed):
    d = np.random.default_rng(seed).normal(size=(400, 10))
    signal = d * np.sign(d @ np.linspace(-3, 3, 10))[:, None]  # all preferred by one linear reward
    misleading = signal * np.where(np.arange(400) % 5 == 0, -1, 1)[:, None]  # every fifth pair contradicts the others
    for given, ridge in ((signal, min(rewards.RIDGES)), (misleading, max(rewards.RIDGES))):
        np.testing.assert_allclose(rewards.with_best_ridge(given), linear_preference(given, ridge=ridge))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_measured_of_rewards_is_a_loop_over_pairs(seed):
    generator = np.random.default_rng(seed)
    d, longer = generator.normal(size=40).round(1), generator.integers(-9, 10, 40)
    found = rewards.measured(d, longer, 4)
    points = [1.0 if x > 0 else 0.5 if x == 0 else 0.0 for x in d]
    assert found["accuracy"] == pytest.approx(sum(points) / 40)
    assert found["nats"] == pytest.approx(-sum(math.log(1 / (1 + math.exp(-x))) for x in d) / 40)
    assert found["longer"] == pytest.approx(np.mean([p for p, n in zip(points, longer, strict=True) if n > 0]))
    assert found["shorter"] == pytest.approx(np.mean([p for p, n in zip(points, longer, strict=True) if n < 0]))
    x, y = d - d.mean(), longer - longer.mean()
    assert found["with length"] == pytest.approx((x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum()))


def test_a_score_and_the_logits_of_two_classes_are_one_thing(base):
    described, params, _ = load_pretrained(base, head="scalar", key=jax.random.key(3))
    tokens = jnp.array([[2, 5, 6, 3], [2, 9, 3, 0]])
    batch = {"tokens": tokens, "segment_ids": (tokens > 0).astype(jnp.int32), "token_types": jnp.zeros_like(tokens)}
    two = build(described.replace(head="sequence", n_labels=2))

    def read(model, weights):
        return np.asarray(model.classify(weights, model.apply(weights, batch), batch))

    score, logits = read(build(described), params), read(two, scorers.two_classes(params))
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], score, atol=1e-6)
    moved = scorers.two_classes(params)
    moved["head"]["output"]["kernel"] = moved["head"]["output"]["kernel"] + np.array([0.3, -0.2])
    logits = read(two, moved)
    again = read(build(described), scorers.one_logit(moved))
    np.testing.assert_allclose(again, logits[:, 1] - logits[:, 0], atol=1e-5)


def test_a_batch_of_pairs_as_single_answers():
    tokens = np.arange(12).reshape(3, 2, 2)
    pairs = {"tokens": tokens, "preferred": np.array([1, 0, 0.5]), "loss_mask": np.ones(3)}
    rows = scorers.single(pairs)
    assert rows["tokens"].tolist() == tokens.reshape(6, 2).tolist()
    assert rows["labels"].tolist()[:4] == [1, 0, 0, 1] and rows["loss_mask"].tolist() == [1, 1, 1, 1, 0, 0]


def test_what_reward_models_refuse(base, data, tmp_path):
    settings = reward_model.get_config("tiny").to_dict() | {"data": str(data)}
    way = {"base": str(base), "loss": "pairs", "learning_rate": 1e-3, "epochs": 1}

    def run_way(**changes):
        rewards.work(settings | {"ways": {"one": way | changes}}, tmp_path, Console(file=io.StringIO()))

    with pytest.raises(ValueError, match=r"unknown loss 'pair', did you mean 'pairs'.*have \['pairs', 'classes'\]"):
        run_way(loss="pair")
    with pytest.raises(ValueError, match=r"no base model in .*nothing: experiments\.base_models makes one"):
        run_way(base=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="must be the longer one somewhere and the shorter one elsewhere"):
        rewards.Split({TRAIN: [Pair("q", "a", "b", "A")], HELD_OUT: [Pair("q", "aa", "b", "A")]})
    with pytest.raises(ValueError, match=r"unknown argument 'small' of configs/reward_model\.py"):
        reward_model.get_config("small")


def test_pairs_of_dialogues_are_the_last_answers_and_no_question_is_on_both_sides(data, tmp_path):
    pairs = dialogues(data / "hh_rlhf_harmless" / "harmless-base.dev.jsonl")
    assert len(pairs) == 160 and pairs[3].question == "say 3 d"
    assert all({"A": p.answer_a, "B": p.answer_b}[p.verdict].endswith("good") for p in pairs)
    assert 40 < sum(p.verdict == "A" for p in pairs) < 120
    doubled = [*pairs, *(Pair(p.question, "x", "y", "tie") for p in pairs)]
    sides = split(doubled)
    assert not {p.question for p in sides[TRAIN]} & {p.question for p in sides[HELD_OUT]}
    assert len(sides[TRAIN]) + len(sides[HELD_OUT]) == 320 and 40 < len(sides[HELD_OUT]) < 120
    (tmp_path / "odd.jsonl").write_text('{"chosen": "\\n\\nAssistant: x", "rejected": "y"}\n')
    with pytest.raises(ValueError, match=r"odd\.jsonl:1: expected chosen and rejected"):
        dialogues(tmp_path / "odd.jsonl")


@pytest.mark.parametrize(
    ("q", "a", "kept"), [(3, 4, (3, 4)), (20, 2, (11, 2)), (2, 20, (2, 11)), (20, 20, (6, 7)), (0, 0, (0, 0))]
)
def test_what_does_not_fit_is_cut_where_there_is_most(base, q, a, kept):
    from research.data import load_tokenizer

    ids, types = encode(load_tokenizer(base), ("a " * q, "b " * a), 16)
    first, second = kept
    assert len(ids) == len(types) <= 16 and ids.count(13) == first and ids.count(14) == second
    assert types == [0] * (first + 2) + [1] * (second + 1)


def test_ties_other_forms_and_wrong_folders(tmp_path):
    judge = trained_judge(lambda rows: np.array([float(len(answer)) for _, answer in rows]), margin=1)
    pairs = [{"question": "q", "answer_a": a, "answer_b": b} for a, b in (("xxx", "y"), ("xx", "yyy"), ("", "yy"))]
    assert compare(judge, pairs, TRAINED).verdicts == ["A", "tie", "B"]
    with pytest.raises(ValueError, match="decided none"):
        compare(judge, pairs)
    with pytest.raises(ValueError, match=r"holds no text scorer: scorer\.json is missing"):
        TextScorer.load(tmp_path)
    settings = judge_model.get_config("tiny").to_dict() | {"set": "alpaca"}
    with pytest.raises(ValueError, match=r"unknown set 'alpaca'.*alpaca_eval"):
        pair_scorer.work(settings, tmp_path, Console(file=io.StringIO()))

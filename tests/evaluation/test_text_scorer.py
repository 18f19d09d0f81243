"""Classifiers of one label as scorers of pairs, against `sentence-transformers` on the same folders."""

import numpy as np
import pytest

from experiments.indexed import cross_encoder
from research.evaluation.text_scorer import TextScorer

TEXT = "the a cat dog sat ran on over mat hill red blue it was then she saw"
WORDS = TEXT.split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


@pytest.fixture(scope="module", params=[1, 2])
def folder(request, tmp_path_factory):
    """A random BERT classifier made and saved by transformers, with one label or two."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("cross")
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    torch.manual_seed(request.param)
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, initializer_range=0.3, num_labels=request.param,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).eval().save_pretrained(path)
    transformers.BertTokenizer(str(path / "vocab.txt"), model_max_length=40).save_pretrained(path)
    return path, request.param


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_those_of_a_cross_encoder(folder, seed):
    """Short and long passages, the longest of which are cut."""
    path, labels = folder
    if labels == 2:
        with pytest.raises(ValueError, match=r"2 labels|classifier"):
            TextScorer.pretrained(path)
        return
    library = pytest.importorskip("sentence_transformers")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    question = " ".join(rng.choice(WORDS, 5))
    passages = [" ".join(rng.choice(WORDS, n)) for n in (1, 7, 20, 31, 32, 33, 60, 0)]
    theirs = library.CrossEncoder(str(path), device="cpu", activation_fn=torch.nn.Identity())
    wanted = theirs.predict([(question, passage) for passage in passages])
    np.testing.assert_allclose(cross_encoder(str(path))(question, passages), wanted, atol=1e-5)
